"""What training and translation read of shards, against what was put in."""

import embedded
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from xlt_ray.embed import committed
from xlt_ray.errors import UserError
from xlt_ray.languages import Direction
from xlt_ray.store import shards
from xlt_ray.store.schema import Utterance, utterance_table


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


@pytest.fixture
def embeddings(tmp_path):
    """Two languages, with three and two recordings in a shard."""
    recordings = [*rows("fr"), *rows("fr_ca")]
    return embedded.write(
        tmp_path,
        "speech",
        recordings,
        lambda row: {None: frames_of(int(row.utterance_id[-1]))},
        rows_per_unit=3,
    )


def tasks(embeddings, directions):
    return shards.tasks(embeddings.uri, committed.read_index(embeddings), directions)


def shard(embeddings, number):
    return embeddings.path(f"data/fr-rows-{number:05d}.parquet")


def test_every_recording_meets_every_direction_of_its_language(embeddings):
    directions = [Direction("fr", "zh"), Direction("fr", "fr"), Direction("fr", "en")]
    got = tasks(embeddings, directions).to_pylist()
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


def test_tasks_are_of_the_recordings_that_are_given(embeddings):
    """A split, and in an order of their own."""
    index = committed.read_index(embeddings)
    part = index.filter(pc.equal(index["split"], "test"))
    got = shards.tasks(embeddings.uri, part.take([1, 0]), [Direction("fr", "fr")])
    assert got["utterance_id"].to_pylist() == ["fr-3", "fr-1"]


def test_a_language_is_not_the_start_of_another(embeddings):
    got = tasks(embeddings, [Direction("fr", "zh")])
    assert got["language"].to_pylist() == ["fr"] * 5
    assert sorted(set(got["shard"].to_pylist())) == [shard(embeddings, 0), shard(embeddings, 1)]
    assert got["row"].to_pylist() == [0, 1, 2, 0, 1]


def test_rows_without_a_reference_are_rejected_with_the_reason(embeddings):
    good, bad = shards.without_reference(tasks(embeddings, [Direction("fr", "zh")]))
    assert good["utterance_id"].to_pylist() == ["fr-0", "fr-2", "fr-4"]
    assert [(row["utterance_id"], row["reason"]) for row in bad.to_pylist()] == [
        ("fr-1", "no reference: fr-zh"),
        ("fr-3", "no reference: fr-zh"),
    ]


def test_frames_come_in_the_order_asked_and_may_repeat(embeddings):
    first, second = shard(embeddings, 0), shard(embeddings, 1)
    places = [(second, 1), (first, 0), (second, 0), (first, 0), (first, 2)]
    got = shards.read_frames(places)
    for frames, number in zip(got, [4, 0, 3, 0, 2], strict=True):
        assert np.array_equal(frames, frames_of(number))


def test_recordings_are_read_without_the_others_of_their_file(embeddings, monkeypatch):
    """A recording is a row group, so only the asked rows' bytes leave the disk."""
    uri = shard(embeddings, 0)
    assert pq.ParquetFile(uri).num_row_groups == 3
    groups = []
    read = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_groups", lambda self, rows, **how: groups.append(rows) or read(self, rows, **how)
    )
    for name in ("read", "read_row_group", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, name, None)
    shards.read_frames([(uri, 2), (uri, 0)])
    assert groups == [[0, 2]]


def test_references_are_required_before_there_are_shards():
    index = utterance_table(rows("fr"))
    train, test = (index.filter(pc.equal(index["split"], split)) for split in ("train", "test"))
    shards.require_references(train, [Direction("fr", "zh"), Direction("fr", "fr")], "train")
    with pytest.raises(UserError, match="direction fr-zh: no fr recording of split 'test' has a zh text"):
        shards.require_references(test, [Direction("fr", "zh")], "test")  # one row has none, the other a blank
    with pytest.raises(UserError, match="direction de-zh: no de recording is of split 'train'; choose another"):
        shards.require_references(train, [Direction("de", "zh")], "train")
