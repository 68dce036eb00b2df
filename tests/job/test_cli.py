import subprocess
import sys

import pytest

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import UserError
from xlt_ray.job import cli
from xlt_ray.job.settings import identity
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
        (["--name", "a/b"], "--name 'a/b' must be one plain folder name"),
        (["--retrieval.layers", "3"], r"--retrieval.layers \[3\] are not kept; add them to --embed.layers"),
        (["stray"], "stray"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(words, message):
    with pytest.raises(UserError, match=message) as error:
        parse(*words)
    assert "\n" not in str(error.value)


def test_a_mistake_exits_with_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "jobs/retrieval.py", "--preset", "nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [f"error: unknown preset 'nope'; valid: {', '.join(PRESETS)}"]


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
