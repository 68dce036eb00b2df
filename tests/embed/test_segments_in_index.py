"""Segments in the index: the columns that say which part of a recording a row is."""

import dataclasses

import numpy as np
import pyarrow as pa
import soundfile

from xlt_ray.embed import index
from xlt_ray.embed.unit import decode
from xlt_ray.store.schema import INDEX, Utterance, utterance_table


def rows(path):
    return [
        Utterance(utterance_id=f"a{i}", sentence_id="s", language="en", audio=str(path), start=i / 2, duration=0.5)
        for i in range(3)
    ]


def test_a_segment_is_part_of_what_a_row_is():
    first = rows("x")[0]
    others = [first, *(dataclasses.replace(first, **change) for change in ({"start": 0.1}, {"duration": 0.6}))]
    assert len({index.sha256(utterance_table([row])) for row in others}) == 3


def test_each_row_gets_its_segment(tmp_path):
    pcm = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", pcm, 16_000, subtype="FLOAT")
    table = index.collect(rows(tmp_path / "a.wav"), ["en"])
    new = {
        "bytes": pa.array([1] * 3, pa.int64()),
        "unit": pa.array(["u"] * 3),
        "generation": pa.array([0] * 3, pa.int32()),
    }
    columns = [
        table[name] if name in table.column_names else new.get(name, pa.nulls(3, INDEX.field(name).type))
        for name in INDEX.names
    ]
    table = pa.table(columns, schema=INDEX)
    decoded = decode(table, split_long=False)
    assert decoded["reason"].to_pylist() == [None] * 3
    for i, sound in enumerate(decoded["pcm"].to_pylist()):
        assert np.array_equal(np.frombuffer(sound, np.float32), pcm[8000 * i : 8000 * (i + 1)])
