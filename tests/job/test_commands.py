"""Commands that a job prints, read again by the command line that they are for."""

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xlt_ray.embed import results as embed_results
from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.errors import UserError
from xlt_ray.finetune import results as finetune_results
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job import cli
from xlt_ray.job.commands import command, report_command
from xlt_ray.presets import PRESETS
from xlt_ray.report.config import ReportJob
from xlt_ray.retrieval.config import RetrievalJob
from xlt_ray.translate.config import TranslateJob

ROOT = Path(__file__).parents[2]
SHARED = ("root", "name", "corpus", "languages", "model")


def read(text, script, job_type):
    """The settings that the printed command gives."""
    interpreter, file, *words = shlex.split(text)
    assert Path(file).name == f"{script}.py"
    assert interpreter == "python" or Path(interpreter).samefile(sys.executable)
    return cli.parse(job_type, words, PRESETS)


def assert_same(there, back):
    assert {name: getattr(back, name) for name in SHARED} == {name: getattr(there, name) for name in SHARED}
    assert back.embed == there.embed


def valid(config_type):
    """The settings that are no contradiction."""

    def build(settings):
        try:
            return config_type(**settings)
        except UserError:
            return None

    return lambda strategy: strategy.map(build).filter(lambda config: config is not None)


words = st.text(st.sampled_from("aZ09_-=. '\"$`\\*?~!#&;()你é"), min_size=1, max_size=12)
names = words.filter(lambda name: not name.startswith("."))
configs = valid(EmbedConfig)(
    st.fixed_dictionaries(
        {},
        optional={
            "num_sentences": st.integers(1, 10**6),
            "encoding": st.sampled_from(["exact", "trimmed"]),
            "context_margin": st.integers(0, 2000),
            "keep_margin": st.one_of(st.just("all"), st.integers(0, 2000)),
            "layers": st.lists(st.integers(0, 31), unique=True, max_size=4).map(tuple),
            "split_long": st.booleans(),
            "refresh": st.booleans(),
            "max_rejected": st.floats(0, 1),
            "rows_per_shard": st.integers(1, 1000),
            "num_gpus": st.one_of(st.none(), st.floats(0, 8)),
            "max_actors": st.one_of(st.none(), st.integers(1, 100)),
        },
    )
)
places = {
    "root": st.one_of(words, words.map("s3://bucket/{}".format)),
    "name": names,
    "corpus": st.one_of(st.sampled_from(["asterisk", "fleurs"]), words.map("manifest:{}".format)),
    "languages": st.lists(st.sampled_from(["en", "fr", "zh_CN", "kea"]), min_size=2, unique=True).map(tuple),
    "model": words,
    "embed": configs,
}


@pytest.mark.slow
@example(EmbedJob(name="-Z", root="--", corpus="manifest:a b", model="--name"), "retrieval", "-")
@given(st.builds(EmbedJob, **places), st.sampled_from(["retrieval", "translate"]), st.sampled_from(["all", "a b"]))
def test_a_command_gives_the_settings_back(job, script, split):
    job_type = {"retrieval": RetrievalJob, "translate": TranslateJob}[script]
    back = read(command(script, job, **{f"{script}__split": split}), script, job_type)
    assert_same(job, back)
    assert getattr(back, script).split == split


@pytest.mark.slow
@given(st.builds(EmbedJob, **places, splits=st.sampled_from([(), ("dev",), ("train", "test")])))
def test_what_follows_embedding_reads_the_same_speech(job):
    back = read(embed_results.next_command(job), "retrieval", RetrievalJob)
    assert_same(job, back)
    assert back.retrieval.split == (job.splits[0] if len(job.splits) == 1 else "all")


def test_what_follows_embedding_of_one_language_is_translation():
    job = EmbedJob(languages=("kea",), splits=("test",))
    back = read(embed_results.next_command(job), "translate", TranslateJob)
    assert_same(job, back)
    assert back.translate.split == "test"


@pytest.mark.slow
@given(st.builds(FinetuneJob, **places | {"languages": st.just(("en", "fr"))}), st.one_of(st.none(), names))
def test_what_follows_fine_tuning_translates_with_its_weights(job, embeddings):
    job = dataclasses.replace(job, finetune=FinetuneConfig(embeddings=embeddings))
    back = read(finetune_results.next_command(job), "translate", TranslateJob)
    assert_same(job, back)
    assert (back.translate.checkpoint, back.translate.embeddings) == (job.name, embeddings)


@given(places["root"], names)
def test_the_report_is_of_the_same_root(root, name):
    back = read(report_command(root, name), "report", ReportJob)
    assert (back.root, back.name) == (root, name)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in ("unseen",)])
def test_presets_survive(preset):
    """A command names no preset, so it spells out what the preset has set."""
    job = cli.parse(EmbedJob, ["--preset", preset], PRESETS)
    assert_same(
        job,
        read(embed_results.next_command(job), "retrieval", RetrievalJob)
        if len(job.languages) > 1
        else (read(embed_results.next_command(job), "translate", TranslateJob)),
    )


def test_a_command_leaves_out_what_is_not_asked():
    text = command("translate", EmbedJob(name="mine"), translate__checkpoint=None, translate__transcribe=False)
    assert "checkpoint" not in text
    assert text.endswith(" --translate.no-transcribe")
    assert "--embed." not in text


@pytest.mark.parametrize("inside", [True, False])
def test_a_command_runs_as_printed_from_where_the_user_is(tmp_path, inside):
    """Printed by a script in jobs/, in a working directory of the user's."""
    folder = ROOT if inside else tmp_path
    script = (
        "import sys; sys.argv = [sys.argv[1]]\n"
        "from xlt_ray.job.commands import report_command\n"
        "print(report_command('/no such root', 'x'))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, "jobs/embed.py" if inside else str(ROOT / "jobs/embed.py")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    done = subprocess.run(said, cwd=folder, shell=True, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "/no such root" in done.stderr
