"""docs/tour.ipynb: its cells run in order, on tones and a tiny model, and with `make test-real` on what it says."""

import json
from pathlib import Path

import pytest
import worlds
from tiny import tiny_whisper

TOUR = Path(__file__).parent.parent / "docs" / "tour.ipynb"


def cells():
    return json.loads(TOUR.read_text(encoding="utf-8"))["cells"]


def run(parameters=None):
    """The names that the cells leave behind.

    Args:
        parameters: what the cell of that tag should say; None: what it says.
    """
    found = {}
    for number, cell in enumerate(cells()):
        if cell["cell_type"] == "code":
            is_set = parameters is not None and "parameters" in cell["metadata"].get("tags", [])
            source = parameters if is_set else "".join(cell["source"])
            exec(compile(source, f"tour.ipynb, cell {number}", "exec"), found)
    return found


@pytest.fixture(autouse=True)
def _no_window(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")


def test_no_output_is_stored():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert len(code) > 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])] == code[:1]


def test_the_tour_runs(tmp_path, capsys):
    """French sounds nearly as English does here, so each recording finds its translation."""
    world = worlds.manifest(tmp_path / "corpus")
    model = tiny_whisper(tmp_path / "model")
    found = run(
        f"CORPUS, MODEL, LANGUAGES, SPLIT, TARGET = {world.spec!r}, {str(model)!r}, {world.languages}, 'test', 'zh'"
    )
    assert found["scores"].shape == (3, 3)
    assert found["found"] == {"en": [0, 1, 2], "fr": [0, 1, 2]}
    (first, none), (second, some) = found["history"]
    assert none == 0 < some
    assert second < first
    assert all(array.get_array().size for axes in found["figure"].axes[:2] for array in axes.images)
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == [*["en"] * 3, *["fr"] * 3, *["right"] * 6, "step", "step"]


@pytest.mark.real
@pytest.mark.timeout(900)  # half a minute of CPU time, on a machine that may be shared
def test_the_tour_runs_as_it_stands():
    found = run()
    assert found["found"] == {"en": [0, 1, 2], "fr": [0, 1, 2]}
    (first, none), (second, some) = found["history"]
    assert none == 0 < some
    assert second < first
