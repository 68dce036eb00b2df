"""Tiles of the score matrix of two languages: how it is cut, and the actor that fills a tile.

One GEMM scores both directions, so a tile belongs to an unordered pair of languages, and a tile's file holds the recall
and the precision of every utterance of one with every utterance of the other.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from xlt_ray.retrieval import baselines, seqsim
from xlt_ray.retrieval.config import RetrievalConfig
from xlt_ray.store import artifacts, shards
from xlt_ray.store.artifacts import Artifact
from xlt_ray.store.schema import TILE, layer_column


@dataclasses.dataclass(frozen=True, slots=True)
class Strip:
    """Consecutive shards of one language, and how many utterances they hold."""

    files: tuple[str, ...]
    num_utterances: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """A unit of scoring: one strip of either language."""

    pair: tuple[str, str]
    place: tuple[int, int]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    num_pairs: int

    @property
    def name(self) -> str:
        """Name of the tile's file: languages, row, column."""
        return "{}-{}-{:05d}-{:05d}".format(*self.pair, *self.place)


def cut(embeddings: Artifact, pairs: Sequence[tuple[str, str]], strip_utterances: int) -> list[Tile]:
    """The tiles of every pair of languages, row by row."""
    languages = {language for pair in pairs for language in pair}
    strips = {language: strips_of(shards.of_language(embeddings, language), strip_utterances) for language in languages}
    return [
        Tile(pair, (i, j), x.files, y.files, x.num_utterances * y.num_utterances)
        for pair in pairs
        for (i, x), (j, y) in itertools.product(*(enumerate(strips[language]) for language in pair))
    ]


def strips_of(files: Sequence[tuple[str, int]], strip_utterances: int) -> list[Strip]:
    """Group shards to strips of at most `strip_utterances` utterances; a larger shard is a strip of its own."""
    strips: list[Strip] = []
    for file, count in files:
        last = strips[-1] if strips else None
        if last and last.num_utterances + count <= strip_utterances:
            strips[-1] = Strip((*last.files, file), last.num_utterances + count)
        else:
            strips.append(Strip((file,), count))
    return [strip for strip in strips if strip.num_utterances]


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
            scores = [_tile_row(*score) for score in self._scores(tuple(tile["rows"]), tuple(tile["columns"]))]
            table = pa.Table.from_pylist(scores, schema=TILE)
            # One row group a score, because they are read one at a time.
            options = {"compression": "none", "row_group_size": 1}
            self._artifact.write_table(f"tiles/{tile['name']}.parquet", table, **options)
        return tiles.select(["name", "num_pairs"])

    def _scores(self, rows: tuple[str, ...], columns: tuple[str, ...]) -> Iterator[tuple[str, torch.Tensor]]:
        for layer in (None, *self._config.layers):
            x, y = self._strip(rows, layer), self._strip(columns, layer)
            recall, precision = seqsim.seqsim(x, y)
            yield of_layer("recall", layer), recall
            yield of_layer("precision", layer), precision
            if layer is None:
                for name in self._config.baselines:
                    if name != "random":  # drawn when ranking: it needs no frames
                        yield name, getattr(baselines, name)(x, y)

    def _read_strip(self, files: tuple[str, ...], layer: int | None) -> seqsim.Frames:
        column = layer_column(layer)
        tables = [artifacts.read_table(uri, columns=["num_valid", "dim", column]) for uri in files]
        return valid_frames(pa.concat_tables(tables), column, self._device)


def of_layer(score: str, layer: int | None) -> str:
    """Name of a score taken from a hidden layer; None is the encoder's output."""
    return score if layer is None else f"{score}@{layer}"


def valid_frames(shard: pa.Table, column: str, device: str = "cpu") -> seqsim.Frames:
    """The frames that hold speech, of every row of a shard; the silence kept behind them is left out."""
    parts = []
    for data, num_valid, dim in zip(shard[column], shard["num_valid"], shard["dim"], strict=True):
        frames = np.frombuffer(data.as_buffer(), np.float16, count=num_valid.as_py() * dim.as_py())
        parts.append(torch.from_numpy(frames.reshape(-1, dim.as_py()).copy()))
    return seqsim.Frames.of([part.to(device) for part in parts])


def _tile_row(name: str, values: torch.Tensor) -> dict[str, object]:
    num_rows, num_columns = values.shape
    data = values.float().cpu().numpy().tobytes()
    return {"score": name, "num_rows": num_rows, "num_columns": num_columns, "values": data}
