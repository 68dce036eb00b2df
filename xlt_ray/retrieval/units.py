"""Divides the score matrix of two languages into units of work, and reads the frames of a strip.

A unit is a block of K x K strips. It keeps the strips of its rows in memory and reads those of its columns one after
another, so it reads 2K strips to score K x K tiles. K is about the square root of the number of strips, and so is the
number of times that a shard is read.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch

from xlt_ray.retrieval.seqsim import Frames
from xlt_ray.store import reading, shards
from xlt_ray.store.schema import layer_column

HELD_BYTES = 2_000_000_000
"""Maximum bytes of frames that a unit keeps for its rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """A block of the score matrix of two languages.

    Attributes:
        pair: language of the rows, and language of the columns.
        rows: first and last (exclusive) recording of the first language, counted from 0.
        columns: the same for the second language.
    """

    pair: tuple[str, str]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def name(self) -> str:
        """Name of the unit's file: languages, rows, columns."""
        return "{}-{}-{:07d}-{:07d}-{:07d}-{:07d}".format(*self.pair, *self.rows, *self.columns)

    @property
    def num_pairs(self) -> int:
        """The number of pairs of recordings that it scores."""
        return len(range(*self.rows)) * len(range(*self.columns))

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Unit:
        """From a row of a table that `dataclasses.asdict` made."""
        return cls(*(tuple(row[field.name]) for field in dataclasses.fields(cls)))


class Extent(NamedTuple):
    """The size of a language.

    Attributes:
        num: number of recordings.
        block: maximum number of recordings on a side of a unit.
        bytes_each: mean bytes of a recording's frames in one layer in memory.
    """

    num: int
    block: int
    bytes_each: float


def extent(num: int, strip: int, bytes_each: float) -> Extent:
    """The extent with blocks of √n strips, where n is the number of strips, or fewer if memory requires it.

    Args:
        num: number of recordings.
        strip: recordings per strip.
        bytes_each: mean bytes of a recording's frames.
    """
    num_strips = math.ceil(num / strip)
    fit = int(HELD_BYTES / (strip * bytes_each))
    most = max(1, min(math.ceil(math.sqrt(num_strips)), fit))
    num_blocks = math.ceil(num_strips / most)
    return Extent(num, strip * math.ceil(num_strips / num_blocks), bytes_each)


def cut(pair: tuple[str, str], sizes: tuple[int, int], blocks: tuple[int, int]) -> list[Unit]:
    """The units of two languages, row by row.

    Args:
        pair: two languages.
        sizes: number of recordings of each.
        blocks: maximum number of recordings of each in a unit.
    """
    rows, columns = (ranges(0, size, block) for size, block in zip(sizes, blocks, strict=True))
    return [Unit(pair, (x.start, x.stop), (y.start, y.stop)) for x, y in itertools.product(rows, columns)]


def ranges(start: int, stop: int, size: int) -> list[range]:
    """Consecutive parts of at most `size`."""
    return [range(first, min(first + size, stop)) for first in range(start, stop, size)]


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """The frames of several utterances as stored in a shard, without the silence after the speech.

    Attributes:
        data: (sum of lengths, dim) fp16.
        lengths: frames of each utterance.
    """

    data: torch.Tensor
    lengths: tuple[int, ...]

    def to(self, device: str) -> Stored:
        """The same on another device."""
        return Stored(self.data.to(device), self.lengths)

    @property
    def frames(self) -> Frames:
        """In fp32, of length 1."""
        return Frames.joined(self.data, self.lengths)


def read_strip(uri: str, recordings: pa.Table, layer: int | None) -> Stored:
    """The frames of speech of the given recordings.

    Args:
        uri: of the embed artifact.
        recordings: rows of INDEX.
        layer: a hidden layer; None is the encoder's output.
    """
    units, rows, num_valid = (recordings[name].to_pylist() for name in ("unit", "row", "num_valid"))
    places = [(f"{uri}/data/{unit}.parquet", row) for unit, row in zip(units, rows, strict=True)]
    parts = shards.read_frames(places, layer_column(layer), num_valid)
    return Stored(torch.cat([torch.from_numpy(part) for part in parts]), tuple(num_valid))


def bytes_each(uri: str, recordings: pa.Table) -> float:
    """Mean bytes of a recording's frames in one layer in memory; the dimension comes from the first shard."""
    dim = reading.table_of(f"{uri}/data/{recordings['unit'][0]}.parquet", columns=["dim"])["dim"][0].as_py()
    return float(2 * dim * pc.sum(recordings["num_valid"]).as_py() / recordings.num_rows)
