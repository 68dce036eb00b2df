"""From shards to rankings and figures without Ray, against whole score matrices that are computed naively."""

import dataclasses
import itertools
import tempfile
from pathlib import Path

import embedded
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import whole_matrix
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from xlt_ray.embed import committed
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.retrieval import counting, matrices, rankings, relevance, results, scores, top, units, work
from xlt_ray.retrieval.bitext import COLUMNS
from xlt_ray.retrieval.config import MODES, PROTOCOLS, RetrievalConfig
from xlt_ray.retrieval.seqsim import Frames
from xlt_ray.retrieval.units import Extent
from xlt_ray.store import reading
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import Utterance

DIM, LAYER, PAIR = 4, 1, ("en", "it")
ALL = ("mean_pool", "max_pool", "dtw", "random")
# Sentence of each recording: English lacks "d", Italian lacks "a"; "b" was recorded twice in Italian.
SENTENCES = {"en": ["a", "b", "c", "e", "f"], "it": ["b", "b", "c", "d", "e", "f"]}
TEXTS = {"a": "A", "b": "the same", "c": "C", "d": "D", "e": "The same!", "f": "F"}
WORDS = {sentence: text.lower().strip("!") for sentence, text in TEXTS.items()}


def scoring_of(root, frames, sentences, config, blocks=(4, 4), rows_per_unit=2):
    """A run over these frames (by language: of each recording, by layer) that is to begin.

    Silence is kept behind the speech, which no score may see.
    """
    rows = [
        Utterance(utterance_id=f"{code}{n}", sentence_id=s, language=code, audio="/x.wav", text=TEXTS.get(s, s))
        for code in PAIR
        for n, s in enumerate(sentences[code])
    ]

    def layers_of(row):
        found = frames[row.language][int(row.utterance_id[2:])]
        silence = np.full((3, found.shape[2]), 7, np.float16)
        return {layer: np.concatenate([part, silence]) for layer, part in zip((None, LAYER), found, strict=True)}

    layers = EmbedConfig(layers=(LAYER,))
    embeddings = embedded.write(root, "x", rows, layers_of, config=layers, num_silent=3, rows_per_unit=rows_per_unit)
    index = committed.read_index(embeddings).select(COLUMNS)
    recordings = {code: index.filter(pc.equal(index["language"], code)) for code in PAIR}
    extents = {
        code: Extent(recordings[code].num_rows, block, units.bytes_each(embeddings.uri, recordings[code]))
        for code, block in zip(PAIR, blocks, strict=True)
    }
    artifact = Artifact(f"{root}/retrieval/{'-'.join(map(str, blocks))}", "retrieval", "x")
    artifact.begin()
    return work.Scoring(artifact, embeddings.uri, recordings, extents, config)


def run(scoring):
    """All of the work of two languages, in this process; the uri of each direction's rankings."""
    for unit in scoring.strips_of_hits(PAIR):
        work.score_hits(scoring, unit)
    counter = work.CountUnit(scoring)
    for unit in scoring.units(PAIR):
        done = counter(pa.Table.from_pylist([dataclasses.asdict(unit)]))
        num_layers = 1 + len(scoring.config.layers)
        assert sum(row["num_pairs"][0].as_py() for row in done) == num_layers * unit.num_pairs
    work.merge_pair(scoring, PAIR)
    return {name: scoring.artifact.path("data", f"{name}.parquet") for name in ("en-it", "it-en")}


def random_frames(seed, sentences):
    """Whole numbers, so that scores tie often, exactly, and are far apart where they do not; some recordings are copies
    of others, and some are broken."""
    generator = np.random.default_rng(seed)
    frames = {}
    for code in PAIR:
        frames[code] = []
        for _ in sentences[code]:
            made = generator.integers(-1, 2, (2, generator.integers(1, 5), DIM)).astype(np.float16)
            made[..., 0] = 1  # so that no mean is zero but for rounding, where a cosine would be noise
            others = [*frames[code], *frames["en"]]
            if others and generator.random() < 0.3:
                made = others[generator.integers(len(others))]
            elif generator.random() < 0.05:
                made[0, 0, 0] = np.nan
            frames[code].append(made)
    return frames


def positive(sentences, direction, protocol, who):
    """Who is right for whom (num_queries, num_candidates), by loops over texts; both of `who` take part."""
    query, candidate = direction.split("-")
    there, other = sentences[query], sentences[candidate]
    found = np.zeros((len(there), len(other)), dtype=bool)
    for (i, asked), (j, said) in itertools.product(enumerate(there), enumerate(other)):
        same_words = any(s == asked and WORDS[s] == WORDS[said] for s in other)
        found[i, j] = asked == said or (protocol == "multi_positive" and same_words)
    return found & who[0][:, None] & who[1][None, :]


def taking_part(sentences, direction, protocol, seed):
    """Of queries and of candidates, who takes part."""
    found = []
    languages = direction.split("-")
    for code, other in (languages, reversed(languages)):
        shared = np.array([sentence in sentences[other] for sentence in sentences[code]])
        if protocol == "one_per_sentence":
            generator, drawn = np.random.default_rng(seed), set()
            for sentence in sorted(set(sentences[code])):
                places = [n for n, s in enumerate(sentences[code]) if s == sentence]
                drawn.add(int(generator.choice(places)))
            shared &= np.isin(np.arange(len(shared)), sorted(drawn))
        found.append(shared)
    return found


def naive_scores(frames, direction, config):
    """Every matrix that is kept, by name."""
    query, candidate = direction.split("-")
    asking, searched = (
        {layer: [f[n] for f in frames[c]] for n, layer in enumerate((None, LAYER))} for c in (query, candidate)
    )
    found = {f"seqsim-{m}": whole_matrix.matrix(s, asking[None], searched[None]) for m, s in whole_matrix.MODES.items()}
    for m, s in whole_matrix.MODES.items() if config.layers else ():
        found[f"layer-{LAYER}-{m}"] = whole_matrix.matrix(s, asking[LAYER], searched[LAYER])
    for name in set(config.baselines) - {"random"}:
        found[name] = whole_matrix.matrix(whole_matrix.BASELINES[name], asking[None], searched[None])
    found["random"] = whole_matrix.drawn(len(frames[query]), len(frames[candidate]), config.seed, direction)
    return found


sentence_lists = st.lists(st.sampled_from(sorted(TEXTS)), min_size=1, max_size=9).map(lambda some: [*some, "b"])


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate)
)  # a smaller failure is not worth minutes
@given(
    seed=st.integers(0, 10**6),
    english=sentence_lists,
    italian=sentence_lists,
    strip=st.integers(1, 4),
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    top_k=st.integers(1, 4),
)
@example(0, SENTENCES["en"], SENTENCES["it"], 1, (2, 2), 3)
def test_everything_equals_what_whole_matrices_give(seed, english, italian, strip, blocks, top_k):
    """Ranks, figures, intervals, by every protocol, mode, layer and baseline, in both directions, however it is cut."""
    sentences = {"en": english, "it": italian}
    frames = random_frames(seed, sentences)
    config = RetrievalConfig(baselines=ALL, layers=(LAYER,), strip_utterances=strip, top_k=top_k, seed=seed % 3)
    with tempfile.TemporaryDirectory() as root:
        scoring = scoring_of(root, frames, sentences, config, blocks)
        files = run(scoring)
        for direction, uri in files.items():
            naive = naive_scores(frames, direction, config)
            for protocol in PROTOCOLS:
                check_direction(scoring, sentences, direction, uri, protocol, naive)


def check_direction(scoring, sentences, direction, uri, protocol, naive):
    who = taking_part(sentences, direction, protocol, scoring.config.seed)
    right = positive(sentences, direction, protocol, who)
    there = np.flatnonzero(who[0])
    found = rankings.ranks(uri, protocol, list(naive))
    for name, matrix in naive.items():
        expected = whole_matrix.ranks(matrix[:, who[1]], right[:, who[1]], who[0])
        assert found.by_score[name].tolist() == [expected[n] for n in there], (direction, protocol, name)
    for mode in MODES:
        check_top(scoring, direction, uri, mode, protocol, naive[f"seqsim-{mode}"], right, who)
    shown = dataclasses.replace(scoring.config, protocol=protocol, mode="recall")
    figures = work.summarise(scoring, direction, shown)["figures"]
    names = {"seqsim-recall": "seqsim-recall", "mean_pool": "mean_pool", f"layer-{LAYER}": f"layer-{LAYER}-recall"}
    for name, kept in names.items():
        ranks = found.by_score[kept]
        assert figures[name]["r1"] == np.mean(ranks == 1)
        assert figures[name]["mrr"] == np.mean(1 / ranks)
        interval = whole_matrix.interval(ranks, found.sentence_ids, shown.seed)
        assert figures[name]["r1_ci95"] == interval
        chance = np.mean(right[there].sum(axis=1) / who[1].sum())
        assert figures[name]["chance_r1"] == pytest.approx(chance, rel=1e-12)


def check_top(scoring, direction, uri, mode, protocol, scores, right, who):
    query, candidate = direction.split("-")
    table = rankings.with_candidates(rankings.read(uri, mode, protocol), uri)
    for row in table.to_pylist():
        n = int(row["utterance_id"].removeprefix(query))
        order = sorted(np.flatnonzero(who[1]), key=lambda m: (np.isnan(scores[n, m]), -scores[n, m]))
        best = [scores[n, m] for m in order][: scoring.config.top_k]
        assert [entry["score"] for entry in row["top"]] == pytest.approx(best, abs=1e-5, nan_ok=True)
        for entry in row["top"]:
            m = int(entry["utterance_id"].removeprefix(candidate))
            assert entry["score"] == pytest.approx(scores[n, m], abs=1e-5, nan_ok=True)
            assert entry["correct"] == right[n, m]
            assert entry["text"] == TEXTS[entry["sentence_id"]]
        hits = scores[n][right[n]]
        assert row["num_positives"] == len(hits)
        assert row["num_candidates"] == who[1].sum()
        best_hit = np.nanmax(hits) if not np.isnan(hits).all() else -np.inf
        assert row["positive_score"] == pytest.approx(best_hit, abs=1e-5)


@pytest.fixture(scope="module")
def frames():
    generator = np.random.default_rng(0)
    return {
        code: [generator.normal(size=(2, n, 8)).astype(np.float16) for n in range(2, 2 + len(sentences))]
        for code, sentences in SENTENCES.items()
    }


def tables(uri_by_direction, protocol):
    return {d: rankings.read(uri, "f1", protocol) for d, uri in uri_by_direction.items()}


def test_what_has_no_partner_is_rejected_with_the_reason(tmp_path, frames):
    scoring = scoring_of(tmp_path, frames, SENTENCES, RetrievalConfig(baselines=()))
    files = run(scoring)
    work.summarise(scoring, "it-en", scoring.config)
    rejected = reading.table_of(scoring.artifact.path("rejected", "it-en.parquet")).to_pylist()
    assert [(row["utterance_id"], row["reason"]) for row in rejected] == [
        ("it3", "no recording of this sentence in en")
    ]
    one = work.summarise(scoring, "it-en", dataclasses.replace(scoring.config, protocol="one_per_sentence"))
    rejected = reading.table_of(scoring.artifact.path("rejected", "it-en.parquet")).to_pylist()
    assert {row["reason"] for row in rejected} == {
        "no recording of this sentence in en",
        "another recording of this sentence was drawn (one_per_sentence)",
    }
    assert one["num_queries"] + len(rejected) == len(SENTENCES["it"])
    assert {d: t.num_rows for d, t in tables(files, "one_per_sentence").items()} == {"en-it": 4, "it-en": 4}


def test_one_per_sentence_counts_only_the_recording_that_is_drawn(tmp_path, frames):
    files = run(scoring_of(tmp_path, frames, SENTENCES, RetrievalConfig(baselines=())))
    one, many = (tables(files, protocol)["en-it"] for protocol in ("one_per_sentence", "multi_positive"))
    assert one["num_candidates"].to_pylist() == [4] * 4
    assert one["num_positives"].to_pylist() == [1] * 4  # "the same" twice, but under two sentence_ids
    assert many["num_candidates"].to_pylist() == [5] * 4
    assert many["num_positives"].to_pylist() == [3, 1, 3, 1]


def test_metrics_are_laid_out_from_the_summaries(tmp_path, frames):
    config = RetrievalConfig(baselines=("mean_pool",), layers=(LAYER,), seed=3)
    scoring = scoring_of(tmp_path, frames, SENTENCES, config)
    files = run(scoring)
    shown = dataclasses.replace(config, mode="precision", top_k=2)
    summaries = {direction: work.summarise(scoring, direction, shown) for direction in files}
    figures = results.summarise(summaries, shown, num_layers=2)
    assert [figures[name] for name in ("score", "mode", "protocol", "top_k")] == [
        "seqsim",
        "precision",
        "multi_positive",
        2,
    ]
    for direction, uri in files.items():
        ranks = rankings.ranks(uri, "multi_positive", ["seqsim-precision", "mean_pool", f"layer-{LAYER}-precision"])
        r1 = [np.mean(found == 1) for found in ranks.by_score.values()]
        assert figures["pairs"][direction]["r1"] == r1[0]
        assert figures["baselines"]["mean_pool"]["pairs"][direction]["r1"] == r1[1]
        assert figures["layers"]["1"]["pairs"][direction]["r1"] == r1[2]
        assert figures["layers"]["2"]["pairs"] == figures["pairs"]
    assert set(figures["baselines"]) == {"seqsim-f1", "seqsim-mean", "seqsim-recall", "mean_pool"}
    assert figures["mean"]["r1"] == pytest.approx(np.mean([pair["r1"] for pair in figures["pairs"].values()]))


def test_the_best_hit_is_the_highest_scoring_one_of_the_longest_words(tmp_path, frames):
    scoring = scoring_of(tmp_path, frames, SENTENCES, RetrievalConfig(baselines=()))
    for direction, uri in run(scoring).items():
        hits = [row for row in rankings.read(uri, "f1", "multi_positive").to_pylist() if row["rank"] == 1]
        found = work.summarise(scoring, direction, scoring.config)["best_hit"]
        assert hits
        assert found["positive_score"] == max(row["positive_score"] for row in hits)
        assert found["top"][0]["correct"]
        assert found["top"][0]["score"] == pytest.approx(found["positive_score"], abs=1e-6)
        assert found["is_long"] is False


def test_whole_matrices_are_kept_where_they_are_wanted(tmp_path, frames):
    config = RetrievalConfig(baselines=ALL, layers=(LAYER,), strip_utterances=2, keep_scores=True)
    scoring = scoring_of(tmp_path, frames, SENTENCES, config)
    matrices.write_recordings(scoring.artifact, scoring.recordings)
    for direction in run(scoring):
        for name, expected in naive_scores(frames, direction, config).items():
            if name != "random":
                found = matrices.read(scoring.artifact.uri, direction, name)
                np.testing.assert_allclose(found, expected, atol=1e-3)  # of frames in fp16, and these are not
    listed = reading.table_of(scoring.artifact.path("scores/recordings.parquet")).to_pydict()
    assert listed["utterance_id"] == [f"{code}{n}" for code in PAIR for n in range(len(SENTENCES[code]))]
    Path(scoring.artifact.path("scores", ".en-it.parquet.0123")).write_bytes(b"of a writer that was killed")
    assert len(matrices.files(scoring.artifact)) == 1 + 2 * (2 * 3)  # two layers, two blocks of rows, three strips
    for name in ("random", "cosine"):  # the random baseline is not kept
        with pytest.raises(FileNotFoundError, match=f"no scores by {name} under"):
            matrices.read(scoring.artifact.uri, "en-it", name)
    without = dataclasses.replace(scoring, artifact=Artifact(f"{tmp_path}/none", "retrieval", "x"))
    with pytest.raises(FileNotFoundError, match="no scores of en-it under"):
        matrices.read(without.artifact.uri, "en-it", "dtw")


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "strip"), [((6, 24), 24), ((1, 1), 1), ((2, 5), 3), ((6, 12), 4)])
def test_a_copy_under_another_sentence_counts_against_the_system_wherever_it_falls(tmp_path, blocks, strip):
    """All candidates are the same recording, so every wrong one ties; scored alone and among others of any number."""
    generator = np.random.default_rng(0)
    sentences = {"en": list("abcdef"), "it": list("bcdefa") * 4}
    frames = {"en": [generator.normal(size=(2, n, 96)).astype(np.float16) for n in (1, 2, 3, 40, 77, 90)]}
    frames["it"] = [generator.normal(size=(2, 3, 96)).astype(np.float16)] * 24
    config = RetrievalConfig(strip_utterances=strip, baselines=("mean_pool", "max_pool", "dtw"), layers=(LAYER,))
    uri = run(scoring_of(tmp_path, frames, sentences, config, blocks))["en-it"]
    for protocol, num_wrong in (("multi_positive", [20, 16, 20, 20, 16, 20]), ("one_per_sentence", [5] * 6)):
        found = rankings.ranks(uri, protocol, scores.kept(config))
        for name, ranks in found.by_score.items():
            assert ranks.tolist() == [1 + num for num in num_wrong], name


def test_what_is_nearer_than_the_tolerance_reaches_and_what_is_farther_does_not():
    right = relevance.Relevance(
        queries=np.ones(2, bool),
        candidates=np.ones(5, bool),
        query_sentences=np.array([0, 1]),
        candidate_sentences=np.array([0, 2, 3, 4, 5]),
        words=np.full(5, -1),
        spoken=np.empty((0, 2), np.int64),
    )
    best = np.full((2, 2, 4), 0.9, np.float32)
    best[1] = -np.inf  # the hits of the second are broken, so that every wrong candidate reaches them
    tally = counting.Tally((right, right), best, range(2), RetrievalConfig(baselines=(), top_k=3), "cpu")
    tally.look_at(range(2), range(5))
    near, far = (0.9 - share * scores.TOLERANCE for share in (0.9, 1.2))
    tally.add("seqsim-f1", torch.tensor([[0.9, near, far, torch.nan, 0.95]] * 2))
    assert tally.table("en-it").to_pylist()[0]["counts"][0] == 3  # near, NaN and 0.95; 0.9 is the hit itself
    assert tally.table("en-it").to_pylist()[1]["counts"][0] == 5
    places, values = top.read(np.array([row["top"][:3] for row in tally.table("en-it").to_pylist()]))
    assert places.tolist() == [[4, 0, 1]] * 2
    np.testing.assert_allclose(values[0], [0.95, 0.9, near])


@pytest.mark.parametrize("dim", [64, 768])
def test_the_same_two_utterances_differ_by_less_than_the_tolerance_in_every_company(dim):
    """Alone, and in strips of 48; short ones, because they differ most."""
    generator = torch.Generator().manual_seed(dim)
    lengths = torch.randint(1, 12, (96,), generator=generator).tolist()
    parts = [(torch.randn(n, dim, generator=generator) + 1).half() for n in lengths]
    x, y = Frames.of(parts[:48]), Frames.of(parts[48:])
    config = RetrievalConfig(baselines=("mean_pool", "max_pool", "dtw"))
    among = dict(scores.named(scores.measured(x, y, None, config), None))
    for i, j in itertools.product(range(0, 48, 3), range(0, 48, 5)):
        alone = dict(scores.named(scores.measured(x.part(i, i + 1), y.part(j, j + 1), None, config), None))
        for name, values in among.items():
            assert abs(alone[name][0, 0] - values[i, j]) < 0.7 * scores.TOLERANCE, name


def written(root, num, strip, top_k=10):
    """Bytes of the files of the work in between, and of the rankings, over `num` recordings of each language."""
    generator = np.random.default_rng(0)
    frames = {code: [generator.normal(size=(2, 1, 4)).astype(np.float16) for _ in range(num)] for code in PAIR}
    config = RetrievalConfig(strip_utterances=strip, top_k=top_k)
    sentences = {code: [f"s{n}" for n in range(num)] for code in PAIR}
    scoring = scoring_of(root, frames, sentences, config, (num, num), rows_per_unit=num)
    run(scoring)
    return sum(path.stat().st_size for path in Path(scoring.artifact.uri).rglob("*.parquet"))


@pytest.mark.slow
def test_what_is_written_grows_with_the_recordings_and_not_with_their_pairs(tmp_path):
    few, many = (written(tmp_path / str(num), num, 32) for num in (100, 400))
    assert many / few < 5  # pairs: 16
    assert few / 200 < 2500  # bytes a query
    more = written(tmp_path / "more", 100, 32, top_k=40)
    assert 1.5 < more / few < 4


def test_a_unit_reads_no_more_than_the_strips_of_its_rows_and_columns(tmp_path, frames, monkeypatch):
    """K + K strips for K x K tiles, each once in every layer."""
    config = RetrievalConfig(baselines=("dtw",), layers=(LAYER,), strip_utterances=1)
    scoring = scoring_of(tmp_path, frames, SENTENCES, config, (3, 4))
    for unit in scoring.strips_of_hits(PAIR):
        work.score_hits(scoring, unit)
    read = []
    read_strip = units.read_strip
    monkeypatch.setattr(units, "read_strip", lambda *args: read.append(args) or read_strip(*args))
    unit = scoring.units(PAIR)[0]
    list(work.CountUnit(scoring)(pa.Table.from_pylist([dataclasses.asdict(unit)])))
    assert len(read) == 2 * (3 + 4)
