"""Users read our tables with the `datasets` library, which knows nothing of this package."""

import datasets
import embedded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlt_ray.retrieval.config import MODES, PROTOCOLS
from xlt_ray.store import schema
from xlt_ray.store.schema import Utterance

VALUES = {
    pa.string(): "fr-en",
    pa.int32(): 3,
    pa.int64(): 2**40,
    pa.float32(): 0.5,
    pa.float64(): 0.25,
    pa.bool_(): True,
    pa.large_binary(): b"\x00\x3c",
    pa.list_(pa.int32()): [1, 2],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own: `datasets` keys what it has read by path and time."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def utterance(number):
    return Utterance(
        utterance_id=f"fr-{number}",
        sentence_id=f"s{number}",
        language="fr",
        audio="/x.wav",
        text="bonjour",
        translations={"en": "hello"},
        split="test",
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_the_datasets_library_reads_the_frames_of_shards(tmp_path, streaming):
    generator = np.random.default_rng(0)
    frames = {f"fr-{number}": generator.random((3 + number, 4)).astype(np.float16) for number in range(5)}
    rows = [utterance(number) for number in range(5)]
    artifact = embedded.write(tmp_path, "mine", rows, lambda row: {None: frames[row.utterance_id]}, rows_per_unit=2)
    read = datasets.load_dataset(
        "parquet", data_files=f"{artifact.uri}/data/*.parquet", split="train", streaming=streaming
    )
    rows = {row["utterance_id"]: row for row in read}
    assert rows.keys() == frames.keys()
    for name, values in frames.items():
        found = np.frombuffer(rows[name]["frames"], np.float16).reshape(rows[name]["num_frames"], rows[name]["dim"])
        np.testing.assert_array_equal(found, values)
        assert rows[name]["translations"] == [{"language": "en", "text": "hello"}]


def value_of(kind):
    """A value of a type; of a list, two of them."""
    if kind in VALUES:
        return VALUES[kind]
    if pa.types.is_struct(kind):
        return {field.name: value_of(field.type) for field in kind}
    return [value_of(kind.value_type)] * 2


RANKING = schema.ranking_schema(PROTOCOLS, MODES, ["seqsim-f1", "dtw"])
NAMED = {name: getattr(schema, name) for name in ("INDEX", "REJECTED", "EXAMPLE", "TRIAL", "CELL", "HYPOTHESIS")}


@pytest.mark.parametrize("table", [*NAMED.values(), RANKING], ids=[*NAMED, "RANKING"])
def test_the_datasets_library_reads_every_table(tmp_path, table):
    row = {field.name: value_of(field.type) for field in table}
    pq.write_table(pa.Table.from_pylist([row], schema=table), tmp_path / "rows.parquet")
    (read,) = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train")
    assert read == row
