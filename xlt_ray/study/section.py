"""One `study` artifact as the page shows it: the transfer matrix, the ranking of sources, and what predicts a gain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from xlt_ray.charts.plane import Axis, axes, place_labels
from xlt_ray.charts.scatter import SCATTER, Dot, Scatter

Figures = Mapping[str, Any]

PREDICTORS = {"r1": "R@1 of retrieval", "fisher_distance": "Fisher distance"}
_AXES = {
    "r1": "R@1 of retrieval between the two languages, %",
    "fisher_distance": "Fisher distance: 0 is the same task, 1 a disjoint one",
}
_SCALES = {"r1": 100.0}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The effect of training on one language, tested on another or on itself.

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
        """Whether the interval of the gain leaves 0 out."""
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
        cells: the transfer matrix, row by row, by language trained on and tested on; a cell may be missing.
    """

    figures: Figures
    cells: Mapping[tuple[str, str], Cell]

    @property
    def others(self) -> list[Cell]:
        """Cells tested on a language that was not trained on."""
        return [cell for cell in self.cells.values() if not cell.is_own]

    @property
    def largest(self) -> float:
        """The largest gain; 0 where nothing was gained."""
        return max([0.0, *(float(cell.figures["gain"]) for cell in self.cells.values())])

    def shade(self, cell: Cell) -> float:
        """The gain as a share of the largest, 0 to 1."""
        return max(0.0, cell.figures["gain"]) / self.largest if self.largest > 0 else 0.0

    @property
    def ranked(self) -> list[Figures]:
        """Rows of the ranking that have a mean, best first."""
        rows = [row for row in self.figures["ranking"] if row["mean_gain"] is not None]
        return sorted(rows, key=lambda row: row["mean_gain"], reverse=True)

    @property
    def rivals(self) -> list[str]:
        """Sources that may gain as much as the best one: the paired interval of the difference is not all above 0.

        Where an older study kept no such interval, those whose own interval meets that of the best.
        """
        return [row["source"] for row in self.ranked[1:] if self._is_rival(row)]

    def _is_rival(self, row: Figures) -> bool:
        if behind := row.get("behind_ci95"):
            return bool(behind[0] <= 0)
        return bool(row["mean_gain_ci95"][1] >= self.ranked[0]["mean_gain_ci95"][0])

    def mean_before(self, source: str) -> float | None:
        """Mean BLEU of the untouched model over the languages that the mean gain of `source` is over."""
        tested = [cell.tested for cell in self.others if cell.trained == source]
        scores = [self.figures["before"][language]["bleu"] for language in tested if language in self.figures["before"]]
        return fmean(scores) if scores else None

    def strip(self, width: float) -> Axis:
        """The axis that the gains of all sources share, with 0 on it."""
        ends = [end for row in self.ranked for end in row["mean_gain_ci95"]]
        own = [row["own_gain"] for row in self.ranked if row["own_gain"] is not None]
        low, high = min([0.0, *ends, *own]), max([0.0, *ends, *own])
        return Axis(low, high if high > low else low + 1.0, 0, width)


def read_study(figures: Figures) -> Study:
    """The study whose metrics.json this is."""
    return Study(figures=figures, cells={(cell.trained, cell.tested): cell for cell in _cells(figures)})


def _cells(figures: Figures) -> Iterator[Cell]:
    for trained, row in figures["transfer"].items():
        for tested, scores in row.items():
            if scores is not None:
                yield Cell(trained=trained, tested=tested, figures=scores)


def scatter(study: Study, predictor: str) -> Scatter | None:
    """Lay out the cells of other languages for which the predictor has a value; None where there is none."""
    values = study.figures["predictors"][predictor]
    known = [(cell, values.get(cell.trained, {}).get(cell.tested)) for cell in study.others]
    scale = _SCALES.get(predictor, 1.0)
    points = [(cell, scale * value) for cell, value in known if value is not None]
    if not points:
        return None
    ends = [end for cell, _ in points for end in cell.figures["gain_ci95"]]
    x, y = axes(SCATTER, [value for _, value in points], [*ends, 0.0])
    placed = [(x.place(value), y.place(cell.figures["gain"])) for cell, value in points]
    bars = [
        [(at[0], y.place(end)) for end in cell.figures["gain_ci95"]]
        for (cell, _), at in zip(points, placed, strict=True)
    ]
    labels = place_labels(placed, [f"{cell.trained}→{cell.tested}" for cell, _ in points], (), bars, SCATTER)
    dots = [
        Dot(x=at[0], y=at[1], low=bar[0][1], high=bar[1][1], title=_title(cell, value, predictor), label=label)
        for (cell, value), at, bar, label in zip(points, placed, bars, labels, strict=True)
    ]
    return Scatter(frame=SCATTER, x=x, y=y, dots=dots, across=_AXES.get(predictor, predictor))


def _title(cell: Cell, value: float, predictor: str) -> str:
    low, high = cell.figures["gain_ci95"]
    gain = f"gain {cell.figures['gain']:+.2f} BLEU, 95% interval {low:+.2f} to {high:+.2f}"
    return f"trained on {cell.trained}, tested on {cell.tested}: {predictor_name(predictor)} {value:.3g}; {gain}"


def predictor_name(predictor: str) -> str:
    """The display name of a predictor."""
    return PREDICTORS.get(predictor, predictor)
