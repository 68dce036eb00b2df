"""Whole score matrices, if they are kept (`--retrieval.keep-scores`): written part by part, read back whole.

`scores/recordings.parquet` lists the recordings of each language in their order, which is that of rows and columns.
`scores/{row language}-{column language}-{rows}-{columns}-{layer}.parquet` holds a part, with the schema TILE: `recall`,
`precision` and the baselines as fp32. The languages are in alphabetical order; the random baseline is not kept.

    matrix = matrices.read("runs/retrieval/demo", "fr-en", "seqsim-f1")         # French asks: (num_fr, num_en)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from xlt_ray.retrieval import scores
from xlt_ray.store import reading, storage
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import TILE

Matrix = npt.NDArray[np.float32]


def write_recordings(artifact: Artifact, recordings: Mapping[str, pa.Table]) -> None:
    """Write which recordings are the rows and columns of the matrices."""
    parts = [table.select(["language", "utterance_id"]) for _, table in sorted(recordings.items())]
    artifact.write_table("scores/recordings.parquet", pa.concat_tables(parts))


def write(
    artifact: Artifact,
    pair: tuple[str, str],
    rows: range,
    columns: range,
    layer: int | None,
    measured: Mapping[str, torch.Tensor],
) -> None:
    """Write a part of the matrices of two languages, from `scores.measured`."""
    parts = [
        {
            "score": name,
            "num_rows": len(rows),
            "num_columns": len(columns),
            "values": values.float().cpu().numpy().tobytes(),
        }
        for name, values in measured.items()
    ]
    places = f"{rows.start:07d}-{rows.stop:07d}-{columns.start:07d}-{columns.stop:07d}"
    # One row group a score, because they are read one at a time.
    artifact.write_table(
        f"scores/{'-'.join(pair)}-{places}-{_layer(layer)}.parquet",
        pa.Table.from_pylist(parts, schema=TILE),
        compression="none",
        row_group_size=1,
    )


def read(uri: str, direction: str, score: str) -> Matrix:
    """A whole matrix (num_queries, num_candidates).

    Args:
        uri: of a retrieval artifact that was made with --retrieval.keep-scores.
        direction: language of the queries, language of the candidates: `en-fr`.
        score: `seqsim-MODE`, `layer-K-MODE`, `mean_pool`, `max_pool` or `dtw`.

    Raises:
        FileNotFoundError: if the matrix does not exist.
    """
    languages = direction.split("-", 1)
    is_flipped = languages != sorted(languages)
    name = scores.flipped(score) if is_flipped else score
    kind, _, _ = name.rpartition("-")
    layer = int(kind.removeprefix("layer-")) if kind.startswith("layer-") else None
    parts = ("recall", "precision") if kind else (name,)
    measured = {part: torch.from_numpy(_whole(uri, sorted(languages), layer, part)) for part in parts}
    matrix: Matrix = dict(scores.named(measured, layer))[name].numpy() if kind else measured[name].numpy()
    return matrix.T if is_flipped else matrix


def files(artifact: Artifact) -> list[str]:
    """The files of the matrices, by their path inside the artifact, without half-written files of killed writers."""
    return [f"scores/{name}.parquet" for name in sorted(artifact.done("scores"))]


def _whole(uri: str, languages: list[str], layer: int | None, name: str) -> Matrix:
    prefix, suffix = f"{'-'.join(languages)}-", f"-{_layer(layer)}.parquet"
    there = storage.list_files(f"{uri}/scores")
    parts = [file for file in there if Path(file).name.startswith(prefix) and file.endswith(suffix)]
    if not parts:
        raise FileNotFoundError(f"no scores of {'-'.join(languages)} under {uri}; add --retrieval.keep-scores")
    places = [tuple(map(int, Path(file).name.removeprefix(prefix).split("-")[:4])) for file in parts]
    matrix = np.full((max(place[1] for place in places), max(place[3] for place in places)), np.nan, np.float32)
    for file, (top, bottom, left, right) in zip(parts, places, strict=True):
        rows = reading.table_of(file, filters=[("score", "=", name)]).to_pylist()
        if not rows:
            raise FileNotFoundError(f"no scores by {name} under {uri}; the run did not compute them, or keeps none")
        (row,) = rows
        matrix[top:bottom, left:right] = np.frombuffer(row["values"], np.float32).reshape(bottom - top, right - left)
    return matrix


def _layer(layer: int | None) -> str:
    return "final" if layer is None else f"layer{layer}"
