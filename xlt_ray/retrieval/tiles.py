"""Tiles of the score matrix of two languages: how it is cut, and the actor that fills a tile.

One GEMM scores both directions, so a tile belongs to an unordered pair of languages, and a tile's file holds the recall
and the precision of every utterance of one with every utterance of the other.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from xlt_ray.retrieval import baselines, seqsim
from xlt_ray.retrieval.config import RetrievalConfig
from xlt_ray.store import shards
from xlt_ray.store.artifacts import Artifact
from xlt_ray.store.schema import TILE, layer_column


@dataclasses.dataclass(frozen=True, slots=True)
class Strip:
    """Consecutive recordings of one language.

    Attributes:
        shards: the file of each.
        rows: its row in that file.
        num_valid: its frames that hold speech.
    """

    shards: tuple[str, ...]
    rows: tuple[int, ...]
    num_valid: tuple[int, ...]

    def plain(self) -> list[dict[str, str | int]]:
        """As rows of a table."""
        names = ("shard", "row", "num_valid")
        return [dict(zip(names, entry, strict=True)) for entry in zip(*dataclasses.astuple(self), strict=True)]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Strip:
        """From the rows that `plain` made."""
        return cls(*(tuple(row[name] for row in rows) for name in ("shard", "row", "num_valid")))


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """A unit of scoring: one strip of either language."""

    pair: tuple[str, str]
    place: tuple[int, int]
    rows: Strip
    columns: Strip

    @property
    def name(self) -> str:
        """Name of the tile's file: languages, row, column."""
        return "{}-{}-{:05d}-{:05d}".format(*self.pair, *self.place)

    def plain(self) -> dict[str, Any]:
        """As a row of a table."""
        strips = {"rows": self.rows.plain(), "columns": self.columns.plain()}
        return {"name": self.name, "num_pairs": self.num_pairs, **strips}

    @property
    def num_pairs(self) -> int:
        """How many pairs of recordings it scores."""
        return len(self.rows.rows) * len(self.columns.rows)


def cut(
    uri: str, recordings: Mapping[str, pa.Table], pairs: Sequence[tuple[str, str]], strip_utterances: int
) -> list[Tile]:
    """The tiles of every pair of languages, row by row.

    Args:
        uri: of the embed artifact.
        recordings: rows of INDEX by language.
        pairs: of languages.
        strip_utterances: most recordings on each side of a tile.
    """
    languages = {language for pair in pairs for language in pair}
    strips = {language: strips_of(uri, recordings[language], strip_utterances) for language in languages}
    return [
        Tile(pair, (i, j), x, y)
        for pair in pairs
        for (i, x), (j, y) in itertools.product(*(enumerate(strips[language]) for language in pair))
    ]


def strips_of(uri: str, recordings: pa.Table, strip_utterances: int) -> list[Strip]:
    """Recordings in their order, cut to strips of at most `strip_utterances`."""
    shards = [f"{uri}/data/{unit}.parquet" for unit in recordings["unit"].to_pylist()]
    rows, num_valid = recordings["row"].to_pylist(), recordings["num_valid"].to_pylist()
    starts = range(0, recordings.num_rows, strip_utterances)
    return [
        Strip(*(tuple(values[start : start + strip_utterances]) for values in (shards, rows, num_valid)))
        for start in starts
    ]


class ScoreTile:
    """An actor that scores a tile by every score that needs frames, and writes it as one file."""

    def __init__(self, artifact: Artifact, config: RetrievalConfig) -> None:
        torch.set_num_threads(1)  # one thread an actor, as in the embed stage
        self._artifact, self._config = artifact, config
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # Tiles come row by row: the strip of the row stays, in all its layers, the strips of the columns pass by.
        self._strip = functools.lru_cache(maxsize=2 * (1 + len(config.layers)))(self._read_strip)

    def __call__(self, tiles: pa.Table) -> pa.Table:
        """Score the tiles of a block (one, as the driver cuts them)."""
        for tile in tiles.to_pylist():
            scores = [_tile_row(*score) for score in self._scores(Strip.of(tile["rows"]), Strip.of(tile["columns"]))]
            table = pa.Table.from_pylist(scores, schema=TILE)
            # One row group a score, because they are read one at a time.
            options = {"compression": "none", "row_group_size": 1}
            self._artifact.write_table(f"tiles/{tile['name']}.parquet", table, **options)
        return tiles.select(["name", "num_pairs"])

    def _scores(self, rows: Strip, columns: Strip) -> Iterator[tuple[str, torch.Tensor]]:
        for layer in (None, *self._config.layers):
            x, y = self._strip(rows, layer), self._strip(columns, layer)
            recall, precision = seqsim.seqsim(x, y)
            yield of_layer("recall", layer), recall
            yield of_layer("precision", layer), precision
            if layer is None:
                for name in self._config.baselines:
                    if name != "random":  # drawn when ranking: it needs no frames
                        yield name, getattr(baselines, name)(x, y)

    def _read_strip(self, strip: Strip, layer: int | None) -> seqsim.Frames:
        return read_strip(strip, layer, self._device)


def read_strip(strip: Strip, layer: int | None, device: str = "cpu") -> seqsim.Frames:
    """The frames that hold speech, of every recording of a strip; the silence kept behind them is left out."""
    places = list(zip(strip.shards, strip.rows, strict=True))
    frames = shards.read_frames(places, layer_column(layer))
    parts = [torch.from_numpy(part[:num].copy()) for part, num in zip(frames, strip.num_valid, strict=True)]
    return seqsim.Frames.of([part.to(device) for part in parts])


def of_layer(score: str, layer: int | None) -> str:
    """Name of a score taken from a hidden layer; None is the encoder's output."""
    return score if layer is None else f"{score}@{layer}"


def _tile_row(name: str, values: torch.Tensor) -> dict[str, object]:
    num_rows, num_columns = values.shape
    data = values.float().cpu().numpy().tobytes()
    return {"score": name, "num_rows": num_rows, "num_columns": num_columns, "values": data}
