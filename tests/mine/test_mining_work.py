"""From shards to pairs without Ray, against whole score matrices that are computed naively."""

import dataclasses
import tempfile
from pathlib import Path

import embedded
import naive_mining
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import whole_matrix
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from xlt_ray.embed import committed
from xlt_ray.mine import work
from xlt_ray.mine.config import MineConfig
from xlt_ray.retrieval import units
from xlt_ray.retrieval.config import MODES
from xlt_ray.retrieval.units import Extent
from xlt_ray.store import artifacts, reading
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import Utterance

PAIR, DIM = ("en", "fr"), 4


def random_frames(seed, sizes):
    """By language, of recordings that are as good as never equal."""
    generator = np.random.default_rng(seed)
    return {
        code: [generator.normal(0.3, 1, (generator.integers(1, 9), DIM)).astype(np.float16) for _ in range(size)]
        for code, size in zip(PAIR, sizes, strict=True)
    }


def mining_of(root, name, frames, sentences, config, blocks):
    """A run that is to begin, over embeddings that are there or are written now."""
    rows = [
        Utterance(utterance_id=f"{code}{n:03d}", sentence_id=sentences[code][n], language=code, audio="/x.wav")
        for code in PAIR
        for n in range(len(frames[code]))
    ]
    if not Path(root, "embed").exists():
        embedded.write(
            root, "x", rows, lambda row: {None: frames[row.language][int(row.utterance_id[2:])]}, rows_per_unit=3
        )
    index = committed.read_index(artifacts.find(str(root), "embed", "x")).select(work.COLUMNS)
    recordings = {code: index.filter(pc.equal(index["language"], code)) for code in PAIR}
    uri = Artifact.at(str(root), "embed", "x").uri
    extents = {
        code: Extent(recordings[code].num_rows, block, units.bytes_each(uri, recordings[code]))
        for code, block in zip(PAIR, blocks, strict=True)
    }
    artifact = Artifact.at(str(root), "mine", name)
    artifact.begin()
    return work.Mining(artifact, uri, recordings, extents, config)


def run(mining):
    """All of the work in this process; the figures of the choice, how many pairs were scored."""
    num_scored = 0
    for folder in ("found", "scored"):
        worker = work.Worker(mining, folder)
        for unit in work.missing(mining, folder, [] if folder == "found" and mining.covers(PAIR) else [PAIR]):
            rows = [
                row for table in worker(pa.Table.from_pylist([dataclasses.asdict(unit)])) for row in table.to_pylist()
            ]
            assert sum(row["num_pairs"] for row in rows) == unit.num_pairs
            num_scored += sum(row["num_scored"] for row in rows)
        assert work.missing(mining, folder, [PAIR]) == [] or mining.covers(PAIR)
    work.merge_pair(mining, PAIR)
    return work.choose(mining, PAIR, mining.config), num_scored


def read(mining, folder):
    return reading.table_of(mining.artifact.path(folder, "en-fr.parquet"))


def check_pairs(table, expected):
    """`expected` by place; the order is that of places."""
    found = {(int(row["first"][2:]), int(row["second"][2:])): row for row in table.to_pylist()}
    assert list(found) == sorted(expected)
    for key, (score, ratio, distance, found_by) in expected.items():
        row = found[key]
        # F1 of recall and precision of opposite sign is large, and so is its rounding.
        assert (row["score"], row["distance"]) == pytest.approx((score, distance), rel=1e-4, abs=2e-6)
        assert row["found_by"] == found_by
        if ratio is not None and abs(score - distance) > 0.05:
            assert row["ratio"] == pytest.approx(ratio, rel=1e-4, abs=1e-4)  # a score near 0 has rounding alone


def cases(**more):
    return dict(
        seed=st.integers(0, 10**6),
        sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        mode=st.sampled_from(MODES),
        neighbours=st.integers(1, 4),
        strip=st.integers(1, 4),
        blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
        **more,
    )


def sentences_of(sizes):
    """Some are said in both languages, some twice."""
    return {"en": [f"s{n // 2}" for n in range(sizes[0])], "fr": [f"s{n}" for n in range(sizes[1])]}


@pytest.mark.slow
@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(**cases())
@example(seed=1, sizes=(7, 9), mode="f1", neighbours=2, strip=2, blocks=(4, 4))
def test_exact_mining_is_that_of_the_whole_matrix_and_of_candidates_that_hold_everything(
    seed, sizes, mode, neighbours, strip, blocks
):
    frames, sentences = random_frames(seed, sizes), sentences_of(sizes)
    config = MineConfig(candidates="all", mode=mode, neighbours=neighbours, strip_utterances=strip, margin="distance")
    matrix = whole_matrix.matrix(whole_matrix.MODES[mode], frames["en"], frames["fr"])
    expected = naive_mining.pairs(matrix, neighbours)
    with tempfile.TemporaryDirectory() as root:
        mining = mining_of(root, "exact", frames, sentences, config, blocks)
        figures, num_scored = run(mining)
        assert num_scored == sizes[0] * sizes[1]
        check_pairs(read(mining, "data"), expected)
        taken = naive_mining.chosen(expected, "distance", True, None, None)
        assert figures["num_mined"] == len(taken)
        mined = [(int(row["first"][2:]), int(row["second"][2:])) for row in read(mining, "mined").to_pylist()]
        assert sorted(mined) == sorted(taken)  # margins that differ by rounding may stand in another order
        if shared := set(sentences["en"]) & set(sentences["fr"]):
            said = list(sentences.values())
            naive = naive_mining.figures(taken, said, shared)
            assert tuple(figures["against_corpus"][key] for key in ("precision", "recall", "f1")) == pytest.approx(
                naive
            )
        # The candidates are looked for here, though `covers` would say that there is no need.
        many = dataclasses.replace(config, candidates=max(*sizes, neighbours))
        found = mining_of(root, "found", frames, sentences, many, blocks)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(work.Mining, "covers", lambda *_: False)
            again, _ = run(found)
        assert read(found, "data").equals(read(mining, "data"))
        assert read(found, "mined").equals(read(mining, "mined"))
        held = again.pop("candidate_recall")
        assert {(recall["first"], recall["nearest"]) for recall in held.values()} == {(1.0, 1.0)}
        assert again == {key: value for key, value in figures.items() if key != "candidate_recall"}


def naive_pooled(frames, num):
    unit = whole_matrix.unit(frames)
    return np.array([unit[start : start + num].mean(axis=0) for start in range(0, len(unit), num)])


@pytest.mark.slow
@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(**cases(more=st.integers(0, 2), sample=st.integers(0, 9)))
@example(seed=1, sizes=(9, 9), mode="f1", neighbours=1, strip=2, blocks=(4, 4), more=0, sample=9)
@example(seed=2, sizes=(9, 8), mode="recall", neighbours=2, strip=3, blocks=(3, 6), more=1, sample=4)
def test_mining_among_candidates_sees_these_alone(seed, sizes, mode, neighbours, strip, blocks, more, sample):
    """All others are as good as not there; what is sampled tells how many of the nearest are lost, and changes
    nothing else."""
    frames, sentences = random_frames(seed, sizes), sentences_of(sizes)
    num = neighbours + more
    config = MineConfig(
        candidates=num,
        mode=mode,
        neighbours=neighbours,
        strip_utterances=strip,
        pool_frames=3,
        sample=sample,
        seed=seed,
    )
    score = whole_matrix.MODES[mode]
    exact = whole_matrix.matrix(score, frames["en"], frames["fr"])
    pooled = whole_matrix.matrix(score, *([naive_pooled(part, 3) for part in frames[code]] for code in PAIR))
    there, back = naive_mining.neighbours(pooled, num)
    wanted = np.array([[j in there[i] or i in back[j] for j in range(sizes[1])] for i in range(sizes[0])])
    with tempfile.TemporaryDirectory() as root:
        mining = mining_of(root, "few", frames, sentences, config, blocks)
        figures, num_scored = run(mining)
        if mining.covers(PAIR):
            assert wanted.all()
            assert figures["candidate_recall"] == {}
        expected = np.where(wanted, exact, np.nan)
        check_pairs(read(mining, "data"), naive_mining.pairs(expected, neighbours))
        sampled = mining.sampled(PAIR)
        drawn = [0 if mining.covers(PAIR) else min(sample, size) for size in sizes]
        assert [len(places) for places in sampled] == drawn
        everything = wanted | np.logical_or.outer(
            np.isin(range(sizes[0]), sampled[0]), np.isin(range(sizes[1]), sampled[1])
        )
        assert num_scored == everything.sum()
        for name, places, scores, marked in (
            ("en-fr", sampled[0], exact, wanted),
            ("fr-en", sampled[1], exact.T, wanted.T),
        ):
            if not len(places):
                assert not figures["candidate_recall"].get(name)
                continue
            first = [marked[i, naive_mining.best(scores[i], 1)[0]] for i in places]
            nearest = [marked[i, j] for i in places for j in naive_mining.best(scores[i], neighbours)]
            found = figures["candidate_recall"][name]
            assert found["num_sampled"] == len(places)
            assert (found["first"], found["nearest"]) == pytest.approx((np.mean(first), np.mean(nearest)))


def test_another_choice_is_made_of_the_same_pairs(tmp_path):
    frames, sentences = random_frames(3, (8, 8)), sentences_of((8, 8))
    mining = mining_of(tmp_path, "x", frames, sentences, MineConfig(candidates="all", neighbours=2), (8, 8))
    run(mining)
    expected = naive_mining.pairs(whole_matrix.matrix(whole_matrix.f1, frames["en"], frames["fr"]), 2)
    before = Path(mining.artifact.path("data", "en-fr.parquet")).stat().st_mtime_ns
    other = dataclasses.replace(mining.config, margin="absolute", one_to_one=False, threshold=0.6, top_n=5)
    figures = work.choose(mining, PAIR, other)
    taken = naive_mining.chosen(expected, "absolute", False, 0.6, 5)
    table = read(mining, "mined")
    assert [(int(row["first"][2:]), int(row["second"][2:])) for row in table.to_pylist()] == taken
    assert figures["num_mined"] == len(taken) > 0
    assert figures["margin"]["min"] >= 0.6
    assert Path(mining.artifact.path("data", "en-fr.parquet")).stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["gone", "zeroed"])
@pytest.mark.parametrize("working", ["there", "gone"])
def test_a_recall_that_is_lost_is_measured_again(tmp_path, kind, working):
    """Of a finished run the working files are gone; they are made again too."""
    frames, sentences = random_frames(5, (8, 9)), sentences_of((8, 9))
    mining = mining_of(tmp_path, "x", frames, sentences, MineConfig(candidates=2, neighbours=1, sample=4), (8, 9))
    figures, _ = run(mining)
    assert work.unmerged(mining, [PAIR]) == []
    data = read(mining, "data")
    recall = Path(mining.artifact.path("recall", "en-fr.json"))
    recall.unlink() if kind == "gone" else recall.write_bytes(bytes(recall.stat().st_size))
    if working == "gone":
        mining.artifact.remove("found")
        mining.artifact.remove("scored")
    assert work.unmerged(mining, [PAIR]) == [PAIR]
    assert mining.artifact.done() == set()  # a run that is killed now has it all to do again
    again, num_scored = run(mining)
    assert (num_scored > 0) == (working == "gone")
    assert again == figures
    assert read(mining, "data").equals(data)
    assert work.unmerged(mining, [PAIR]) == []
