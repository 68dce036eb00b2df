"""Embed artifacts for tests: written down by hand, or encoded by a model, both without Ray."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pyarrow as pa

from xlt_ray.embed import pipeline
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.embed.unit import EncodeUnit, decode_unit
from xlt_ray.store import artifacts
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import (
    INDEX,
    REJECTED,
    Utterance,
    embedding_schema,
    layer_column,
    to_ipc,
    utterance_table,
)

Frames = dict[int | None, np.ndarray]
"""fp16 (num_frames, dim) by hidden layer; None is the encoder's output."""


def utterance(name: str, sentence: str, language: str, split: str) -> Utterance:
    """A row with a text, and its translations into zh and en."""
    translations = {"zh": "你好", "en": "hello"}
    named = {"utterance_id": name, "sentence_id": sentence, "language": language, "split": split}
    return Utterance(**named, audio="a.wav", text="hello", translations=translations)


def write(
    root: object,
    name: str,
    rows: Sequence[Utterance],
    frames_of: Callable[[Utterance], Frames] = lambda _: {None: np.zeros((1, 1), np.float16)},
    *,
    sha256: str = "abc",
    model: str = "other",
    config: EmbedConfig | None = None,
    num_silent: int = 0,
    rows_per_unit: int = 32,
    rejected: Collection[str] = (),
) -> Artifact:
    """A finished artifact of these rows, language by language, of frames that are given.

    Args:
        num_silent: how many of the frames stand behind the speech.
        rejected: ids of the rows that the encoder could not read.
    """
    bad = [row for row in rows if row.utterance_id in rejected]
    rows = [row for row in rows if row.utterance_id not in rejected]
    config = config or EmbedConfig()
    what = {
        "corpus": {"kind": "manifest", "source": "/x"},
        "model": {"sha256": sha256},
        "encoding": config.encoding_identity,
        "layers": sorted(config.layers),
    }
    settings = {"corpus": "manifest:x", "model": model, "num_layers": 2, "embed": {"rows_per_shard": rows_per_unit}}
    artifact = artifacts.plan(str(root), "embed", name, what, settings)
    artifact.begin()
    units = {}
    for code in dict.fromkeys(row.language for row in rows):
        spoken = [row for row in rows if row.language == code]
        for first in range(0, len(spoken), rows_per_unit):
            units[f"{code}-rows-{first // rows_per_unit:05d}"] = spoken[first : first + rows_per_unit]
    index = [INDEX.empty_table()]
    for unit, members in units.items():
        shard = _shard(members, [frames_of(row) for row in members], num_silent, config.layers)
        artifact.write_table(f"data/{unit}.parquet", shard, row_group_size=1)
        index.append(_index(unit, shard))
    index.append(_without_frames(bad))
    artifact.write_table("index.parquet", pa.concat_tables(index))
    reasons = [{name: getattr(row, name, "silent") for name in REJECTED.names} for row in bad]
    artifact.merge_rejected([pa.Table.from_pylist(reasons, schema=REJECTED)])
    sizes = {unit: len(members) for unit, members in units.items()}
    artifact.commit(units=sizes, num_rows_in=len(rows) + len(bad), inputs={}, seconds=0, others=["index.parquet"])
    return artifact


def _shard(rows: Sequence[Utterance], frames: Sequence[Frames], num_silent: int, layers: Sequence[int]) -> pa.Table:
    final = [found[None] for found in frames]
    counts = [
        [320 * (len(found) - num_silent) for found in final],
        [len(found) - num_silent for found in final],
        [len(found) for found in final],
        [found.shape[1] for found in final],
    ]
    data = [[found[layer].tobytes() for found in frames] for layer in (None, *layers)]
    assert [layer_column(layer) for layer in (None, *layers)] == embedding_schema(layers).names[-1 - len(layers) :]
    columns = [
        *(pa.array(count, pa.int32()) for count in counts),
        *(pa.array(part, pa.large_binary()) for part in data),
    ]
    return pa.table([*utterance_table(rows).columns, *columns], schema=embedding_schema(layers))


def _index(unit: str, shard: pa.Table) -> pa.Table:
    num = shard.num_rows
    new = {
        "unit": [unit] * num,
        "row": list(range(num)),
        "bytes": [100] * num,
        "modified": ["1"] * num,
        "generation": [0] * num,
    }
    columns = [
        pa.array(new[field.name], field.type) if field.name in new else shard[field.name].cast(field.type)
        for field in INDEX
    ]
    return pa.table(columns, schema=INDEX)


def _without_frames(rows: Sequence[Utterance]) -> pa.Table:
    known = utterance_table(rows)
    nothing = {field.name: pa.nulls(len(rows), field.type) for field in INDEX}
    new = nothing | {"unit": pa.array([""] * len(rows)), "generation": pa.array([0] * len(rows), pa.int32())}
    columns = [known[name] if name in known.column_names else new[name] for name in INDEX.names]
    return pa.table(columns, schema=INDEX)


class Killed(Exception):  # noqa: N818 - as the state is called
    """Stands for the end of a run that is killed."""


def encode(embeddings: Embeddings, *, most_units: int | None = None) -> Artifact:
    """As `pipeline.embed`, unit by unit in this process.

    Raises:
        Killed: after so many units, if there are more.
    """
    embeddings = pipeline.begun(embeddings)
    artifact, work = embeddings.artifact, embeddings.work
    if work is None:
        return artifact
    cut = pipeline._cut(artifact, work)
    encoder = EncodeUnit(artifact, work.model, work.config, "cpu")
    done = artifact.done()
    for number, (unit, rows) in enumerate((unit, rows) for unit, rows in cut.units.items() if unit not in done):
        if number == most_units:
            raise Killed
        decoded = decode_unit({"unit": unit, "table": to_ipc(rows)}, work.corpus, work.config.split_long)
        counts = encoder(pa.table({"unit": [unit], "table": pa.array([decoded["table"]], pa.large_binary())}))
        assert sum(count["num_rows"][0].as_py() for count in counts) == rows.num_rows
    pipeline._commit(artifact, work, cut, 0.0)
    return artifact
