"""A matplotlib figure as SVG in the page: text in the page's font, colours of its theme, tooltips, no ids."""

from __future__ import annotations

import io
import re
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


def tag(artist: Artist, kind: str, title: str = "") -> None:
    """Give the element that an artist draws the class `kind` and a tooltip."""
    artist.set_gid(f"{kind}:{title}")


def to_svg(figure: Figure, kind: str, label: str = "") -> Markup:
    """The figure as an element of the page.

    Args:
        figure: in the colours of `LIGHT`, with nothing outside its axes that clipping would hide.
        kind: class of the element.
        label: text for a screen reader, which does not see a figure without a label.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "path.simplify": False}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawn = ElementTree.fromstring(_in_xml(buffer.getvalue()))
    paths = {path.get("id", ""): path.get("d", "") for path in drawn.iter() if path.tag.endswith("}path")}
    said = {"role": "img", "aria-label": _in_xml(label)} if label else {"aria-hidden": "true"}
    element = ElementTree.Element("svg", {"class": kind, "viewBox": drawn.attrib["viewBox"]} | said)
    element.extend(part for child in drawn for part in _plain(child, paths))
    return Markup(ElementTree.tostring(element, encoding="unicode"))


def _in_xml(text: str) -> str:
    """The text without the characters that XML does not allow."""
    return re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _plain(element: ElementTree.Element, paths: Mapping[str, str]) -> Iterator[ElementTree.Element]:
    """The element without untagged groups, and without definitions and clipping, which need ids."""
    name = element.tag.rpartition("}")[2]
    if name in ("defs", "metadata"):
        return
    children = [part for child in element for part in _plain(child, paths)]
    kind, is_tagged, title = element.get("id", "").partition(":")
    if name == "g" and not is_tagged:
        yield from children
        return
    plain = ElementTree.Element("path" if name == "use" else name, _attributes(element.attrib, paths))
    if is_tagged:
        plain.set("class", kind)
    if title:
        ElementTree.SubElement(plain, "title").text = title
    plain.text = element.text if name == "text" else None
    plain.extend(children)
    yield plain


def _attributes(given: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, str]:
    """The attributes that affect drawing, rounded to one decimal; a reference to a marker becomes its path."""
    found = {name: given[name] for name in ("d", "x", "y", "transform") if name in given}
    if found.get("transform", "").startswith("rotate(-0"):
        del found["transform"]
    if _HREF in given:
        found = {"d": paths[given[_HREF][1:]], "transform": f"translate({given['x']} {given['y']})"}
    short = {
        name: re.sub(r"-?\d+\.\d+", lambda match: f"{round(float(match[0]), 1) + 0.0:g}", found[name]) for name in found
    }
    short |= {"d": re.sub(r"\s*([A-Za-z])\s*", r"\1", short["d"]).strip()} if "d" in short else {}
    parts = [part for part in given.get("style", "").split("; ") if not part.startswith("font-family")]
    style = re.sub(r"#\w{6}", lambda colour: _VARIABLES.get(colour[0], colour[0]), "; ".join(parts))
    return short | ({"style": style} if style else {})
