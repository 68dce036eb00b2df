"""The page's section of a search: its plane, tables and curves against figures worked out another way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from drawn import Drawn, markers, title_of
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered import Page
from scipy import stats
from searched_runs import CHOSEN, DEV, FRONT, REASON, TEST, TRIALS, search_figures, trial_of, write_search
from tuned_runs import moved, write_baseline, write_translate

from xlt_ray.charts.svg import to_svg
from xlt_ray.report.collect import collect
from xlt_ray.report.render import render
from xlt_ray.tune import results as tuned
from xlt_ray.tune import section as trials


def page_of(root: Path, **figures: Any) -> tuple[str, Page]:
    write_search(root, **figures)
    source = render(collect(str(root)))
    return source, Page(source)


def row_of(page: Page, name: str, num_cells: int) -> list[str]:
    rows = [[" ".join(cell.split()) for cell in row] for row in page.rows]
    (found,) = [row for row in rows if row and row[0] == name and len(row) == num_cells]
    return found


def test_the_lead_counts_trials_and_gives_the_chosen_their_test_scores(tmp_path: Path) -> None:
    text = page_of(tmp_path)[1].words
    assert "9 trials: 6 finished, 2 stopped early, 1 failed." in text
    assert "Best on dev by gain and kept together: search-003, which on test gains +7.7 BLEU" in text
    assert "keeps 77.3% of es-en, fr-en; search-008" in text  # 5.8 of 7.5
    assert "The untouched model scores 0.4 on en-zh (new) and 8.0 on es-en, fr-en (old) on dev, 0.2 and 7.5" in text


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"objective": "gain"}, "Best on dev by gain: search-003"),
        ({"objective": "mix", "gain_weight": 0.3}, "The objective is 0.3 of new and 0.7 of old BLEU."),
        (
            {"trials": [trial_of(3) | {"test": None}]},
            "1 trial: 1 finished. Best on dev by gain and kept together: search-003, not",
        ),
        ({"trials": [trial_of(0)]}, "None was chosen."),
    ],
)
def test_the_lead_of_other_searches(tmp_path: Path, figures: dict[str, Any], said: str) -> None:
    assert said in page_of(tmp_path, **figures)[1].words


def test_every_trial_stands_with_its_settings_below_the_untouched_model(tmp_path: Path) -> None:
    _, page = page_of(tmp_path)
    assert row_of(page, "untouched model", 13)[8:12] == ["0.4", "0", "8.0", "100"]
    for number, (status, asked, new, old) in enumerate(TRIALS):
        if new is None or old is None:
            continue
        row = row_of(page, f"search-{number:03d}", 13)
        rank = int(asked["lora_rank"])
        assert float(row[1]) == asked["learning_rate"]
        assert float(row[2]) == asked["ewc_lambda"]
        assert row[3:6] == [f"{100 * asked['replay_fraction']:.0f}%", str(rank) if rank else "whole decoder", status]
        assert row[8:12] == [f"{new:.1f}", f"{new - 0.4:+.1f}", f"{old:.1f}", f"{100 * old / 8:.1f}"]
        assert row[12] == ", ".join(["on the front"] * (number in FRONT) + ["chosen"] * (number in CHOSEN))


def test_trials_are_in_the_order_of_status_then_gain() -> None:
    names = [int(trial["name"][-3:]) for trial in trials.read_search(search_figures()).trials]
    assert names == [6, 3, 0, 8, 1, 5, 2, 7, 4]


def test_a_failed_trial_says_why_as_text(tmp_path: Path) -> None:
    source, page = page_of(tmp_path)
    assert row_of(page, "search-004", 6)[1:] == ["0.001", "0", "0%", "whole decoder", f"failed {REASON}"]
    assert "<b>nan" not in source
    assert page.open == []


def test_the_chosen_on_test_beside_dev_and_the_baseline_of_each(tmp_path: Path) -> None:
    _, page = page_of(tmp_path)
    before = [DEV["new_bleu"], 0, DEV["old_bleu"], 100, TEST["new_bleu"], 0, TEST["old_bleu"], 100]
    assert [float(cell) for cell in row_of(page, "untouched model", 9)[1:]] == before
    assert row_of(page, "search-008", 9)[1:] == ["6.1", "+5.7", "7.4", "92.5", "5.1", "+4.9", "6.4", "85.3"]
    assert "optimistic" in page.words


def test_a_trial_links_to_its_translations_only_where_they_are_on_the_page(tmp_path: Path) -> None:
    write_translate(tmp_path, "search-003", write_baseline(tmp_path), moved(0.5, 2.0), None)
    source, page = page_of(tmp_path)
    assert ("a", "#translate-search-003") in page.links
    for tag, target in page.links:
        assert tag != "a" or f'id="{target[1:]}"' in source


def plane_of(figures: dict[str, Any]) -> Drawn:
    figure = trials.trial_plane(trials.read_search(figures))
    assert figure is not None
    return Drawn(str(to_svg(figure, "plane")))


def test_the_plane_marks_every_trial_with_figures_and_rings_the_chosen(tmp_path: Path) -> None:
    source, _ = page_of(tmp_path)
    (drawn,) = re.findall(r'<svg class="plane".*?</svg>', source, re.DOTALL)
    plane = Drawn(drawn)
    assert len(plane.titles) == 9  # eight trials and the untouched model
    assert len(plane.groups("ring")) == len(CHOSEN)
    assert [*plane.labels] == ["search-003", "search-008"]
    assert "search-005, finished: lr 3e-5, EWC λ 0, replay 0%, LoRA rank 8; kept 65.0%, gain +3.90 BLEU" in plane.titles


def test_marks_are_where_their_figures_are_and_have_the_style_of_their_status() -> None:
    drawn = plane_of(search_figures())
    styles: dict[str, set[str]] = {"finished": set(), "stopped": set()}
    for group in drawn.groups("mark"):
        name, status = re.findall(r"^search-(\d+), (\w+):", title_of(group))[0]
        _, _, new, old = TRIALS[int(name)]
        assert new is not None
        assert old is not None
        (place,) = markers(group)
        assert drawn.read(place) == (pytest.approx(100 * old / 8, abs=0.03), pytest.approx(new - 0.4, abs=0.01))
        styles[status].add("".join(path.attrib["style"] + path.attrib["d"] for path in group.iter("path")))
    assert [len(found) for found in styles.values()] == [1, 1]
    assert styles["finished"] != styles["stopped"]
    (stairs,) = drawn.lines("front")
    for number in FRONT:
        _, _, new, old = TRIALS[number]
        assert any(drawn.read(at) == pytest.approx((100 * (old or 0) / 8, (new or 0) - 0.4), abs=0.03) for at in stairs)


def test_nothing_to_keep_means_no_plane(tmp_path: Path) -> None:
    figures = search_figures()
    for trial in figures["trials"]:
        trial["kept"] = None
    figures["baseline"]["dev"] = DEV | {"old_bleu": 0.0}
    source, page = page_of(tmp_path, trials=figures["trials"], baseline=figures["baseline"])
    assert "so there is nothing to plot" in page.words
    assert '<svg class="plane"' not in source
    assert row_of(page, "search-000", 13)[11] == "–"


def test_importance_has_its_bars_and_its_chance(tmp_path: Path) -> None:
    source, page = page_of(tmp_path)
    assert row_of(page, "replay", 5)[2::2] == ["0.38", "0.93"]
    assert row_of(page, "LoRA rank", 5)[2::2] == ["–", "−0.13"]
    assert re.findall(r'<line class="rho" x1="0" x2="(.*?)"', source) == [
        "29.0",
        "-44.0",
        "-21.0",
        "62.0",
        "38.0",
        "93.0",
        "-13.0",
    ]
    assert "over the 6 trials that finished" in page.words
    assert "not causation" in page.words
    assert "over 6 trials lie within ±0.88" in page.words


def search_of(num_finished: int) -> trials.Search:
    return trials.read_search(search_figures() | {"trials": [trial_of(0)] * num_finished + [trial_of(2)] * 3})


@pytest.mark.parametrize("num", [5, 8, 12, 30, 100])
def test_chance_agrees_with_the_t_distribution_of_rank_correlations(num: int) -> None:
    t = stats.t.ppf(0.975, num - 2)
    assert search_of(num).chance == pytest.approx(t / (num - 2 + t**2) ** 0.5, abs=0.11 if num == 5 else 0.04)


def test_few_trials_have_no_chance_to_compare_with(tmp_path: Path) -> None:
    assert search_of(4).chance is None
    assert search_of(0).chance is None
    text = page_of(tmp_path, trials=[trial_of(number) for number in (0, 1, 3, 4)])[1].words
    assert "even a perfect order can be chance" in text
    assert "The grey band" not in text


def test_curves_share_a_scale_and_show_the_untouched_model(tmp_path: Path) -> None:
    search = trials.read_search(search_figures())
    assert (search.last_step, search.highest) == (42, 9.6)
    source, _ = page_of(tmp_path)
    curves = [Drawn(drawn) for drawn in re.findall(r'<svg class="curve".*?</svg>', source)]
    assert len(curves) == 8
    (top,) = [drawn for drawn in curves if "search-006" in drawn.root.attrib["aria-label"]]
    assert top.places("new") == {"new: 9.6 at step 42": [(82, 50.7), (162, 27.3), (242, 4)]}
    assert top.lines("old")[0][-1] == pytest.approx((242, 4 + 70 * (1 - 3.2 / 9.6)), abs=0.06)
    for drawn in curves:
        assert drawn.lines("level old") == [[(2, 15.7), (242, 15.7)]]  # 8 of 9.6


def test_the_baseline_is_in_view_of_the_curves() -> None:
    low = search_figures() | {"trials": [trial_of(2) | {"curve": [{"step": 3, "new_bleu": 0.0, "old_bleu": 0.0}]}]}
    search = trials.read_search(low)
    assert (search.last_step, search.highest) == (3, 8.0)
    low["baseline"]["dev"] = DEV | {"new_bleu": 0.0, "old_bleu": 0.0}
    assert trials.read_search(low).highest == 1.0


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("learning_rate", 3e-5, "3e-5"),
        ("ewc_lambda", 0.0, "0"),
        ("replay_fraction", 0.125, "12.5%"),
        ("lora_rank", None, "whole decoder"),
        ("lora_rank", 0.0, "whole decoder"),
        ("lora_rank", 16.0, "16"),
        ("epochs", None, "–"),
    ],
)
def test_settings_as_a_reader_says_them(setting: str, value: float | None, shown: str) -> None:
    assert trials.setting_value(value, setting) == shown


FIGURES = st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 30)), min_size=1, max_size=9)


@settings(deadline=None, max_examples=25)
@given(FIGURES)
def test_every_mark_is_inside_the_axes(scores: list[tuple[float, float]]) -> None:
    rows = [trial_of(0) | tuned.against({"new_bleu": new, "old_bleu": old}, DEV) for new, old in scores]
    drawn = plane_of(search_figures() | {"trials": rows})
    places = [at for group in drawn.groups("mark") + drawn.groups("origin") for at in markers(group)]
    assert len(places) == len(rows) + 1
    assert all(58 < x < 788 and 12 < y < 403 for x, y in places)


def test_figures_as_the_tune_stage_works_them_out(tmp_path: Path) -> None:
    """The keys that this page reads of a trial are those that the stage writes."""
    log = [
        {"step": 5, "dev_bleu": 2.0, "dev_bleu/en-zh": 2.0, "dev_bleu/es-en": 7.0, "dev_bleu/fr-en": 5.0},
        {"step": 9, "dev_bleu": 1.0, "dev_bleu/en-zh": 1.0, "dev_bleu/es-en": 3.0, "dev_bleu/fr-en": 1.0},
    ]
    kept = ("es-en", "fr-en")
    figures = tuned.outcome(log, kept)
    row = trial_of(0) | figures | tuned.against(figures, DEV) | {"curve": tuned.curve(log, kept)}
    rows = [row, trial_of(1), trial_of(5)]
    _, page = page_of(tmp_path, trials=rows, importance=tuned.importance(rows))
    assert row_of(page, "search-000", 13)[8:12] == ["2.0", "+1.6", "6.0", "75.0"]
    gains = [1.6, 4.7, 3.9]
    expected = stats.spearmanr([0.0, 1e4, 0.0], gains).statistic
    assert row_of(page, "EWC λ", 5)[2] == f"{expected:.2f}"
    assert row_of(page, "replay", 5)[2] == "–"
