"""Retrieval among candidates, from shards to rankings without Ray: against all pairs, and against loops over some."""

import dataclasses
import itertools
import tempfile

import numpy as np
import pytest
import test_work as whole
import whole_matrix
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from xlt_ray.errors import UserError
from xlt_ray.retrieval import candidates, rankings, work
from xlt_ray.retrieval.config import POOL_FRAMES, PROTOCOLS, RetrievalConfig
from xlt_ray.store import reading

pytestmark = pytest.mark.slow

PAIR = whole.PAIR


def random_frames(seed, sentences):
    """Numbers of which no two scores are as good as equal, long enough to be pooled."""
    generator = np.random.default_rng(seed)
    return {
        code: [
            generator.normal(0.5, 1, (2, generator.integers(1, 25), whole.DIM)).astype(np.float16)
            for _ in sentences[code]
        ]
        for code in PAIR
    }


def run(scoring, forced=False):
    """As `test_work.run`, with candidates."""
    with pytest.MonkeyPatch.context() as patch:
        if forced:
            patch.setattr(work.Scoring, "covers", lambda *_: False)
        if not scoring.covers(PAIR):
            for unit in scoring.units(PAIR):
                work.find_candidates(scoring, unit)
            work.measure_recall(scoring, PAIR)
        return whole.run(scoring)


cases = {
    "seed": st.integers(0, 10**6),
    "english": whole.sentence_lists,
    "italian": whole.sentence_lists,
    "strip": st.integers(1, 4),
    "blocks": st.tuples(st.integers(1, 6), st.integers(1, 6)),
}
CONFIG = RetrievalConfig(baselines=("mean_pool", "max_pool", "random"), top_k=3)


@settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(**cases)
def test_candidates_that_hold_everything_change_nothing(seed, english, italian, strip, blocks):
    sentences = {"en": english, "it": italian}
    frames = whole.random_frames(seed, sentences)
    config = dataclasses.replace(CONFIG, strip_utterances=strip)
    everything = dataclasses.replace(config, candidates=max(len(english), len(italian)))
    tables = []
    for settings_, forced in ((config, False), (everything, True)):
        with tempfile.TemporaryDirectory() as root:
            files = run(whole.scoring_of(root, frames, sentences, settings_, blocks), forced)
            tables.append([reading.table_of(uri) for uri in files.values()])
    # As text, in which NaN is NaN.
    assert [str(table.to_pylist()) for table in tables[0]] == [str(table.to_pylist()) for table in tables[1]]


def of_baselines(scoring, files):
    """Ranks and figures of the baselines, in both directions and by both protocols."""
    names, found = list(CONFIG.baselines), {}
    for direction, protocol in itertools.product(files, PROTOCOLS):
        ranks = rankings.ranks(files[direction], protocol, names).by_score
        shown = dataclasses.replace(scoring.config, protocol=protocol)
        figures = work.summarise(scoring, direction, shown)["figures"]
        for name in names:
            del figures[name]["lead_ci95"]  # against SeqSim, which ranks candidates
            found[direction, protocol, name] = ranks[name].tolist(), figures[name]
    return found


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(**cases, num=st.integers(1, 4))
@example(0, whole.SENTENCES["en"], whole.SENTENCES["it"], 2, (4, 4), 1)
@example(1, whole.SENTENCES["en"], whole.SENTENCES["it"], 1, (2, 3), 1)
def test_baselines_are_those_of_a_run_without_candidates(seed, english, italian, strip, blocks, num):
    """With ties and broken recordings."""
    sentences = {"en": english, "it": italian}
    frames = whole.random_frames(seed, sentences)
    found = []
    for candidates_ in (None, num):
        config = dataclasses.replace(CONFIG, strip_utterances=strip, candidates=candidates_)
        with tempfile.TemporaryDirectory() as root:
            scoring = whole.scoring_of(root, frames, sentences, config, blocks)
            found.append(of_baselines(scoring, run(scoring, forced=candidates_ is not None)))
    assert found[0] == found[1]


@pytest.mark.parametrize(("more", "flag"), [({"layers": (3,)}, "layers 3"), ({"baselines": ("dtw",)}, "baselines dtw")])
def test_what_needs_all_frames_of_all_pairs_is_refused(more, flag):
    with pytest.raises(UserError, match=f"--retrieval.{flag} would be ranked among the --retrieval.candidates"):
        RetrievalConfig(candidates=5, **more)


def naive_wanted(frames, num):
    """Which pairs are candidates, and by whom."""

    def pooled(part):
        unit = whole_matrix.unit(part[0])
        return np.array([unit[start : start + POOL_FRAMES].mean(axis=0) for start in range(0, len(unit), POOL_FRAMES)])

    coarse = whole_matrix.matrix(whole_matrix.f1, *([pooled(part) for part in frames[code]] for code in PAIR))
    there, back = (np.argsort(-scores, axis=1, kind="stable")[:, :num] for scores in (coarse, coarse.T))
    wanted = np.zeros(coarse.shape, dtype=bool)
    wanted[np.arange(len(there))[:, None], there] = True
    wanted[back, np.arange(len(back))[:, None]] = True
    return wanted


def naive_ranks(scores, right, wanted, asks):
    """Among candidates; a query whose hits are none of them ranks behind all that are wrong."""
    found = []
    for row, hits, there, takes_part in zip(scores, right, wanted, asks, strict=True):
        best = max((s for s, hit, is_there in zip(row, hits, there, strict=True) if hit and is_there), default=None)
        reached = (not hit and (best is None or (is_there and s >= best - 1e-6))
                   for s, hit, is_there in zip(row, hits, there, strict=True))  # fmt: skip
        found.append(1 + sum(reached) if takes_part else None)
    return found


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(**cases, num=st.integers(1, 4))
@example(0, whole.SENTENCES["en"], whole.SENTENCES["it"], 2, (4, 4), 2)
@example(1, whole.SENTENCES["en"], whole.SENTENCES["it"], 1, (2, 3), 1)
def test_only_candidates_are_ranked(seed, english, italian, strip, blocks, num):
    sentences = {"en": english, "it": italian}
    frames = random_frames(seed, sentences)
    config = dataclasses.replace(CONFIG, strip_utterances=strip, candidates=num)
    wanted = naive_wanted(frames, num)
    with tempfile.TemporaryDirectory() as root:
        scoring = whole.scoring_of(root, frames, sentences, config, blocks)
        if scoring.covers(PAIR):
            wanted = np.ones_like(wanted)
        files = run(scoring)
        for direction, uri in files.items():
            there = wanted if direction == "en-it" else wanted.T
            naive = whole.naive_scores(frames, direction, config)
            for protocol in PROTOCOLS:
                who = whole.taking_part(sentences, direction, protocol, config.seed)
                right = whole.positive(sentences, direction, protocol, who)
                found = rankings.ranks(uri, protocol, list(naive))
                for name, matrix in naive.items():
                    # Baselines are ranked among all: pooled SeqSim has chosen the candidates, and would help them.
                    among = there if name.startswith("seqsim") else np.ones_like(there)
                    kept = [part[:, who[1]] for part in (matrix, right, among)]
                    expected = naive_ranks(*kept, who[0])
                    assert found.by_score[name].tolist() == [rank for rank in expected if rank is not None], name
        if not scoring.covers(PAIR):
            check_recall(scoring, frames, wanted)


def check_recall(scoring, frames, wanted):
    exact = whole_matrix.matrix(whole_matrix.f1, *([part[0] for part in frames[code]] for code in PAIR))
    found = scoring.artifact.read_json("recall/en-it.json")
    for name, scores, there in (("en-it", exact, wanted), ("it-en", exact.T, wanted.T)):
        order = np.argsort(-scores, axis=1)[:, : candidates.NEAREST_KEPT]
        held = np.take_along_axis(there, order, axis=1)
        assert found[name] == pytest.approx(
            {"first": held[:, 0].mean(), "nearest": held.mean(), "num_sampled": len(scores)}
        )


@pytest.mark.parametrize("working", ["there", "gone"])
def test_a_recall_that_was_lost_is_measured_again_without_scoring(tmp_path, working):
    config = dataclasses.replace(CONFIG, strip_utterances=2, candidates=1)
    scoring = whole.scoring_of(tmp_path, random_frames(0, whole.SENTENCES), whole.SENTENCES, config)
    units, strips = scoring.units(PAIR), scoring.strips_of_hits(PAIR)
    assert work.left(scoring, [PAIR]) == work.Left(units, [PAIR], strips, units, [PAIR])
    run(scoring)
    assert work.left(scoring, [PAIR]) == work.Left([], [], [], [], [])
    figures = scoring.artifact.read_json("recall/en-it.json")
    scoring.artifact.remove_file("recall/en-it.json")
    if working == "gone":
        for folder in ("found", "best", "counted"):
            scoring.artifact.remove(folder)
    left = work.left(scoring, [PAIR])
    assert left == work.Left(units if working == "gone" else [], [PAIR], [], [], [])
    for unit in left.found:
        work.find_candidates(scoring, unit)
    work.measure_recall(scoring, PAIR)
    assert scoring.artifact.read_json("recall/en-it.json") == figures
    scoring.artifact.remove_file("data/en-it.parquet")
    again = [] if working == "there" else units
    assert work.left(scoring, [PAIR]) == work.Left([], [], strips if again else [], again, [PAIR])
