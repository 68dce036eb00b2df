"""Finds the nearest neighbours of each recording by exact scores, in one block of the score matrix. No Ray.

Only candidate pairs are scored, and all pairs of a sample of recordings. The true nearest neighbours of the sample show
how many of them are among the candidates. No score matrix is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

from xlt_ray.mine.config import MineConfig
from xlt_ray.retrieval import top
from xlt_ray.retrieval.bitext import Sides
from xlt_ray.retrieval.candidates import ALL, CANDIDATES, Candidates, Nearest, scored, tiles
from xlt_ray.retrieval.relevance import Indices, Mask
from xlt_ray.retrieval.units import Unit

Sampled = tuple[Indices, Indices]
"""Positions of recordings of both languages, ascending."""


class UnitScorer:
    """Scores one unit, tile by tile."""

    def __init__(
        self,
        sides: Sides,
        unit: Unit,
        candidates: Candidates | None,
        sampled: Sampled,
        config: MineConfig,
        device: str = "cpu",
    ) -> None:
        """Set up the scorer. Nothing is read yet.

        Args:
            sides: the two languages of the unit.
            unit: the unit to score.
            candidates: of the two languages; None: every pair is a candidate.
            sampled: recordings that are scored with all others.
            config: number of neighbours, mode, and number of recordings to read at a time.
            device: the device to compute on.
        """
        self._sides, self._unit, self._config, self._device = sides, unit, config, device
        self._candidates, self._sampled = candidates, sampled
        ends = unit.rows, unit.columns
        self._nearest = [Nearest(np.arange(*part), config.neighbours, device) for part in ends]
        here = [places[slice(*np.searchsorted(places, part))] for places, part in zip(sampled, ends, strict=True)]
        self._exact = [Nearest(places, config.neighbours, device) for places in here]

    def run(self) -> Iterator[tuple[int, int]]:
        """Score. Yields, after each tile, its number of pairs, and how many of them were scored."""
        for rows, columns, x, y in tiles(self._sides, self._unit, self._config.strip_utterances, self._device):
            candidates = self._wanted(rows, columns)
            everything = candidates | _sampled(self._sampled, rows, columns)
            matrix = scored(x, y, everything, self._config.mode)
            _add(self._nearest, rows, columns, matrix, candidates)
            _add(self._exact, rows, columns, matrix, everything)
            yield everything.size, int(everything.sum())

    def table(self) -> pa.Table:
        """The nearest neighbours, with the schema NEAREST."""
        names = self._sides.directions
        parts = [found.table(name, CANDIDATES) for found, name in zip(self._nearest, names, strict=True)]
        return pa.concat_tables(
            [*parts, *(found.table(name, ALL) for found, name in zip(self._exact, names, strict=True))]
        )

    def _wanted(self, rows: range, columns: range) -> Mask:
        if self._candidates is None:
            return np.ones((len(rows), len(columns)), dtype=bool)
        return self._candidates.wanted(rows, columns)


def _sampled(sampled: Sampled, rows: range, columns: range) -> Mask:
    """Which pairs of a tile have a sampled recording."""
    return np.logical_or.outer(np.isin(rows, sampled[0]), np.isin(columns, sampled[1]))


def _add(found: list[Nearest], rows: range, columns: range, matrix: torch.Tensor, counts: Mask) -> None:
    absent = torch.from_numpy(~counts).to(matrix.device)
    there, back = found
    there.add(rows, top.keys(matrix, columns).masked_fill(absent, top.NONE))
    back.add(columns, top.keys(matrix.T.contiguous(), rows).masked_fill(absent.T, top.NONE))
