import os
import signal
import subprocess
import sys
import tempfile
import traceback

import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError, UserCodeException
from ray.train import WorkerGroupError
from tiny import tiny_whisper

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import Damaged, NoResources, TooManyRejected, Unreachable, Unwritable, UserError
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.job import cli
from xlt_ray.job.settings import check_name, identity
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval.config import RetrievalJob


def parse(*words, job=RetrievalJob):
    return cli.parse(job, list(words), PRESETS)


def test_no_flags_is_the_demo():
    job = parse()
    assert (job.preset, job.name, job.corpus, job.embed.num_sentences) == ("demo", "demo", "asterisk", 50)


def test_a_corpus_of_ones_own_is_taken_whole():
    job = parse("--corpus", "manifest:x.tsv", "--languages", "en,fr")
    assert (job.preset, job.name, job.embed.num_sentences) == ("plain", "plain", None)
    assert parse("--corpus=fleurs").preset == "plain"
    assert parse("--corpus", "fleurs", "--preset", "demo").embed.num_sentences == 50


def test_flags_change_the_preset():
    job = parse(
        "--preset", "asterisk_100", "--languages", "en,fr", "--embed.encoding=trimmed", "--embed.keep_margin", "all"
    )
    assert job.languages == ("en", "fr")
    assert (job.embed.num_sentences, job.embed.encoding, job.embed.keep_margin) == (100, "trimmed", "all")
    assert job.name == "asterisk_100"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpsu", "x"], r"unknown flag --corpsu; did you mean --corpus\? valid: .*--languages"),
        (["--preset", "nope"], "unknown preset 'nope'; valid: demo, "),
        (["--embed.encoding", "mp3"], r"invalid choice 'mp3' .*exact.*trimmed"),
        (["--embed.keep-margin", "-1"], "--embed.keep-margin is -1; give 0 or more"),
        (["--retrieval.top-k", "0"], "--retrieval.top-k is 0; give 1 or more"),
        (["--languages", "en"], "two languages or more; --languages is 'en'"),
        (["--languages", "en,en"], "names a language twice"),
        (["--root", ""], "--root is ''; give a directory, s3://... or gs://..."),
        (["--name", "a/b"], "--name 'a/b' must be one plain folder name"),
        (["--retrieval.layers", "3"], r"--retrieval.layers \[3\] are not kept; add them to --embed.layers"),
        (["--retrieval.baselines", "mean_pool", "dtw", "mean_pool"], "names a score twice: mean_pool dtw mean_pool"),
        (["--embed.layers", "3", "--retrieval.layers", "3", "3"], "--retrieval.layers names a layer twice: 3 3"),
        (["stray"], "stray"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(words, message):
    with pytest.raises(UserError, match=message) as error:
        parse(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--retrieval.top-k", "0"], "--retrieval.top-k is 0; give 1 or more"),
        (["--embed.encoding", "mp3"], "invalid choice 'mp3' for --embed.encoding; valid: exact, trimmed"),
        (["--embed.encoding=mp3", "--name", "x"], "invalid choice 'mp3' for --embed.encoding; valid: exact, trimmed"),
        (["--embed.num_gpus", "many"], "invalid choice 'many' for --embed.num_gpus; valid: number or None"),
        (["--embed.keep-margin", "none"], "invalid choice 'none' for --embed.keep-margin; valid: whole number or all"),
        (
            ["--embed.layers", "1", "x"],
            "invalid choice '1 x' for --embed.layers; valid: several whole numbers, with spaces between",
        ),
        (
            ["--embed.layers", "1,2"],
            "invalid choice '1,2' for --embed.layers; valid: several whole numbers, with spaces",
        ),
        (["--retrieval.baselines=dtw,random"], "invalid choice 'dtw,random' for --retrieval.baselines; valid: any of "),
        (["--seed", "x"], "unknown flag --seed; did you mean "),
        (["--retrieval.seed"], "invalid choice '' for --retrieval.seed; valid: whole number"),
        (["stray"], "unexpected arguments: stray"),
        (["--languages", "en", "fr"], "unexpected arguments: fr; give each setting as --flag VALUE"),
        (["--languages=en", "fr", "--dry-run", "yes"], "unexpected arguments: fr yes"),
        (["--embed.layers=1", "2", "--no-dry-run", "x"], "unexpected arguments: 2 x"),
        (["-name", "mine"], "unexpected arguments: -name mine"),
    ],
)
def test_a_mistake_is_said_in_our_words_on_every_terminal(capsys, words, line):
    """tyro draws a box around its own, with lines or hyphens as the terminal takes them."""
    with pytest.raises(UserError) as error:
        parse(*words)
    assert str(error.value).startswith(line)
    assert not any(mark in str(error.value) for mark in ("---", "─", "│", "\n"))
    assert capsys.readouterr() == ("", "")


def test_initials_of_a_flag_are_a_hint_at_it():
    with pytest.raises(UserError, match=r"unknown flag --finetune.lr; did you mean --finetune.learning-rate\?"):
        parse("--finetune.lr", "1e-4", job=FinetuneJob)


def test_a_mistake_exits_with_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "jobs/retrieval.py", "--preset", "nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [f"error: unknown preset 'nope'; valid: {', '.join(PRESETS)}"]


def ended(capsys, error, *words):
    """Exit code and standard error of a job that raises `error` in its work."""

    def main(job: RetrievalJob) -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.run(main, PRESETS, list(words))
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "code"), [(UserError, 2), (TooManyRejected, 3), (NoResources, 4)], ids=["user", "rejected", "resources"]
)
def test_a_job_that_cannot_be_done_ends_with_the_code_of_its_reason(capsys, kind, code):
    assert ended(capsys, kind("give 1 or more")) == (code, "error: give 1 or more\n")


def test_a_place_that_is_out_of_reach_is_no_mistake_and_costs_nothing(capsys):
    code, said = ended(capsys, Unreachable("s3://bucket/a.wav", "no answer"))
    assert (code, said) == (
        1,
        "error: cannot read s3://bucket/a.wav: no answer; nothing is lost: run the same command again\n",
    )


def raised(error):
    """The error with a stack, as it was raised."""
    try:
        raise error
    except Exception as found:
        return found


def as_ray_sends(error):
    """`error` as a worker sends it: pickled, which loses what it was raised from."""
    stack = "".join(traceback.format_exception(raised(error)))
    return RayError.from_bytes(RayTaskError("task", stack, error).to_bytes())


def as_ray_raises(error):
    """What a driver gets where `error` was raised in a worker."""
    return as_ray_sends(error).as_instanceof_cause()


def as_a_lost_actor(error):
    """What a driver gets where an actor could not be made: the text of the stack alone."""
    return ActorDiedError.from_task_error(as_ray_sends(error))


def beneath(error):
    """An error that was raised while `error` was handled, as Ray Data does with those of a function."""
    outer = UserCodeException("UDF failed to process a data block.")
    outer.__cause__ = raised(error)
    return outer


def as_ray_train_raises(error):
    """What a driver gets where a worker of a training fails: rank 0 only lost the other; long stacks are cut."""
    return WorkerGroupError("the first lines...\n...the last lines", {0: RuntimeError("peer is gone"), 1: error})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda error: error,
        as_ray_raises,
        as_a_lost_actor,
        lambda error: as_ray_raises(beneath(error)),
        as_ray_train_raises,
        lambda error: as_ray_train_raises(as_ray_raises(beneath(error))),
    ],
    ids=["here", "task", "actor", "data", "train", "data in train"],
)
@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (Damaged("/r/x.parquet is missing; make it again: x"), "/r/x.parquet is missing; make it again: x", 1),
        (
            Unwritable("/r/x.parquet", "No space left on device"),
            "cannot write /r/x.parquet: No space left on device; make room, then run the same command again: "
            "finished work is kept",
            1,
        ),
        (
            Unreachable("s3://bucket/a.wav", "no answer"),
            "cannot read s3://bucket/a.wav: no answer; nothing is lost: run the same command again",
            1,
        ),
        (UserError("n1 does not see /r/x; give another"), "n1 does not see /r/x; give another", 2),
    ],
    ids=["damaged", "full", "unreachable", "user"],
)
def test_what_happens_in_a_worker_is_said_as_if_it_happened_here(capsys, wrap, error, line, code):
    assert ended(capsys, wrap(error)) == (code, f"error: {line}\n")


def test_no_space_is_known_by_its_words_where_a_library_says_them(capsys):
    error = RuntimeError("Training failed\n  OSError: [Errno 28] No space left on device: '/r/train'\n  more\n")
    code, said = ended(capsys, error)
    assert code == 1
    assert said.startswith("error: OSError: [Errno 28] No space left on device: '/r/train'; make room, then ")


def test_a_traceback_that_finds_no_room_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert ended(capsys, KeyError("name")) == (1, "error: KeyError: 'name'\n")


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (RuntimeError("first line\n\n  what happened in a worker  \n"), "RuntimeError: what happened in a worker"),
        (KeyError("name"), "KeyError: 'name'"),
        (AssertionError(), "AssertionError"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 300}"),
    ],
)
def test_a_fault_is_one_line_that_names_the_file_of_its_traceback(capsys, tmp_path, monkeypatch, error, summary):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, said = ended(capsys, error)
    (file,) = tmp_path.iterdir()
    assert (code, said) == (1, f"error: {summary}; the traceback is in {file}\n")
    written = file.read_text()
    assert written.startswith("Traceback (most recent call last):")
    assert "raise error" in written
    assert str(error) in written


def test_a_mistake_in_the_flags_starts_nothing(capsys):
    code, said = ended(capsys, AssertionError("it ran"), "--retrieval.top-k", "0")
    assert (code, said) == (2, "error: --retrieval.top-k is 0; give 1 or more\n")


def test_a_user_who_stops_a_job_sees_no_error_of_ours():
    def main(job: RetrievalJob) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cli.run(main, PRESETS, [])


def test_a_job_gets_a_root_that_lasts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = []

    def main(job: RetrievalJob) -> None:
        roots.append(job.root)

    cli.run(main, PRESETS, ["--root", "runs"])
    assert roots == [str(tmp_path / "runs")]


def test_a_local_model_is_found_wherever_a_worker_works(tmp_path, monkeypatch):
    """Without its place, `models/mine` would be looked for on the Hub there."""
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    models = []

    def main(job: RetrievalJob) -> None:
        models.append(job.model)

    for model in ("models/mine", "~/models/mine", "models/other", "wheels:whisper-base"):
        cli.run(main, PRESETS, ["--model", model])
    assert models == [*[str(tmp_path / "models" / "mine")] * 2, "models/other", "wheels:whisper-base"]
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    (copy / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(copy)
    cli.run(main, PRESETS, ["--model", "models/mine"])
    assert models[-1] == "models/mine"  # which every worker has in its own copy


@pytest.mark.slow
def test_too_much_that_is_missing_exits_with_code_3(tmp_path):
    """By a whole job: before Ray starts, and nothing is written."""
    manifest = tmp_path / "corpus.tsv"
    manifest.write_text("utterance_id\tsentence_id\tlanguage\taudio\na\ts\ten\tgone.wav\n")
    model = tiny_whisper(tmp_path / "model")
    words = ["--corpus", f"manifest:{manifest}", "--languages", "en", "--model", model, "--root", tmp_path / "runs"]
    done = subprocess.run(
        [sys.executable, "jobs/embed.py", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"error: 1 of 1 recordings are missing, such as {tmp_path}/gone.wav; mount or copy the audio, or correct the "
        "corpus; the maximum fraction is --embed.max-rejected 0.05"
    ]
    assert not (tmp_path / "runs").exists()


def test_identity_leaves_out_where_and_how_fast():
    job = RetrievalJob(embed=EmbedConfig(rows_per_shard=7, max_actors=3), root="/elsewhere")
    assert identity(job) == identity(RetrievalJob())
    assert identity(RetrievalJob(embed=EmbedConfig(encoding="trimmed"))) != identity(RetrievalJob())


def test_a_submitted_job_does_not_lose_its_results(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)
    thrown_away = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1"
    assert cli.lasting("runs", thrown_away) == "/home/someone/xlt_ray/runs"
    assert cli.lasting("runs", str(tmp_path)) == str(tmp_path / "runs")
    for kept in ("/data/runs", "s3://bucket/runs"):
        assert cli.lasting(kept, thrown_away) == kept
    assert cli.lasting("~/runs", thrown_away) == "/home/someone/runs"
    with pytest.raises(UserError, match="NUL"):
        cli.lasting("~a\0b", thrown_away)


def test_a_reader_that_goes_away_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "jobs/embed.py", "--help"], stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    "name", ["a\0b", "a\nb", "\ud800", "\u202etxt", "a\u2066b", "\x1b[2J", "x" * 201, "ж" * 101, "..", "a/b", ""]
)
def test_a_name_that_no_folder_should_have_is_refused(name):
    with pytest.raises(UserError, match="--name"):
        check_name(name)


@pytest.mark.parametrize("name", ["demo", "ein Lauf", "实验-1", "a.b", "x" * 200])
def test_other_names_are_taken(name):
    check_name(name)
