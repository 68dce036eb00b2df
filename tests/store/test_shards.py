"""What training and translation read of shards, against what was put in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlt_ray.errors import UserError
from xlt_ray.languages import Direction
from xlt_ray.store import artifacts, shards
from xlt_ray.store.schema import Utterance, embedding_schema, utterance_table


def frames_of(i):
    return np.random.default_rng(i).standard_normal((3 + i % 4, 8)).astype(np.float16)


def rows(language):
    texts = {"en": "yes", "zh": "是"}
    return [
        Utterance(
            utterance_id=f"{language}-{i}",
            sentence_id=f"s{i}",
            language=language,
            audio=f"{language}-{i}.wav",
            text=None if i == 2 else f"text {i}",
            translations={} if i == 1 else texts if i != 3 else {"zh": " "},
            split="test" if i % 2 else "train",
        )
        for i in range(5)
    ]


def known(row, language):
    text = row.text if row.language == language else row.translations.get(language)
    return text if text and text.strip() else None  # blanks are no text


@pytest.fixture(params=[1, 100], ids=["a row a group", "all rows in one group"])
def embeddings(request, tmp_path):
    """Two languages, with three and two recordings in a shard; also as earlier versions grouped them."""
    embed = artifacts.start(str(tmp_path), "embed", "speech", {"model": {"sha256": "abc"}}, {"model": "base"})
    units = {"fr-00000": rows("fr")[:3], "fr-00001": rows("fr")[3:], "fr_ca-00000": rows("fr_ca")}
    for unit, of in units.items():
        sound = [frames_of(int(row.utterance_id[-1])) for row in of]
        counts = [[len(frames) * 320 for frames in sound], *[[len(frames) for frames in sound]] * 2, [8] * len(of)]
        columns = [*(pa.array(count, pa.int32()) for count in counts)]
        columns.append(pa.array([frames.tobytes() for frames in sound], pa.large_binary()))
        table = pa.table([*utterance_table(of).columns, *columns], schema=embedding_schema())
        embed.write_table(f"data/{unit}.parquet", table, row_group_size=request.param)
    embed.merge_rejected()
    embed.commit(units=units, num_rows_in=10, inputs={}, seconds=0)
    return embed


def test_every_recording_meets_every_direction_of_its_language(embeddings):
    directions = [Direction("fr", "zh"), Direction("fr", "fr"), Direction("fr", "en")]
    got = shards.tasks(embeddings, directions, None).to_pylist()
    expected = [
        (str(direction), row.utterance_id, known(row, direction.target))
        for direction in directions
        for row in rows("fr")
    ]
    assert [(row["direction"], row["utterance_id"], row["reference"]) for row in got] == expected
    for row in got:
        (frames,) = shards.read_frames([(row["shard"], row["row"])])
        assert np.array_equal(frames, frames_of(int(row["utterance_id"][-1])))
        assert row["num_frames"] == len(frames)


def test_a_split_is_a_part(embeddings):
    got = shards.tasks(embeddings, [Direction("fr", "fr")], "test")
    assert got["utterance_id"].to_pylist() == ["fr-1", "fr-3"]


def test_a_language_is_not_the_start_of_another(embeddings):
    assert shards.of_language(embeddings, "fr") == [
        (embeddings.path("data/fr-00000.parquet"), 3),
        (embeddings.path("data/fr-00001.parquet"), 2),
    ]


def test_rows_without_a_reference_are_rejected_with_the_reason(embeddings):
    rows_in = shards.tasks(embeddings, [Direction("fr", "zh")], None)
    good, bad = shards.without_reference(rows_in)
    assert good["utterance_id"].to_pylist() == ["fr-0", "fr-2", "fr-4"]
    assert [(row["utterance_id"], row["reason"]) for row in bad.to_pylist()] == [
        ("fr-1", "no reference: fr-zh"),
        ("fr-3", "no reference: fr-zh"),
    ]


def test_frames_come_in_the_order_asked_and_may_repeat(embeddings):
    first, second = (uri for uri, _ in shards.of_language(embeddings, "fr"))
    places = [(second, 1), (first, 0), (second, 0), (first, 0), (first, 2)]
    got = shards.read_frames(places)
    for frames, number in zip(got, [4, 0, 3, 0, 2], strict=True):
        assert np.array_equal(frames, frames_of(number))


def test_one_recording_is_read_without_the_others(embeddings, monkeypatch):
    """Of a shard with a row a group, only the asked row's bytes leave the disk."""
    (uri, _), *_ = shards.of_language(embeddings, "fr")
    is_old = pq.ParquetFile(uri).num_row_groups == 1  # of an earlier version: read whole
    groups = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda self, i, **of: groups.append(i) or read(self, i, **of))
    shards.read_frames([(uri, 2)])
    assert groups == ([0] if is_old else [2])


def test_references_are_required_before_there_are_shards():
    index = utterance_table(rows("fr"))
    shards.require_references(index, [Direction("fr", "zh"), Direction("fr", "fr")], "train")
    with pytest.raises(UserError, match="direction fr-zh: no fr recording has a zh text"):
        shards.require_references(index, [Direction("fr", "zh")], "test")  # one row has none, the other a blank
    with pytest.raises(UserError, match="no fr recording is of split 'dev', but of test, train"):
        shards.require_references(index, [Direction("fr", "zh")], "dev")
    with pytest.raises(UserError, match="no de recording is of split None"):
        shards.require_references(index, [Direction("de", "zh")], None)


def test_another_model_is_named(embeddings):
    shards.require_model(embeddings, "abc", "mine")
    with pytest.raises(UserError, match=r"embed artifact 'speech' was made with another model .*'mine'.*'base'"):
        shards.require_model(embeddings, "xyz", "mine")


@pytest.mark.parametrize(
    ("encoding", "keep", "context", "warns"),
    [
        ("exact", 149, 100, True),
        ("exact", 150, 100, False),
        ("exact", "all", 100, False),
        ("trimmed", "all", 299, True),
        ("trimmed", 299, 500, True),
        ("trimmed", 300, 300, False),
    ],
)
def test_too_little_silence_is_said(tmp_path, capsys, encoding, keep, context, warns):
    made_with = {"encoding": encoding, "keep_margin": keep, "context_margin": context}
    shards.warn_of_loops(artifacts.start(str(tmp_path), "embed", "speech", {"embed": made_with}, {}))
    assert ("the decoder repeats itself" in capsys.readouterr().out) == warns
