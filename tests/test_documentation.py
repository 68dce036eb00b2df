"""The README and the pages of docs/: their length, their links, their code, and the page that is written from the code."""

import re
from pathlib import Path

import pytest
import yaml

from docs import settings

ROOT = Path(__file__).parent.parent
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def anchors(path):
    """The anchors of the headings of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_page_of_settings_is_what_the_code_says():
    assert settings.PAGE.read_text(encoding="utf-8") == settings.page(), "run: python docs/settings.py"


def test_every_setting_and_preset_is_on_the_page():
    """The witness is the command line itself: every flag that a job takes."""
    from xlt_ray.job import cli

    page = settings.PAGE.read_text(encoding="utf-8")
    for job in settings.JOBS:
        flags = [name for name in cli._flags(job) if not re.search(r"(--|\.)no-", name)]
        assert [name for name in flags if f"| `{name}` |" not in page] == []
    assert [name for name in settings.PRESETS if f"| `{name}` |" not in page] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1200


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_into_the_repository_lead_somewhere(path):
    """Links between the pages of docs/ are checked by mkdocs (`make docs`)."""
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    inner = [link for link in links if not link.startswith(("http://", "https://", "mailto:"))]
    assert inner
    for link in inner:
        name, _, anchor = link.partition("#")
        target = ROOT / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_citation_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license", "references"} <= citation.keys()
    from xlt_ray import __version__

    assert citation["version"] == __version__
