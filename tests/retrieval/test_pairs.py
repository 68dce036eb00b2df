"""From shards to rankings without Ray: every score, both directions, several tiles, against naive loops."""

import embedded
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from xlt_ray.embed import plan
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.retrieval import pairs, results, tiles
from xlt_ray.retrieval.config import RetrievalConfig
from xlt_ray.store import artifacts
from xlt_ray.store.schema import INDEX, Utterance

DIM, LAYER = 8, 1
# Sentence of each recording: English lacks "d", Italian lacks "a"; "b" was recorded twice in Italian.
SENTENCES = {"en": ["a", "b", "c", "e", "f"], "it": ["b", "b", "c", "d", "e", "f"]}
TEXTS = {"a": "A", "b": "the same", "c": "C", "d": "D", "e": "The same!", "f": "F"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A finished embed artifact of random frames, two recordings a shard, and the frames by language."""
    generator = np.random.default_rng(0)
    frames, rows = {}, []
    for language, sentences in SENTENCES.items():
        frames[language] = [generator.normal(size=(2, n, DIM)).astype(np.float16) for n in range(2, 2 + len(sentences))]
        rows += [utterance(language, number, sentence) for number, sentence in enumerate(sentences)]
    artifact = embedded.write(
        tmp_path_factory.mktemp("root"),
        "x",
        rows,
        lambda row: dict(enumerate_layers(frames[row.language][int(row.utterance_id[2:])])),
        config=EmbedConfig(layers=(LAYER,)),
        num_silent=3,
        rows_per_unit=2,
    )
    return artifact, frames


def enumerate_layers(frames):
    return zip((None, LAYER), map(silenced, frames), strict=True)


def silenced(frames):
    """With silence kept behind the speech; no score may see it."""
    return np.concatenate([frames, np.full((3, DIM), 7, np.float16)])


def utterance(language, number, sentence):
    return Utterance(
        utterance_id=f"{language}{number}",
        sentence_id=sentence,
        language=language,
        audio="/x.wav",
        text=TEXTS[sentence],
    )


def recordings(artifact):
    """Rows of INDEX by language."""
    index = plan.read_index(artifact)
    return {code: index.filter(pc.equal(index["language"], code)) for code in SENTENCES}


def cut(artifact):
    return tiles.cut(artifact.uri, recordings(artifact), [("en", "it")], 2)


def unit(frames):
    wide = frames.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def recall(x, y):
    return np.mean([max(a @ b for b in y) for a in x])


def f1(x, y):
    r, p = recall(x, y), recall(y, x)
    return 2 * r * p / (r + p) if r + p > 0 else 0.0


NAIVE = {
    "seqsim-f1": f1,
    "seqsim-mean": lambda x, y: (recall(x, y) + recall(y, x)) / 2,
    "seqsim-recall": recall,
    "seqsim-precision": lambda x, y: recall(y, x),
    "mean_pool": lambda x, y: cosine(x.mean(axis=0), y.mean(axis=0)),
    "max_pool": lambda x, y: cosine(x.max(axis=0), y.max(axis=0)),
}


def ranked(corpus, **settings):
    """Rankings by direction, over strips of two recordings: 3 x 3 tiles."""
    embeddings, _ = corpus
    config = RetrievalConfig(baselines=("mean_pool", "max_pool"), layers=(LAYER,), **settings)
    artifact = artifacts.Artifact(embeddings.uri + "-" + "-".join(map(str, settings.values())), "retrieval", "x")
    every = cut(embeddings)
    assert len(every) == 9
    scorer = tiles.ScoreTile(artifact, config)
    for tile in every:
        scorer(pa.Table.from_pylist([tile.plain()]))
    both = recordings(embeddings)
    pairs.rank_pair(artifact, [tile.name for tile in every], (both["en"], both["it"]), config)
    return {name: artifacts.read_table(artifact.path("data", f"{name}.parquet")) for name in ("en-it", "it-en")}


def naive_ranks(frames, query_language, candidate_language, layer, score):
    """Rank of the best hit by utterance_id: recordings of the sentence, or of the same words as one of them."""
    ranks = {}
    shared = set(SENTENCES["en"]) & set(SENTENCES["it"])
    words = {sentence: TEXTS[sentence].lower().strip("!") for sentence in TEXTS}
    candidates = [(n, s) for n, s in enumerate(SENTENCES[candidate_language]) if s in shared]
    for n, sentence in enumerate(SENTENCES[query_language]):
        if sentence not in shared:
            continue
        x = unit(frames[query_language][n][layer])
        scored = [
            (score(x, unit(frames[candidate_language][m][layer])), words[s] == words[sentence]) for m, s in candidates
        ]
        best = max(value for value, hit in scored if hit)
        ranks[f"{query_language}{n}"] = 1 + sum(value >= best for value, hit in scored if not hit)
    return ranks


@pytest.mark.parametrize("direction", ["en-it", "it-en"])
def test_ranks_of_every_score_equal_naive_loops(corpus, direction):
    table = ranked(corpus, mode="recall")[direction]
    found = {row["utterance_id"]: dict(row["ranks"]) for row in table.to_pylist()}
    for name, score in NAIVE.items():
        expected = naive_ranks(corpus[1], *direction.split("-"), 0, score)
        assert {query: ranks[name] for query, ranks in found.items()} == expected, name
    expected = naive_ranks(corpus[1], *direction.split("-"), LAYER, recall)
    assert {query: ranks[f"layer-{LAYER}"] for query, ranks in found.items()} == expected
    assert table["rank"].to_pylist() == [ranks["seqsim-recall"] for ranks in found.values()]


def test_a_direction_has_its_own_recall(corpus):
    """The scores of it->en are those of en->it with recall and precision in each other's place."""
    there, back = (ranked(corpus, mode=mode)[name] for mode, name in (("recall", "en-it"), ("precision", "it-en")))
    values = [
        {(row["utterance_id"], entry["utterance_id"]): entry["score"] for row in t.to_pylist() for entry in row["top"]}
        for t in (there, back)
    ]
    assert len(values[0]) == 4 * 5
    assert values[0] == {(candidate, query): score for (query, candidate), score in values[1].items()}


def test_what_has_no_partner_is_rejected_with_the_reason(corpus):
    ranked(corpus, mode="f1")
    artifact = artifacts.Artifact(corpus[0].uri + "-f1", "retrieval", "x")
    rejected = artifacts.read_table(artifact.path("rejected", "it-en.parquet")).to_pylist()
    assert [(row["utterance_id"], row["reason"]) for row in rejected] == [
        ("it3", "no recording of this sentence in en")
    ]


def test_one_per_sentence_draws_one_recording_and_counts_only_it(corpus):
    tables = ranked(corpus, protocol="one_per_sentence")
    assert tables["en-it"]["num_candidates"].to_pylist() == [4] * 4
    assert tables["en-it"]["num_positives"].to_pylist() == [1] * 4  # "the same" twice, but under two sentence_ids
    assert sorted(tables["it-en"]["sentence_id"].to_pylist()) == ["b", "c", "e", "f"]
    assert tables["en-it"].num_rows == 4
    many = ranked(corpus, mode="mean")["en-it"]
    assert many["num_candidates"].to_pylist() == [5] * 4
    assert many["num_positives"].to_pylist() == [3, 1, 3, 1]


def test_figures_are_those_of_the_ranks(corpus):
    tables = ranked(corpus, mode="f1", seed=3)
    figures = results.summarise(tables, RetrievalConfig(baselines=("mean_pool",), layers=(LAYER,)), num_layers=2)
    for name, ranks in ((n, np.array(table["rank"])) for n, table in tables.items()):
        assert figures["pairs"][name]["r1"] == pytest.approx(np.mean(ranks == 1))
        assert figures["pairs"][name]["mrr"] == pytest.approx(np.mean(1 / ranks))
    pooled = [dict(row)["mean_pool"] for row in tables["it-en"]["ranks"].to_pylist()]
    assert figures["baselines"]["mean_pool"]["pairs"]["it-en"]["r1"] == pytest.approx(np.mean(np.array(pooled) == 1))
    assert set(figures["layers"]) == {"1", "2"}
    assert figures["mean"]["r1"] == pytest.approx(np.mean([of["r1"] for of in figures["pairs"].values()]))


@pytest.mark.parametrize(
    ("units", "limit", "expected"),
    [("aabbcc", 4, [4, 2]), ("aaaaab", 4, [4, 2]), ("abc", 9, [3]), ("aabbaa", 2, [2, 2, 2]), ("", 2, [])],
)
def test_strips_hold_consecutive_recordings_up_to_the_limit(units, limit, expected):
    """However they lie in shards: of some units, only the rows of one split are read."""
    rows = [
        {"unit": unit, "row": 3 * place, "num_valid": place + 1, "utterance_id": str(place), "generation": 0}
        | dict.fromkeys(("sentence_id", "language", "audio", "member"), "")
        | {"translations": []}
        for place, unit in enumerate(units)
    ]
    strips = tiles.strips_of("root", pa.Table.from_pylist(rows, schema=INDEX), limit)
    assert [len(strip.rows) for strip in strips] == expected
    found = [entry for strip in strips for entry in zip(strip.shards, strip.rows, strip.num_valid, strict=True)]
    assert found == [(f"root/data/{unit}.parquet", 3 * place, place + 1) for place, unit in enumerate(units)]


def test_a_tile_travels_as_a_row_of_a_table(corpus):
    for tile in cut(corpus[0]):
        (row,) = pa.Table.from_pylist([tile.plain()]).to_pylist()
        assert (tiles.Strip.of(row["rows"]), tiles.Strip.of(row["columns"])) == (tile.rows, tile.columns)
        assert (row["name"], row["num_pairs"]) == (tile.name, len(tile.rows.rows) * len(tile.columns.rows))


def test_only_the_rows_that_are_asked_for_are_read(corpus):
    """The second recording of each shard, in an order of its own."""
    artifact, frames = corpus
    italian = recordings(artifact)["it"].take([5, 1, 3])
    (strip,) = tiles.strips_of(artifact.uri, italian, 9)
    for layer, place in ((None, 0), (LAYER, 1)):
        read = tiles.read_strip(strip, layer)
        one_by_one = [unit(frames["it"][number][place]) for number in (5, 1, 3)]
        assert list(read.lengths) == [len(found) for found in one_by_one]
        np.testing.assert_allclose(read.data.numpy(), np.concatenate(one_by_one), atol=1e-3)


def test_tiles_of_another_cut_are_refused(corpus):
    embeddings, _ = corpus
    ranked(corpus, mode="f1", seed=1)
    artifact = artifacts.Artifact(embeddings.uri + "-f1-1", "retrieval", "x")
    some = [tile.name for tile in cut(embeddings)][:6]
    both = recordings(embeddings)
    with pytest.raises(AssertionError, match="another cut"):
        pairs.rank_pair(artifact, some, (both["en"], both["it"]), RetrievalConfig(baselines=()))
