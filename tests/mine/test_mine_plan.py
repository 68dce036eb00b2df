"""What can be wrong with a mining run, and what makes it another run."""

import dataclasses

import pytest
from ray_speech import row, write_manifest, write_rows
from tiny import tiny_whisper

from xlt_ray.errors import UserError
from xlt_ray.job import cli
from xlt_ray.mine.config import MineConfig, MineJob
from xlt_ray.mine.plan import prepare
from xlt_ray.presets import PRESETS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--mine.candidates", "3"],
            "--mine.candidates 3 is fewer than --mine.neighbours 4; give as many or more, or all",
        ),
        (["--mine.neighbours", "0"], "--mine.neighbours is 0; give 1 or more"),
        (["--mine.pool-frames", "0"], "--mine.pool-frames is 0; give 1 or more"),
        (["--mine.top-n", "0"], "--mine.top-n is 0; give 1 or more"),
        (["--mine.sample", "-1"], "--mine.sample is -1; give 0 or more"),
        (["--languages", "en"], "mining needs two languages or more; --languages is 'en'"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message):
    with pytest.raises(UserError) as raised:
        cli.parse(MineJob, words, PRESETS)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("candidates", "sizes", "covers"),
    [("all", (10**6, 10**6), True), (5, (5, 10**6), True), (5, (6, 6), False), (7, (6, 8), True)],
)
def test_candidates_that_hold_everything_are_not_looked_for(candidates, sizes, covers):
    assert MineConfig(candidates=candidates).covers(sizes) is covers


def test_a_pair_of_languages_has_one_name_in_whatever_order_they_are_asked_for():
    assert MineJob(languages=("it", "en", "fr")).pairs == [("en", "fr"), ("en", "it"), ("fr", "it")]


def test_a_corpus_of_which_no_two_recordings_are_parallel_can_be_mined(tmp_path):
    """And only what is chosen of the pairs may differ in a run of the same name."""
    write_manifest(tmp_path, ["en", "fr"], 2)
    rows = [
        row(code, n, f"{code}-{n:03d}.wav") | {"sentence_id": f"{code}{n}"} for code in ("en", "fr") for n in range(2)
    ]
    words = ["--corpus", f"manifest:{write_rows(tmp_path, rows)}", "--languages", "en,fr", "--root", tmp_path / "runs"]
    job = cli.parse(MineJob, [*map(str, words), "--model", str(tiny_whisper(tmp_path / "model"))], PRESETS)
    first = prepare(job)
    chosen = dataclasses.replace(job.mine, margin="distance", threshold=0.1, top_n=3, one_to_one=False)
    assert prepare(dataclasses.replace(job, mine=chosen)).artifact.identity == first.artifact.identity
    for name, value in {"candidates": "all", "neighbours": 2, "mode": "mean", "pool_frames": 10}.items():
        other = dataclasses.replace(job, mine=dataclasses.replace(job.mine, **{name: value}))
        assert prepare(other).artifact.identity != first.artifact.identity, name
    assert not (tmp_path / "runs").exists()
