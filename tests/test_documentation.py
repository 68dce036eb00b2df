"""The README and what lies beside it: length, links, code that runs, and the page that is written from the code."""

import json
import re
from pathlib import Path

import pytest
import soundfile
import yaml
from ray_speech import RATE, tone
from tiny import tiny_whisper

from docs import settings
from xlt_ray import __version__, corpora
from xlt_ray.job.flags import flags_of
from xlt_ray.models import whisper

ROOT = Path(__file__).parent.parent
TEXTS = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(ROOT.glob("docs/*.md"))]


def anchors(path):
    """The anchors of the headings of a page, as GitHub and mkdocs make them of plain titles."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(path):
    """What a page links to in the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def test_the_page_of_settings_is_what_the_code_says():
    assert settings.PAGE.read_text(encoding="utf-8") == settings.page(), "run: python docs/settings.py"


def test_every_setting_and_preset_is_on_the_page():
    """The witness is the command line itself: every flag that a job takes."""
    page = settings.PAGE.read_text(encoding="utf-8")
    for job in settings.JOBS:
        assert [name for name in flags_of(job) if f"| `{name}` |" not in page] == []
    assert [name for name in settings.PRESETS if f"| `{name}` |" not in page] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1200


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_into_the_repository_lead_somewhere(path):
    """mkdocs checks the pages of docs/ too (`make docs`), but nothing outside of them."""
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_links_are_found():
    """A pattern that matches nothing must not look like success."""
    assert {"docs/results.md#not-verified", "CONTRIBUTING.md"} <= set(links(ROOT / "README.md"))
    assert "results.md#forgetting" in links(ROOT / "docs" / "design.md")


def blocks(language):
    """The fenced blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """The recordings of the README, and a small Whisper; the French one sounds as its translation does."""
    tiny_whisper(tmp_path / "model")
    resolve = whisper.resolve_model
    monkeypatch.setattr(whisper, "resolve_model", lambda _: resolve(str(tmp_path / "model")))
    for name, sentence in {"en-1": 1, "en-2": 2, "fr-2": 2}.items():
        soundfile.write(tmp_path / f"{name}.wav", tone(sentence, 0, 1.0), RATE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("recordings")
def test_the_code_of_the_readme_finds_the_translation(capsys):
    (code,), (lines,) = blocks("python"), blocks("json")
    Path("corpus.jsonl").write_text(lines, encoding="utf-8")
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["scores"].shape == (1, 2)
    assert found["scores"][0, 1] == pytest.approx(1, abs=1e-3)  # it is the same sound
    assert capsys.readouterr().out == "translation: recording 2\n"


@pytest.mark.usefixtures("recordings")
def test_the_manifest_of_the_readme_can_be_read():
    (lines,) = blocks("json")
    Path("corpus.jsonl").write_text(lines, encoding="utf-8")
    rows = list(corpora.read("manifest:corpus.jsonl", ["en", "fr"], None))
    assert [row.utterance_id for row in rows] == [json.loads(line)["utterance_id"] for line in lines.splitlines()]
    assert all(row.translations["zh"] and Path(row.audio).exists() for row in rows)


def test_the_citation_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license", "references"} <= citation.keys()
    assert citation["version"] == __version__
