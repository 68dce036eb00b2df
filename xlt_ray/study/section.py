"""The section of a `study` artifact in the report: transfer matrix, ranking of sources, and predictors of the gain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from xlt_ray.charts.scatter import Dot, scatter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = Mapping[str, Any]

PREDICTORS = {"r1": "R@1 of retrieval", "fisher_distance": "Fisher distance"}
_AXES = {
    "r1": "R@1 of retrieval between the two languages, %",
    "fisher_distance": "Fisher distance: 0 is the same task, 1 a disjoint one",
}
_SCALES = {"r1": 100.0}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The effect of training on one language, tested on another or on the same.

    Attributes:
        figures: `bleu`, `gain` over the untouched model, their 95% intervals, `p_value` and `num`.
    """

    trained: str
    tested: str
    figures: Figures

    @property
    def is_own(self) -> bool:
        """Whether the language tested on is the one trained on."""
        return self.trained == self.tested

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the gain excludes 0."""
        low, high = self.figures["gain_ci95"]
        return bool(low > 0 or high < 0)

    @property
    def half_width(self) -> float:
        """Half the width of the interval of the gain, BLEU."""
        low, high = self.figures["gain_ci95"]
        return float(high - low) / 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One study.

    Attributes:
        figures: metrics.json.
        cells: the transfer matrix, row by row, by training and test language; a cell may be missing.
    """

    figures: Figures
    cells: Mapping[tuple[str, str], Cell]

    @property
    def others(self) -> list[Cell]:
        """Cells whose test language is not the training language."""
        return [cell for cell in self.cells.values() if not cell.is_own]

    @property
    def largest(self) -> float:
        """The largest gain; 0 if there is none."""
        return max([0.0, *(float(cell.figures["gain"]) for cell in self.cells.values())])

    def shade(self, cell: Cell) -> float:
        """The gain as a fraction of the largest, 0 to 1."""
        return max(0.0, cell.figures["gain"]) / self.largest if self.largest > 0 else 0.0

    @property
    def ranked(self) -> list[Figures]:
        """Rows of the ranking that have a mean, best first."""
        rows = [row for row in self.figures["ranking"] if row["mean_gain"] is not None]
        return sorted(rows, key=lambda row: row["mean_gain"], reverse=True)

    @property
    def rivals(self) -> list[str]:
        """Sources that may gain as much as the best one: the paired interval of the difference is not entirely above 0.

        For an older study without this interval, sources whose own interval overlaps that of the best.
        """
        return [row["source"] for row in self.ranked[1:] if self._is_rival(row)]

    def _is_rival(self, row: Figures) -> bool:
        if behind := row.get("behind_ci95"):
            return bool(behind[0] <= 0)
        return bool(row["mean_gain_ci95"][1] >= self.ranked[0]["mean_gain_ci95"][0])

    def mean_before(self, source: str) -> float | None:
        """Mean BLEU of the untouched model, over the same languages as the mean gain of `source`."""
        tested = [cell.tested for cell in self.others if cell.trained == source]
        scores = [self.figures["before"][language]["bleu"] for language in tested if language in self.figures["before"]]
        return fmean(scores) if scores else None

    @property
    def ends(self) -> tuple[float, float]:
        """The axis that the gains of all sources share, with 0 on it: (lowest, highest), BLEU."""
        ends = [end for row in self.ranked for end in row["mean_gain_ci95"]]
        own = [row["own_gain"] for row in self.ranked if row["own_gain"] is not None]
        low, high = min([0.0, *ends, *own]), max([0.0, *ends, *own])
        return low, high if high > low else low + 1.0

    def along(self, value: float) -> float:
        """The position of a value on that axis, which is 200 units long."""
        low, high = self.ends
        return 200 * (value - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        """Round values on that axis."""
        from matplotlib.ticker import MaxNLocator

        low, high = self.ends
        return [tick for tick in MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]


def read_study(figures: Figures) -> Study:
    """The study whose metrics.json this is."""
    return Study(figures=figures, cells={(cell.trained, cell.tested): cell for cell in _cells(figures)})


def _cells(figures: Figures) -> Iterator[Cell]:
    for trained, row in figures["transfer"].items():
        for tested, scores in row.items():
            if scores is not None:
                yield Cell(trained=trained, tested=tested, figures=scores)


def predictor_scatter(study: Study, predictor: str) -> Figure | None:
    """Gain (y) of the cells of other languages against the predictor (x); None if no cell has a value."""
    values = study.figures["predictors"][predictor]
    known = [(cell, values.get(cell.trained, {}).get(cell.tested)) for cell in study.others]
    dots = [_dot(cell, value, predictor) for cell, value in known if value is not None]
    return scatter(dots, _AXES.get(predictor, predictor), "gain, BLEU") if dots else None


def _dot(cell: Cell, value: float, predictor: str) -> Dot:
    x = _SCALES.get(predictor, 1.0) * value
    title, label = _title(cell, x, predictor), f"{cell.trained}→{cell.tested}"
    return Dot(x=x, y=cell.figures["gain"], interval=cell.figures["gain_ci95"], title=title, label=label)


def _title(cell: Cell, value: float, predictor: str) -> str:
    low, high = cell.figures["gain_ci95"]
    gain = f"gain {cell.figures['gain']:+.2f} BLEU, 95% interval {low:+.2f} to {high:+.2f}"
    return f"trained on {cell.trained}, tested on {cell.tested}: {predictor_name(predictor)} {value:.3g}; {gain}"


def predictor_name(predictor: str) -> str:
    """The display name of a predictor."""
    return PREDICTORS.get(predictor, predictor)
