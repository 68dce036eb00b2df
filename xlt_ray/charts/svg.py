"""A figure of matplotlib as a part of the page: text in the page's font, colours of its theme, tooltips, no ids."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

from xlt_ray.charts.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_HREF = "{http://www.w3.org/1999/xlink}href"
_NOTHING = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def tag(artist: Artist, kind: str, title: str = "") -> None:
    """Give what an artist draws the class `kind` and a tooltip."""
    artist.set_gid(f"{kind}:{title}")


def to_svg(figure: Figure, kind: str, label: str = "") -> Markup:
    """The figure as an element of the page.

    Args:
        figure: in the colours of `LIGHT`; its text is not clipped.
        kind: class of the element.
        label: what a screen reader says; a figure without one is hidden from it.
    """
    drawn = ElementTree.fromstring(_in_xml(_write(figure)))
    markers = {of.get("id", ""): of for of in drawn.iter() if of.get("id") and _name(of) == "path"}
    said = {"role": "img", "aria-label": _in_xml(label)} if label else {"aria-hidden": "true"}
    element = ElementTree.Element("svg", {"class": kind, "viewBox": drawn.attrib["viewBox"]} | said)
    element.extend(part for child in drawn for part in _plain(child, markers))
    return Markup(ElementTree.tostring(element, encoding="unicode"))


@contextlib.contextmanager
def any_script() -> Iterator[None]:
    """Let text be in a script that matplotlib's font lacks: the page has other fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _in_xml(text: str) -> str:
    """The text without the characters that XML has no place for."""
    return re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _write(figure: Figure) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "path.simplify": False}), any_script():
        figure.savefig(buffer, format="svg", metadata=_NOTHING)
    return buffer.getvalue()


def _plain(element: ElementTree.Element, markers: Mapping[str, ElementTree.Element]) -> Iterator[ElementTree.Element]:
    """The element without groups that have no tag, and without definitions and clipping, which would need ids."""
    name = _name(element)
    if name in ("defs", "metadata"):
        return
    children = [part for child in element for part in _plain(child, markers)]
    kind, is_tagged, title = element.get("id", "").partition(":")
    if name == "g" and not is_tagged:
        yield from children
        return
    plain = ElementTree.Element("path" if name == "use" else name, _attributes(element, markers))
    plain.text = element.text if name == "text" else None
    if is_tagged:
        plain.set("class", kind)
    if title:
        ElementTree.SubElement(plain, "title").text = title
    plain.extend(children)
    yield plain


def _attributes(element: ElementTree.Element, markers: Mapping[str, ElementTree.Element]) -> dict[str, str]:
    """Those that draw; the reference to a marker becomes its path."""
    found = {name: _short(element.attrib[name]) for name in ("d", "x", "y", "transform") if name in element.attrib}
    if _HREF in element.attrib:
        path = _short(markers[element.attrib[_HREF][1:]].attrib["d"])
        found = {"d": path, "transform": f"translate({found['x']} {found['y']})"}
    if found.get("transform", "").startswith("rotate(0"):
        del found["transform"]
    declared = element.get("style", "").replace(": ", ":").split("; ")
    style = ";".join(part for part in declared if not part.startswith(("font-family", "stroke-linejoin:round")))
    return found | ({"style": re.sub(r"#\w{6}", _variable, style)} if style else {})


def _variable(colour: re.Match[str]) -> str:
    return _VARIABLES[colour[0]]


def _short(numbers: str) -> str:
    """The numbers of a path or a place with one digit behind the point."""
    joined = re.sub(r"\s*([A-Za-z])\s*", r"\1", numbers)
    return re.sub(r"-?\d+\.?\d*", lambda number: f"{round(float(number[0]), 1) + 0.0:g}", joined)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
