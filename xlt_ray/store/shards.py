"""Reads and packs the frames of embedding shards. Training and translation get their frames only from here.

A shard has one recording per row group, so a recording is read without the others in its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xlt_ray.errors import UserError
from xlt_ray.languages import Direction
from xlt_ray.store import storage
from xlt_ray.store.patience import patient
from xlt_ray.store.reading import reading
from xlt_ray.store.schema import REJECTED

TASK = pa.schema(
    [
        pa.field("direction", pa.string(), nullable=False),
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("sentence_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("audio", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("reference", pa.string()),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
    ]
)
"""One row per recording and direction: the reference (null if unknown), and the location of the frames."""


_ROWS_READ = 16  # at a time: where only the speech is kept, the silence behind it is in memory for so many recordings


def require_references(rows: pa.Table, directions: Iterable[Direction], split: str) -> None:
    """Refuse directions without a recording or a reference, before any work.

    Args:
        rows: all rows of the split, with the columns of UTTERANCE.
        directions: the requested directions.
        split: name of the split, for the message.

    Raises:
        UserError: if a direction has no recording, or none with a text in its target language.
    """
    by_language: dict[str, pa.Table] = {}
    for direction in directions:
        source = direction.source
        if source not in by_language:
            by_language[source] = rows.filter(pc.equal(rows["language"], source))
        spoken = by_language[source]
        if not spoken.num_rows:
            raise UserError(f"direction {direction}: no {source} recording is of split {split!r}; choose another split")
        if not any(_references(spoken, direction.target)):
            target = direction.target
            is_read = pc.any(pc.equal(rows["language"], target)).as_py()
            hint = "" if is_read else f"add {target} to --languages if the corpus has recordings of it, "
            raise UserError(
                f"direction {direction}: no {source} recording of split {split!r} has a {target} text; {hint}give the "
                "corpus translations, or choose another direction"
            )


def with_references(rows: pa.Table, directions: Iterable[Direction]) -> list[Direction]:
    """The directions in which at least one of the rows (UTTERANCE) has a text in the target language."""
    found = []
    for direction in directions:
        spoken = rows.filter(pc.equal(rows["language"], direction.source))
        if any(_references(spoken, direction.target)):
            found.append(direction)
    return found


def tasks(uri: str, recordings: pa.Table, directions: Iterable[Direction]) -> pa.Table:
    """Every recording in every direction from its language, with the schema TASK.

    Args:
        uri: URI of the embed artifact.
        recordings: its encoded rows of INDEX.
        directions: source and target languages.
    """
    parts = [TASK.empty_table()]
    for direction in directions:
        spoken = recordings.filter(pc.equal(recordings["language"], direction.source))
        shards = pc.binary_join_element_wise(f"{uri}/data/", spoken["unit"], ".parquet", "")
        new = {
            "direction": pa.array([str(direction)] * spoken.num_rows, pa.string()),
            "reference": pa.array(_references(spoken, direction.target), pa.string()),
            "shard": shards,
        }
        columns = [new[field.name] if field.name in new else spoken[field.name] for field in TASK]
        parts.append(pa.table(columns, schema=TASK))
    return pa.concat_tables(parts)


def without_reference(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of TASK that have a reference, and the others as REJECTED."""
    known = pc.is_valid(rows["reference"])
    bad = rows.filter(pc.invert(known))
    reasons = [f"no reference: {direction}" for direction in bad["direction"].to_pylist()]
    rejected = bad.append_column("reason", pa.array(reasons, pa.string())).select(REJECTED.names).cast(REJECTED)
    return rows.filter(known), rejected


@patient
def read_frames(
    places: Sequence[tuple[str, int]], column: str = "frames", num_kept: Sequence[int] | None = None
) -> list[npt.NDArray[np.float16]]:
    """The frames of recordings, each file opened once.

    Args:
        places: (shard, row in it) of each recording.
        column: column of the encoder's output, or of a hidden layer (`schema.layer_column`).
        num_kept: number of frames of each recording to keep in memory, from the first on; none: all.

    Returns:
        fp16 (num_frames, dim) of each, in the order of `places`.

    Raises:
        Damaged: if a file is missing, or the pages that are read are damaged.
    """
    kept = dict(zip(places, num_kept, strict=True)) if num_kept is not None else {}
    frames: dict[tuple[str, int], npt.NDArray[np.float16]] = {}
    for uri in dict.fromkeys(uri for uri, _ in places):
        filesystem, path = storage.locate(uri)
        rows = sorted({row for shard, row in places if shard == uri})
        with reading(uri), pq.ParquetFile(path, filesystem=filesystem, page_checksum_verification=True) as file:
            for first in range(0, len(rows), _ROWS_READ):
                some = rows[first : first + _ROWS_READ]
                table = file.read_row_groups(some, columns=[column, "dim"])  # one recording a row group
                for row, data, dim in zip(some, table[column], table["dim"].to_pylist(), strict=True):
                    found = np.frombuffer(data.as_buffer(), np.float16).reshape(-1, dim)
                    frames[uri, row] = found[: kept[uri, row]].copy() if kept else found
    return [frames[place] for place in places]


def _references(recordings: pa.Table, language: str) -> list[str | None]:
    """The text of each recording in a language; None if unknown or blank."""
    found = []
    for batch in recordings.select(["language", "text", "translations"]).to_batches(max_chunksize=10_000):
        for own, text, translations in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
            known = (
                text if own == language else {entry["language"]: entry["text"] for entry in translations}.get(language)
            )
            found.append(known if known and known.strip() else None)
    return found


def as_bytes(recordings: Sequence[npt.NDArray[np.float16]]) -> pa.LargeBinaryArray:
    """The frames of each recording in the form of a shard, with one copy.

    The copy is made without the interpreter lock, because another thread may be feeding a GPU.
    """
    data = np.concatenate([np.empty(0, np.float16), *(frames.reshape(-1) for frames in recordings)])
    ends = np.cumsum([0, *(frames.nbytes for frames in recordings)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(recordings), buffers)
