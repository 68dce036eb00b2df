"""A scatter of scores with intervals, laid out here and drawn by a template."""

from __future__ import annotations

import dataclasses

from xlt_ray.charts.plane import Axis, Frame, Label

SCATTER = Frame(width=460, height=320, left=46, right=452, top=10, bottom=272)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A mark of a scatter; `low` and `high` are the ends of its interval."""

    x: float
    y: float
    low: float
    high: float
    title: str
    label: Label | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """BLEU (y) against something else (x), in SVG units; `across` names the x axis."""

    frame: Frame
    x: Axis
    y: Axis
    dots: list[Dot]
    across: str
