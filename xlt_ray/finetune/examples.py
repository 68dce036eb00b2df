"""Collects the examples of training: recordings with their prompt and target tokens (rows of EXAMPLE)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.errors import UserError
from xlt_ray.finetune.batch import Batch, Indices, collate
from xlt_ray.languages import Direction
from xlt_ray.models.prompts import MAX_POSITIONS, Prompter, Scheme
from xlt_ray.store import shards
from xlt_ray.store.schema import EXAMPLE, REJECTED

_AT_A_TIME = 8192
"""Rows to convert to Python objects at a time: 289,000 rows took 560 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Examples:
    """Examples, and the rows that cannot be examples.

    Attributes:
        table: with the schema EXAMPLE.
        rejected: with the schema REJECTED.
    """

    table: pa.Table
    rejected: pa.Table

    @property
    def num_in(self) -> int:
        """Number of requested rows."""
        return int(self.table.num_rows + self.rejected.num_rows)


def collect(
    embeddings: Embeddings,
    prompter: Prompter,
    scheme: Scheme,
    role: str,
    directions: Iterable[str],
    split: str,
) -> Examples:
    """Every recording of a split in every direction.

    Raises:
        UserError: if a direction has no token or no example, for example because all its recordings were rejected.
    """
    parsed = [Direction.parse(text) for text in directions]
    prompts = {str(direction): prompter.prompt(direction, scheme) for direction in parsed}
    known, rejected = shards.without_reference(
        shards.tasks(embeddings.artifact.uri, embeddings.recordings(split), parsed)
    )
    none = Examples(EXAMPLE.empty_table(), rejected)
    found = joined([none, *(_tokenised(rows, prompter, role, prompts) for rows in known.to_batches(_AT_A_TIME))])
    _require_each(found, list(prompts), split, embeddings.artifact.path("rejected.parquet"))
    return found


def _require_each(found: Examples, directions: Sequence[str], split: str, rejected_uri: str) -> None:
    left = set(found.table["direction"].unique().to_pylist())
    if without := [direction for direction in directions if direction not in left]:
        reasons = found.rejected["reason"].to_pylist()
        num_long = sum(reason.startswith(f"too long: {without[0]} ") for reason in reasons)
        long = f"{num_long} texts are longer than the decoder holds, and " if num_long else ""
        raise UserError(
            f"no example of {without[0]} is left in split {split!r}: {long}{rejected_uri} says which recordings were "
            "rejected and why; fix them, or leave out the direction"
        )


def _tokenised(rows: pa.RecordBatch, prompter: Prompter, role: str, prompts: Mapping[str, Sequence[int]]) -> Examples:
    """Rows of TASK with their tokens, or the reason for rejection if there are too many tokens."""
    found, too_long = [], []
    for row in rows.to_pylist():
        direction = Direction.parse(row["direction"])
        target = prompter.target(row["reference"], direction.target)
        prompt = prompts[row["direction"]]
        if len(prompt) + len(target) - 1 > MAX_POSITIONS:
            reason = f"too long: {direction} has {len(target)} target tokens, more than the decoder holds"
            too_long.append({**row, "reason": reason})
        else:
            found.append({**row, "role": role, "prompt": prompt, "target": target})
    bad = [{name: row[name] for name in REJECTED.names} for row in too_long]
    return Examples(pa.Table.from_pylist(found, schema=EXAMPLE), pa.Table.from_pylist(bad, schema=REJECTED))


def joined(parts: Sequence[Examples]) -> Examples:
    """All examples, in order."""
    tables, rejected = zip(*((part.table, part.rejected) for part in parts), strict=True)
    return Examples(pa.concat_tables(tables), pa.concat_tables(rejected))


def sample(examples: Examples, most: int, seed: int) -> Examples:
    """At most this many examples of each direction, drawn with the seed, in the original order."""
    directions = np.array(examples.table["direction"].to_pylist())
    rng = np.random.default_rng(seed)
    drawn = [
        rng.permutation(np.flatnonzero(directions == direction))[:most]
        for direction in sorted(set(directions.tolist()))
    ]
    return dataclasses.replace(examples, table=examples.table.take(np.sort(np.concatenate(drawn))))


def places(table: pa.Table) -> list[tuple[str, int]]:
    """The location of the frames of each example: (shard, row in it)."""
    return list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))


def to_batch(
    table: pa.Table, rows: Indices | Sequence[int], frames: Sequence[npt.NDArray[np.float16]], device: object = "cpu"
) -> Batch:
    """The batch of some rows of EXAMPLE, with their frames."""
    chosen = table.take(pa.array(rows, pa.int64()))
    return collate(chosen["prompt"].to_pylist(), chosen["target"].to_pylist(), frames, str(device))
