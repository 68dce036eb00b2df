"""Reads embedding shards: the only way by which frames reach training and translation.

A shard holds one recording a row group, so a recording is read without the others of its file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xlt_ray.errors import UserError
from xlt_ray.store import artifacts, storage
from xlt_ray.store.artifacts import Artifact
from xlt_ray.store.schema import REJECTED, UTTERANCE, Direction

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
"""One row a recording and a direction: what should be written (null where nobody knows), and where the frames are."""

_COLUMNS = ["utterance_id", "sentence_id", "language", "audio", "text", "translations", "split", "num_frames"]


def find(root: str, name: str, languages: Iterable[str]) -> Artifact:
    """The finished embed artifact of that name.

    Raises:
        UserError: if it is not there, or lacks one of the languages.
    """
    embeddings = artifacts.find(root, "embed", name)
    there = embeddings.identity["languages"]
    if missing := sorted(set(languages) - set(there)):
        raise UserError(f"embed artifact {name!r} has no {', '.join(missing)}; --languages can be {','.join(there)}")
    return embeddings


def of_language(embeddings: Artifact, language: str) -> list[tuple[str, int]]:
    """The shards of one language in order, each with the number of its utterances."""
    files = embeddings.read_json("manifest.json")["files"]
    named = [(file["path"].removeprefix("data/").rsplit("-", 1)[0], file) for file in files]
    return [(embeddings.path(file["path"]), file["rows"]) for code, file in named if code == language]


def require_model(artifact: Artifact, sha256: str, name: str) -> None:
    """Refuse frames that another encoder made, and weights that were tuned from another model.

    Args:
        artifact: of the stage embed, fisher or finetune.
        sha256: hash of the weights that the job names.
        name: what the user calls them.

    Raises:
        UserError: naming both models.
    """
    if artifact.identity["model"]["sha256"] != sha256:
        raise UserError(
            f"{artifact.stage} artifact {artifact.name!r} was made with another model than --model {name!r}; give "
            f"that model ({artifact.settings['model']!r}), or another {artifact.stage} artifact"
        )


def warn_of_loops(embeddings: Artifact) -> None:
    """Say so where the embeddings keep too little silence for a decoder.

    Whisper base transcribing 260 recordings fell into endless repetition in 10 of them with 100 frames behind the
    speech, and in none with 150; with trimmed encoding it needs about 300.
    """
    made_with = embeddings.identity["embed"]
    is_trimmed = made_with["encoding"] == "trimmed"
    kept = math.inf if made_with["keep_margin"] == "all" else made_with["keep_margin"]
    kept, needed = (min(kept, made_with["context_margin"]), 300) if is_trimmed else (kept, 150)
    if kept < needed:
        flags = "--embed.keep-margin and --embed.context-margin" if is_trimmed else "--embed.keep-margin"
        print(
            f"warning: the embeddings {embeddings.name!r} keep {kept} frames of silence behind the speech; with fewer "
            f"than {needed} the decoder repeats itself now and then; encode again with {flags} {needed} or more"
        )


def utterances(embeddings: Artifact) -> pa.Table:
    """What was said in every recording, and by whom, without frames: rows of UTTERANCE."""
    return pa.concat_tables(artifacts.read_table(uri, columns=UTTERANCE.names) for uri in embeddings.files())


def require_references(rows: pa.Table, directions: Iterable[Direction], split: str | None) -> None:
    """Refuse directions that nothing is known of, before anybody waits for work.

    Args:
        rows: with the columns of UTTERANCE, from shards or from the index of a corpus that is still to be encoded.
        directions: what is asked for.
        split: rows of this split only; None: all.

    Raises:
        UserError: if a direction has no recording, or no text in its target language for any.
    """
    columns = rows.select(["language", "split", "text", "translations"]).to_pylist()
    for direction in directions:
        spoken = [row for row in columns if row["language"] == direction.source]
        chosen = [row for row in spoken if split in (None, row["split"])]
        if not chosen:
            splits = ", ".join(sorted({str(row["split"]) for row in spoken})) or "no split"
            raise UserError(
                f"direction {direction}: no {direction.source} recording is of split {split!r}, but of {splits}; "
                "choose another split, where None takes all"
            )
        if not any(_reference(row, direction.target) for row in chosen):
            raise UserError(
                f"direction {direction}: no {direction.source} recording has a {direction.target} text; give the "
                "corpus translations, or choose another direction"
            )


def tasks(embeddings: Artifact, directions: Iterable[Direction], split: str | None) -> pa.Table:
    """Every recording of a split in every direction from its language, with the schema TASK.

    Args:
        embeddings: a finished embed artifact.
        directions: what to write for which source.
        split: rows of this split only; None: all.
    """
    rows = [
        {**recording, "direction": str(direction), "reference": _reference(recording, direction.target)}
        for direction in directions
        for recording in _recordings(embeddings, direction.source, split)
    ]
    return pa.Table.from_pylist(rows, schema=TASK)


def without_reference(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of TASK that have a reference, and the others as REJECTED."""
    known = pc.is_valid(rows["reference"])
    bad = rows.filter(pc.invert(known))
    reasons = [f"no reference: {direction}" for direction in bad["direction"].to_pylist()]
    rejected = bad.append_column("reason", pa.array(reasons, pa.string())).select(REJECTED.names).cast(REJECTED)
    return rows.filter(known), rejected


def read_frames(places: Sequence[tuple[str, int]]) -> list[npt.NDArray[np.float16]]:
    """The frames of recordings, each file opened once.

    Args:
        places: (shard, row in it) of each recording.

    Returns:
        fp16 (num_frames, dim) of each, in the order of `places`.
    """
    frames: dict[tuple[str, int], npt.NDArray[np.float16]] = {}
    for uri in dict.fromkeys(uri for uri, _ in places):
        filesystem, path = storage.locate(uri)
        with pq.ParquetFile(path, filesystem=filesystem) as file:
            for row in {row for of, row in places if of == uri}:
                frames[uri, row] = _read_row(file, row)
    return [frames[place] for place in places]


def _read_row(file: pq.ParquetFile, row: int) -> npt.NDArray[np.float16]:
    # One recording a row group; a shard of an earlier version has all of them in one.
    group, place = (row, 0) if file.num_row_groups > 1 else (0, row)
    table = file.read_row_group(group, columns=["frames", "dim"])
    data, dim = table["frames"][place], table["dim"][place].as_py()
    return np.frombuffer(data.as_buffer(), np.float16).reshape(-1, dim)


def _recordings(embeddings: Artifact, language: str, split: str | None) -> list[dict[str, Any]]:
    found = []
    for uri, _ in of_language(embeddings, language):
        shard = artifacts.read_table(uri, columns=_COLUMNS).to_pylist()
        found += [{**of, "shard": uri, "row": i} for i, of in enumerate(shard) if split in (None, of["split"])]
    return found


def _reference(recording: dict[str, Any], language: str) -> str | None:
    """What the recording says in a language; None where nobody knows, also where only blanks are given."""
    known = {**dict(recording["translations"]), recording["language"]: recording["text"]}
    text: str | None = known.get(language)
    return text if text and text.strip() else None
