"""A page taken apart, so that a test can ask what it says."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a test wants of a page: rows of its tables and other texts, links, and whether the tags close."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.articles: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [
            (tag, value or "") for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "article":
            self.articles.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        if {"style", "script"} & set(self.open):
            return
        self.text += data
        if "article" in self.open:
            self.articles[-1] += f"{data} "
        if self.open and self.open[-1] not in ("tr", "tbody", "thead") and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def words(self) -> str:
        """All texts, with white space made plain."""
        return " ".join(self.text.split())

    def row(self, *starts: str) -> list[str]:
        """The cells of the row that begins with these cells, each with its white space made plain."""
        rows = ([" ".join(cell.split()) for cell in row] for row in self.rows)
        (found,) = [row for row in rows if tuple(row[: len(starts)]) == starts]
        return found
