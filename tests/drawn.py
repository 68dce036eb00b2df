"""An SVG of the page as a reader reads it: marks by the numbers on the axes, and what texts cover."""

from __future__ import annotations

import functools
import itertools
import re
from xml.etree import ElementTree

import numpy as np
from matplotlib import font_manager
from PIL import ImageFont

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class Drawn:
    """One `<svg>`."""

    def __init__(self, source: str) -> None:
        self.root = ElementTree.fromstring(source)

    def groups(self, kind: str) -> list[ElementTree.Element]:
        """What has this class."""
        return [group for group in self.root.iter("g") if group.get("class") == kind]

    @property
    def titles(self) -> list[str]:
        return [title.text or "" for title in self.root.iter("title")]

    def places(self, kind: str) -> dict[str, list[Point]]:
        """Centres of the markers of a class, by the title of their group."""
        return {title_of(group): markers(group) for group in self.groups(kind)}

    def lines(self, kind: str) -> list[list[Point]]:
        """Corners of the lines of a class."""
        found = [path for group in self.groups(kind) for path in group.iter("path")]
        return [corners(path) for path in found if "transform" not in path.attrib]

    @functools.cached_property
    def ticks(self) -> tuple[list[Point], list[Point]]:
        """(place, number) of each tick of x and of y: a line of the grid and the text that follows it."""
        across, up = [], []
        for line, text in itertools.pairwise(self.root):
            if (line.tag, text.tag) == ("path", "text") and re.fullmatch(r"−?[\d.]+", text.text or ""):
                (x0, y0), (x1, _) = corners(line)
                value = float((text.text or "").replace("−", "-"))
                (across if x0 == x1 else up).append((x0 if x0 == x1 else y0, value))
        return across, up

    def read(self, place: Point) -> Point:
        """The values of a place by the first and the last tick of each axis."""
        values = []
        for at, ticks in zip(place, self.ticks, strict=True):
            (start, low), (end, high) = ticks[0], ticks[-1]
            values.append(low + (at - start) / (end - start) * (high - low))
        return values[0], values[1]

    @property
    def labels(self) -> dict[str, Box]:
        """(left, top, right, bottom) of the texts beside marks."""
        return {text.text or "": extent(text) for group in self.groups("label") for text in group.iter("text")}


def title_of(group: ElementTree.Element) -> str:
    return group.findtext("title") or ""


def markers(group: ElementTree.Element) -> list[Point]:
    moved = [path.attrib["transform"] for path in group.iter("path") if "transform" in path.attrib]
    return [pair(text.removeprefix("translate(").removesuffix(")")) for text in moved]


def corners(path: ElementTree.Element) -> list[Point]:
    return [pair(place) for place in re.findall(r"[ML]([^A-Za-z]+)", path.attrib["d"])]


def pair(text: str) -> Point:
    x, y = map(float, text.split())
    return x, y


def extent(text: ElementTree.Element) -> Box:
    """By the widths of Pillow, in the font that matplotlib reckons with."""
    size = float(re.findall(r"font-size: ([\d.]+)px", text.attrib["style"])[0])
    (anchor,) = re.findall(r"text-anchor: (\w+)", text.attrib["style"])
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 100)
    width = font.getlength(text.text or "") * size / 100
    left = float(text.attrib["x"]) - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * width
    baseline = float(text.attrib["y"])
    return left, baseline - 0.76 * size, left + width, baseline


def overlap(one: Box, other: Box, slack: float = 0.3) -> bool:
    (a, b, c, d), (e, f, g, h) = one, other
    return a + slack < g and e + slack < c and b + slack < h and f + slack < d


def crosses(line: list[Point], box: Box) -> bool:
    """Whether a line goes through a box, by many places on it."""
    left, top, right, bottom = box
    for start, end in itertools.pairwise(line):
        x, y = (np.linspace(a, b, 800) for a, b in zip(start, end, strict=True))
        if ((left + 1 < x) & (x < right - 1) & (top + 1 < y) & (y < bottom - 1)).any():
            return True
    return False
