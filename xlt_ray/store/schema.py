"""Arrow schemas of every table that xlt_ray writes, and the row type of a corpus.

An incompatible change increases the version of its table in VERSIONS. The versions of a stage's tables are part of the
identity of its artifacts, so a new column in one table does not invalidate the artifacts of other stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

VERSIONS = {
    "embedding": 3,
    "index": 2,
    "ranking": 2,
    "pair": 1,
    "example": 1,
    "trial": 2,
    "cell": 1,
    "hypothesis": 1,
}
"""Version of each table."""

_TABLES = {
    "embed": ("embedding", "index"),
    "retrieval": ("ranking",),
    "mine": ("pair",),
    "fisher": ("example",),
    "finetune": ("example",),
    "translate": ("hypothesis",),
    "tune": ("trial",),
    "study": ("cell",),
}


def versions_of(stage: str) -> dict[str, int]:
    """Versions of the tables that a stage writes."""
    return {table: VERSIONS[table] for table in _TABLES.get(stage, ())}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A recording of a sentence: one row of a corpus, without audio.

    Attributes:
        utterance_id: unique in the corpus.
        sentence_id: shared by recordings and translations of the same sentence; these are parallel.
        language: Whisper's code if it has one, otherwise another (`zh`, `kea`); see `xlt_ray.languages`.
        audio: absolute path or URI of the file that holds the recording.
        member: "" if `audio` is a sound file; the row number if it is a Parquet or Arrow file, followed by the column
            if that is not `audio` (`17:speech`); the member's name if it is a tar archive.
        start: start of the utterance in the recording, in seconds; None: its beginning.
        duration: length in seconds; None: to the end of the recording.
        text: transcript, if there is one.
        translations: the sentence in other languages, by language code.
        speaker: speaker id, if known.
        split: `train`, `dev`, `test` or another name, if the corpus has splits.
    """

    utterance_id: str
    sentence_id: str
    language: str
    audio: str
    member: str = ""
    start: float | None = None
    duration: float | None = None
    text: str | None = None
    translations: dict[str, str] = dataclasses.field(default_factory=dict)
    speaker: str | None = None
    split: str | None = None


UTTERANCE = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("sentence_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("audio", pa.string(), nullable=False),
        pa.field("member", pa.string(), nullable=False),
        pa.field("start", pa.float64()),
        pa.field("duration", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("translations", pa.list_(pa.struct({"language": pa.string(), "text": pa.string()})), nullable=False),
        pa.field("speaker", pa.string()),
        pa.field("split", pa.string()),
    ]
)
"""One row per recording: the index of a corpus, without audio. No table has a column of Arrow's type map, because the
`datasets` library can't read it."""

INDEX = pa.schema(
    [
        *UTTERANCE,
        pa.field("unit", pa.string(), nullable=False),
        pa.field("row", pa.int32()),
        pa.field("num_samples", pa.int32()),
        pa.field("num_valid", pa.int32()),
        pa.field("num_frames", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("modified", pa.string()),
        pa.field("generation", pa.int32(), nullable=False),
    ]
)
"""One row per recording of an embed artifact: the corpus row, the shard (`unit`) and row with its frames (null for a
rejected recording), its lengths, the size and date of its file when it was read, and how often it was encoded again
(`generation`)."""

REJECTED = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("audio", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Rejected rows, with reasons."""


def utterance_table(utterances: Iterable[Utterance]) -> pa.Table:
    """The rows as an Arrow table with the schema UTTERANCE."""
    rows = [dataclasses.asdict(row) | {"translations": as_list(row.translations)} for row in utterances]
    return pa.Table.from_pylist(rows, schema=UTTERANCE)


def as_list(translations: Mapping[str, str]) -> list[dict[str, str]]:
    """Texts by language, in the form of the column `translations`."""
    return [{"language": language, "text": text} for language, text in translations.items()]


def as_values(numbers: Mapping[str, float]) -> list[dict[str, Any]]:
    """Numbers by name, in the form of a table column."""
    return [{"name": name, "value": value} for name, value in numbers.items()]


def by_name(values: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The inverse of `as_values`."""
    return {entry["name"]: entry["value"] for entry in values}


def embedding_schema(layers: Iterable[int] = ()) -> pa.Schema:
    """One row per recording, with its frames: a shard of the embed stage.

    `frames` is the encoder's output as fp16, row-major (num_frames, dim), in one binary value: 10 to 100 times faster
    to write and read than a nested list, and readable without Ray. The first `num_valid` frames are speech, the rest is
    silence after it. `frames_layer_k` has the same frames before block k, for each k of `layers`.
    """
    counts = [pa.field(name, pa.int32(), nullable=False) for name in ("num_samples", "num_valid", "num_frames", "dim")]
    columns = ["frames", *(layer_column(layer) for layer in layers)]
    frames = [pa.field(name, pa.large_binary(), nullable=False) for name in columns]
    return pa.schema([*UTTERANCE, *counts, *frames])


def layer_column(layer: int | None) -> str:
    """Name of the column with a layer's frames; None is the encoder's output."""
    return "frames" if layer is None else f"frames_layer_{layer}"


BEST = pa.schema(
    [
        pa.field("direction", pa.string(), nullable=False),
        pa.field("query", pa.int32(), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
"""One row per query of either direction of two languages: the best score of a hit, for each protocol and score. An
intermediate file."""

COUNTED = pa.schema(
    [
        pa.field("direction", pa.string(), nullable=False),
        pa.field("query", pa.int32(), nullable=False),
        pa.field("counts", pa.list_(pa.int32()), nullable=False),
        pa.field("top", pa.list_(pa.int64()), nullable=False),
    ]
)
"""One row per query of either direction of a block of the score matrix: how many wrong candidates reach the best hit,
for each protocol and score, and keys of the best candidates, for each protocol and mode. An intermediate file."""


def ranking_schema(protocols: Iterable[str], modes: Iterable[str], scores: Iterable[str]) -> pa.Schema:
    """One row per query: the rank of its translation, by every protocol, in every mode.

    A protocol is null if another recording was drawn as query for the sentence. `ranks` has the ranks of the best hit,
    by score; `hit_scores` its scores, by mode; `top` the best candidates, by mode. A candidate is a row of the other
    direction's table (`fr-en` for `en-fr`), which has its ids and its text.
    """
    found = {"candidate": pa.int32(), "score": pa.float32(), "correct": pa.bool_()}
    of_mode, each = list(modes), pa.list_(pa.struct(list(found.items())))
    result = {
        "num_positives": pa.int32(),
        "num_candidates": pa.int32(),
        "ranks": pa.struct([(score, pa.int32()) for score in scores]),
        "hit_scores": pa.struct([(mode, pa.float32()) for mode in of_mode]),
        "top": pa.struct([(mode, each) for mode in of_mode]),
    }
    names = [pa.field(name, pa.string(), nullable=False) for name in ("pair", "utterance_id", "sentence_id")]
    results = [pa.field(protocol, pa.struct(list(result.items()))) for protocol in protocols]
    return pa.schema([*names, pa.field("text", pa.string()), *results])


NEAREST = pa.schema(
    [
        pa.field("direction", pa.string(), nullable=False),
        pa.field("among", pa.string(), nullable=False),
        pa.field("query", pa.int32(), nullable=False),
        pa.field("top", pa.list_(pa.int64()), nullable=False),
    ]
)
"""One row per query of either direction of a block of the score matrix: keys of the nearest recordings of the other
language, among its candidates or among all. An intermediate file."""

PAIR = pa.schema(
    [
        pa.field("first", pa.string(), nullable=False),
        pa.field("second", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("ratio", pa.float64()),
        pa.field("distance", pa.float64(), nullable=False),
        pa.field("found_by", pa.string(), nullable=False),
    ]
)
"""One row per pair of recordings (utterance_id) of which one is among the nearest neighbours of the other: exact score,
the score divided by (`ratio`) and minus (`distance`) the mean score of their neighbours, and which of them found the
other: forward (the first), backward or both. `ratio` is null if that mean is not above 0."""

TILE = pa.schema(
    [
        pa.field("score", pa.string(), nullable=False),
        pa.field("num_rows", pa.int32(), nullable=False),
        pa.field("num_columns", pa.int32(), nullable=False),
        pa.field("values", pa.large_binary(), nullable=False),
    ]
)
"""One row per score: a part of its matrix as fp32, row-major (num_rows, num_columns)."""

EXAMPLE = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("direction", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("prompt", pa.list_(pa.int32()), nullable=False),
        pa.field("target", pa.list_(pa.int32()), nullable=False),
    ]
)
"""One row per training example: a recording and the text that the decoder learns. `role` is learn, keep or dev."""

_NUMBERS = pa.list_(pa.struct({"name": pa.string(), "value": pa.float64()}))

TRIAL = pa.schema(
    [
        pa.field("trial", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("settings", _NUMBERS, nullable=False),
        pa.field("num_steps", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("new_bleu", pa.float64(), nullable=False),
        pa.field("old_bleu", pa.float64(), nullable=False),
        pa.field("bleu", _NUMBERS, nullable=False),
        pa.field(
            "curve",
            pa.list_(
                pa.struct(
                    [
                        pa.field("step", pa.int32()),
                        pa.field("new_bleu", pa.float64()),
                        pa.field("old_bleu", pa.float64()),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""One row per trial of a search: settings, and dev BLEU of its best weights. `new_bleu` is the mean over the learned
directions, `old_bleu` over those to preserve, `bleu` by direction; `status` is finished, or stopped at a rung."""

CELL = pa.schema(
    [
        pa.field("trained", pa.string(), nullable=False),
        pa.field("heard", pa.string(), nullable=False),
        pa.field("bleu", pa.float64(), nullable=False),
        pa.field("gain", pa.float64(), nullable=False),
        pa.field("p_value", pa.float64(), nullable=False),
        pa.field("num", pa.int32(), nullable=False),
        pa.field("r1", pa.float64()),
        pa.field("fisher_distance", pa.float64()),
    ]
)
"""One row per language trained on (`trained`) and tested on (`heard`): BLEU into the target of a study, gain over the
untouched model, and predictors of it (null on the diagonal)."""

HYPOTHESIS = pa.schema(
    [
        pa.field("direction", pa.string(), nullable=False),
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("sentence_id", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("hypothesis", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
    ]
)
"""One row per translation: transcript of the source (`text`, if known), reference and hypothesis."""

DETECTED = b"detected"
"""Key of the metadata of HYPOTHESIS: how often each language was detected in each direction, as JSON."""


def to_ipc(table: pa.Table) -> bytes:
    """A table as one value, so that a row of Ray Data is a whole unit, which no operator can split or join."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_ipc(data: bytes | pa.Buffer) -> pa.Table:
    """The table that `to_ipc` wrote, without a copy."""
    return pa.ipc.open_stream(data).read_all()
