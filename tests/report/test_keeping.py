"""The figures of the Pareto plot against sums, sorting and lines written down another way."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any

import pytest
from drawn import Drawn, crosses, title_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tuned_runs import BEFORE, KEEP, MODEL, SWEEPS, compared, log_of, moved

from xlt_ray.charts.svg import to_svg
from xlt_ray.finetune import section as training
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.job.settings import identity
from xlt_ray.translate import pareto as plot
from xlt_ray.translate.config import TranslateConfig
from xlt_ray.translate.recipe import Recipe, general, read_recipe
from xlt_ray.translate.section import Goal, Group, Outcome, Run, front, group_runs, read_outcome, sweeps

BASELINE = {"name": "base", "fingerprint": "b0"}
FIGURES = st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 3)), min_size=1, max_size=12)


def recipe_of(alpha: float = 1.0, fisher: dict[str, Any] | None = None, **asked: Any) -> Recipe:
    config = FinetuneConfig(**asked)
    tuned = {"finetune": identity(config), "embeddings": "41ec", "fisher": "f0" if config.ewc_lambda else None}
    translate = TranslateConfig(checkpoint="x", alpha=alpha)
    metrics = {"prompt": "tgt_translate", "checkpoint": {"name": "x", "fingerprint": "c0"}}
    return read_recipe({"model": MODEL, "translate": identity(translate)}, metrics, tuned, fisher)


def run_of(name: str, kept: float, gain: float, alpha: float = 1.0, seed: int = 0, **asked: Any) -> Run:
    recipe = recipe_of(alpha, seed=seed, **asked)
    return Run(name=name, baseline=BASELINE, compared=compared(moved(kept, gain)), recipe=recipe, seed=seed)


def group_of(*runs: Run) -> Group:
    (group,), left_out = group_runs(runs)
    assert left_out == ()
    return group


def every_run() -> list[Run]:
    runs = [run_of(name, kept, gain, **asked) for name, asked, kept, gain in SWEEPS]
    return [*runs, run_of("a3", 0.91, 2.9, alpha=0.3), run_of("a6", 0.69, 8.2, alpha=0.6)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 60), st.floats(0, 60)), min_size=len(BEFORE), max_size=len(BEFORE)))
def test_kept_is_a_ratio_of_means_and_gain_a_difference_of_means(scores: list[tuple[float, float]]) -> None:
    figures = {
        name: {"measure": "bleu", "before": before, "after": after, "num": 35}
        for name, (before, after) in zip(BEFORE, scores, strict=True)
    }
    outcome = read_outcome(figures)
    kept = gain = 0.0
    old = [pair for name, pair in zip(BEFORE, scores, strict=True) if name.endswith("-en")]
    new = [pair for name, pair in zip(BEFORE, scores, strict=True) if name.endswith("-zh")]
    kept = sum(after for _, after in old) / sum(before for before, _ in old)
    gain = sum(after - before for before, after in new) / len(new)
    assert outcome is not None
    assert outcome.kept == pytest.approx(kept)
    assert outcome.gain == pytest.approx(gain, abs=1e-9)


def test_transcription_is_no_direction_of_translation_and_has_its_own_mean() -> None:
    rates = {"en-en": 0.1, "es-es": 0.2, "fr-fr": 0.6}
    figures = compared(moved(0.5, 3.0), rates)
    figures["ja-ja"] = {"measure": "cer", "before": 0.4, "after": 0.3, "num": 35}
    figures["ru-ru"] = {"measure": "wer", "before": None, "after": None, "num": 35}
    outcome = read_outcome(figures)
    assert isinstance(outcome, Outcome)
    assert outcome.kept == pytest.approx(0.5)
    assert outcome.gain == pytest.approx(3.0)
    assert outcome.rates["wer"] == pytest.approx(((0.06 + 0.27 + 1.67) / 3, 0.3))
    assert outcome.rates["cer"] == (0.4, 0.3)


@pytest.mark.parametrize("missing", ["-en", "-zh"])
def test_without_both_kinds_of_direction_there_is_no_point(missing: str) -> None:
    figures = {name: change for name, change in compared(moved(0.5, 3.0)).items() if not name.endswith(missing)}
    run = dataclasses.replace(run_of("half", 1, 1), compared=figures)
    assert group_runs([run]) == ((), ("half",))


def test_nothing_can_be_kept_of_nothing() -> None:
    figures = compared(moved(0.5, 3.0))
    for name in ("es-en", "fr-en", "it-en", "ru-en"):
        figures[name]["before"] = 0.0
    assert read_outcome(figures) is None


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    better = [a > b for a, b in zip(one, other, strict=True)]
    worse = [a < b for a, b in zip(one, other, strict=True)]
    return any(better) and not any(worse)


@settings(deadline=None)
@given(FIGURES)
def test_front_is_what_no_point_beats_and_it_beats_all_others(figures: list[tuple[float, float]]) -> None:
    on_front = front(figures)
    best = [one for one, is_best in zip(figures, on_front, strict=True) if is_best]
    for one, is_best in zip(figures, on_front, strict=True):
        assert any(beats(other, one) for other in best) != is_best


@settings(deadline=None)
@given(FIGURES)
def test_front_equals_a_sweep_from_the_right(figures: list[tuple[float, float]]) -> None:
    found, highest = set(), -math.inf
    for kept, column in itertools.groupby(sorted(set(figures), reverse=True), key=lambda one: one[0]):
        gain = max(gain for _, gain in column)
        if gain > highest:
            found.add((kept, gain))
            highest = gain
    assert {one for one, is_best in zip(figures, front(figures), strict=True) if is_best} == found


def test_seeds_are_one_point_with_its_spread() -> None:
    group = group_of(
        run_of("s0", 0.3, 9.0),
        run_of("s1", 0.2, 11.0, seed=1),
        run_of("s2", 0.4, 8.5, seed=2),
        run_of("e", 0.5, 1, epochs=9),
    )
    point, other = group.points
    assert (point.names, point.num_seeds) == (("s0", "s1", "s2"), 3)
    assert (point.kept, point.gain) == pytest.approx((0.3, 9.5))
    assert point.kept_range == pytest.approx((0.2, 0.4))
    assert point.gain_range == pytest.approx((8.5, 11.0))
    assert (other.names, other.num_seeds) == (("e",), 1)
    assert other.kept_range == (other.kept, other.kept)


def test_the_same_seed_twice_is_one_seed_and_rates_are_means() -> None:
    runs = [run_of("once", 0.3, 9.0), run_of("again", 0.3, 9.0)]
    runs = [
        dataclasses.replace(run, compared=run.compared | compared({}, {"en-en": bleu}))
        for run, bleu in zip(runs, (0.1, 0.4), strict=True)
    ]
    (point,) = group_of(*runs).points
    assert point.num_seeds == 1
    assert point.rates["wer"] == pytest.approx((0.06, 0.25))


def test_settings_without_effect_do_not_part_runs() -> None:
    assert recipe_of().key == recipe_of(fisher_examples=7, fisher_labels="sampled").key
    assert recipe_of(ewc_lambda=1, keep=KEEP).key != recipe_of(ewc_lambda=1, keep=KEEP, fisher_examples=7).key
    assert recipe_of(ewc_lambda=1, keep=KEEP).key == recipe_of(ewc_lambda=1, keep=KEEP[::-1]).key
    assert recipe_of(ewc_lambda=1, keep=KEEP).key != recipe_of(ewc_lambda=1, keep=KEEP[:1]).key
    replay = {"replay_fraction": 0.5, "keep": KEEP}
    assert recipe_of(**replay).key != recipe_of(**replay | {"keep": KEEP[:1]}).key


def test_what_was_read_parts_runs_and_targets_do_not() -> None:
    tuned = {"finetune": identity(FinetuneConfig()), "embeddings": "41ec", "fisher": None}
    metrics = {"prompt": "tgt_translate", "checkpoint": {"fingerprint": "c0"}}

    def key(model: str, embeddings: str, scheme: str, **asked: Any) -> str:
        what = {"model": {"sha256": model}, "translate": identity(TranslateConfig(**asked))}
        return read_recipe(what, metrics | {"prompt": scheme}, tuned | {"embeddings": embeddings}, None).key

    one = key("m", "e", "tgt_translate")
    assert one == key("m", "e", "tgt_translate", targets=("en", "zh"), transcribe=False, prompt="tgt_translate")
    others = [key("n", "e", "tgt_translate"), key("m", "f", "tgt_translate"), key("m", "e", "tgt_transcribe")]
    others.append(key("m", "e", "tgt_translate", num_beams=5))
    assert len({one, *others}) == 5


def test_a_fisher_of_another_seed_is_the_same_but_of_other_examples_is_not() -> None:
    asked = {"ewc_lambda": 1.0, "keep": KEEP}
    fishers = [{"fisher": {"examples": examples, "seed": seed}} for examples, seed in ((200, 0), (200, 1), (50, 0))]
    keys = [recipe_of(fisher=fisher, **asked).key for fisher in fishers]
    assert keys[0] == keys[1] != keys[2]
    assert recipe_of(**asked).key not in keys


def test_runs_are_grouped_by_baseline_and_by_what_was_compared() -> None:
    run = run_of("a", 0.5, 3)
    other = dataclasses.replace(run, name="b", baseline={"name": "base", "fingerprint": "b1"})
    fewer = dataclasses.replace(
        run, name="c", compared={k: change for k, change in run.compared.items() if k != "ru-zh"}
    )
    shorter = {key: change | {"num": 34} if key == "ru-zh" else change for key, change in run.compared.items()}
    shorter_run = dataclasses.replace(run, name="d", compared=shorter)
    heard = dataclasses.replace(run, name="e", compared=run.compared | compared({}, {"en-en": 0.1}), seed=5)
    groups, _ = group_runs([run, other, fewer, shorter_run, heard])
    assert [[point.names for point in group.points] for group in groups] == [[("a", "e")], [("b",)], [("c",)], [("d",)]]
    assert groups[0].native == ("es-en", "fr-en", "it-en", "ru-en")
    assert groups[2].new == ("en-zh", "es-zh", "fr-zh")


@pytest.mark.parametrize(
    ("asked", "alpha", "method", "dial"),
    [
        ({}, 1.0, "plain", ""),
        ({"ewc_lambda": 1e6, "keep": KEEP}, 1.0, "EWC", "λ 1e6"),
        ({"replay_fraction": 0.25, "keep": KEEP}, 1.0, "replay", "25%"),
        ({"lora_rank": 8}, 1.0, "LoRA", "rank 8"),
        ({}, 0.5, "interpolation", "α 0.5"),
        ({"ewc_lambda": 100, "replay_fraction": 0.3, "keep": KEEP}, 1.0, "EWC + replay", "λ 100, 30%"),
        (
            {"lora_rank": 8, "replay_fraction": 0.3, "keep": KEEP},
            0.0,
            "replay + LoRA + interpolation",
            "30%, rank 8, α 0",
        ),
    ],
)
def test_methods_by_their_settings(asked: dict[str, Any], alpha: float, method: str, dial: str) -> None:
    recipe = recipe_of(alpha, **asked)
    assert (recipe.method, recipe.dial_text) == (method, dial)


def test_runs_without_a_known_checkpoint() -> None:
    what = {"model": MODEL, "translate": identity(TranslateConfig())}
    metrics = {"prompt": "tgt_translate", "checkpoint": None}
    assert read_recipe(what, metrics, None, None).method == "not tuned"
    lost = [
        read_recipe(what, metrics | {"checkpoint": {"fingerprint": fingerprint}}, None, None)
        for fingerprint in ("c0", "c1")
    ]
    assert [recipe.method for recipe in lost] == ["unknown", "unknown"]
    assert lost[0].key != lost[1].key


def test_sweeps_follow_one_dial_to_its_end() -> None:
    found = {tuple(name for point in sweep for name in point.names) for sweep in sweeps(group_of(*every_run()).points)}
    assert found == {
        ("plain", "plain-1", "ewc-1e2", "ewc-1e4", "ewc-1e6"),
        ("replay-30", "both"),
        ("plain", "plain-1", "replay-10", "replay-30", "replay-50"),
        ("ewc-1e4", "both"),
        ("lora-4", "lora-16"),
        ("a3", "a6", "plain", "plain-1"),
    }


def test_sweeps_do_not_join_what_differs_in_more() -> None:
    runs = [
        run_of("a", 0.9, 1, ewc_lambda=1.0, keep=KEEP),
        run_of("b", 0.8, 2, ewc_lambda=2.0, keep=KEEP[:1]),
        run_of("c", 0.7, 3, ewc_lambda=3.0, keep=KEEP, epochs=9),
        run_of("d", 0.6, 4),
    ]
    found = [[point.names[0] for point in sweep] for sweep in sweeps(group_of(*runs).points)]
    assert sorted(found) == [["d", "a"], ["d", "b"]]


def test_points_stand_in_the_order_of_method_and_dial() -> None:
    names = [point.names[0] for point in group_of(*every_run()[::-1]).points]
    assert set(names[:2]) == {"bad", "plain-1"}
    assert names[2:] == [
        *(
            "ewc-1e2",
            "ewc-1e4",
            "ewc-1e6",
            "replay-10",
            "replay-30",
            "replay-50",
            "lora-4",
            "lora-16",
            "a3",
            "a6",
            "both",
        )
    ]


def test_goal_is_a_share_of_the_largest_plain_gain() -> None:
    group = group_of(
        run_of("small", 0.5, 5.0, epochs=1),
        run_of("large", 0.3, 10.0),
        run_of("more", 0.1, 12.0, lora_rank=4),
        run_of("in", 0.81, 8.01, lora_rank=8),
        run_of("low", 0.9, 7.99, lora_rank=9),
        run_of("left", 0.79, 11.0, lora_rank=10),
    )
    assert group.goal is not None
    assert (group.goal.kept, group.goal.gain, group.goal.plain_gain) == pytest.approx((0.8, 8.0, 10.0))
    assert [point.names for point in group.reached] == [("in",)]
    assert Goal(kept=0.8, gain=8.0, plain_gain=10.0).holds(0.8, 8.0)


def test_without_a_plain_gain_there_is_no_goal() -> None:
    for run in (run_of("worse", 0.5, -1.0), run_of("ewc", 0.5, 9.0, ewc_lambda=1.0, keep=KEEP)):
        group = group_of(run)
        assert (group.goal, group.nearest, group.reached) == (None, None, [])


def test_nearest_counts_both_shortfalls_in_shares() -> None:
    goal = Goal(kept=0.8, gain=8.0, plain_gain=10.0)
    assert goal.distance(0.5, 4.0) == pytest.approx(0.5)  # 0.3 and 0.4 short
    assert goal.distance(0.99, 5.0) == pytest.approx(0.3)
    assert goal.distance(0.6, 50.0) == pytest.approx(0.2)
    assert goal.distance(0.8, 8.0) == 0
    group = group_of(
        run_of("plain", 0.3, 10.0), run_of("near", 0.75, 7.0, lora_rank=4), run_of("far", 1.0, 2.0, lora_rank=8)
    )
    assert group.nearest is not None
    assert group.nearest.names == ("near",)


def test_a_run_that_only_loses_is_dominated_by_the_baseline() -> None:
    group = group_of(run_of("loses", 0.9, -0.1), run_of("gains", 0.2, 0.1, lora_rank=4))
    assert {point.names[0]: point.is_dominated for point in group.points} == {"loses": True, "gains": False}


def test_points_of_all_methods_are_judged() -> None:
    dominated = {point.names[0] for point in group_of(*every_run()).points if point.is_dominated}
    assert dominated == {"bad", "ewc-1e4", "replay-50", "lora-4", "lora-16", "a3", "a6"}


def drawn_of(*runs: Run) -> Drawn:
    return Drawn(str(to_svg(plot.pareto(group_of(*runs)), "plane")))


def test_every_mark_and_bar_is_where_its_figures_are() -> None:
    group, drawn = group_of(*every_run()), drawn_of(*every_run())
    places = drawn.places("mark")
    assert len(places) == len(group.points) == 13
    for point in group.points:
        (title,) = [title for title in places if title.startswith(f"{', '.join(point.names)}: ")]
        ((x, y),) = places[title]
        assert 58 < x < 788
        assert 12 < y < 403
        assert drawn.read((x, y)) == (pytest.approx(100 * point.kept, abs=0.03), pytest.approx(point.gain, abs=0.01))
    (point,) = [point for point in group.points if point.num_seeds > 1]
    across, up = ([drawn.read(at) for at in line] for line in drawn.lines("spread"))
    assert [at[0] for at in across] == pytest.approx([100 * kept for kept in point.kept_range], abs=0.03)
    assert [at[1] for at in up] == pytest.approx(point.gain_range, abs=0.01)
    ((origin,),) = drawn.places("origin").values()
    assert drawn.read(origin) == (pytest.approx(100, abs=0.03), pytest.approx(0, abs=0.01))


def test_the_goal_is_in_view_even_where_nothing_comes_near() -> None:
    low = drawn_of(run_of("plain", 0.99, 10.0), run_of("e", 0.99, 1.0, ewc_lambda=1.0, keep=KEEP))
    (corner, *_) = low.lines("goal")[0]
    assert low.read(corner) == (pytest.approx(80, abs=0.03), pytest.approx(8, abs=0.02))
    assert corner[0] > 58
    alone = drawn_of(run_of("e", 1.0, 0.0, ewc_lambda=1.0, keep=KEEP))
    assert len(alone.places("origin")) == 1
    assert not alone.lines("goal")


def test_bars_of_seeds_far_apart_are_in_view() -> None:
    drawn = drawn_of(run_of("a", 0.1, -5.0), run_of("b", 1.4, 9.0, seed=1))
    ends = [at for line in drawn.lines("spread") for at in line]
    assert all(58 < x < 788 and 12 < y < 403 for x, y in ends)


def test_labels_of_a_group_are_off_its_lines() -> None:
    runs = [
        run_of("plain", 0.4, 5.0),
        run_of("ewc", 0.7, 5.0, ewc_lambda=1.0, keep=KEEP),
        run_of("low", 0.5, 1.0, epochs=1),
    ]
    drawn = drawn_of(*runs, run_of("left", 0.3, 1.0, epochs=1, seed=1))
    lines = [line for kind in ("front", "sweep", "spread") for line in drawn.lines(kind)]
    assert (len(drawn.labels), len(lines)) == (3, 4)
    assert not any(crosses(line, box) for line in lines for box in drawn.labels.values())


def test_one_style_a_method() -> None:
    styles = {}
    for group in drawn_of(*every_run()).groups("mark"):
        method = re.findall(r": (plain|EWC \+ replay|EWC|replay|LoRA|interpolation)", title_of(group))[0]
        (path,) = group.iter("path")
        styles.setdefault(method, set()).add((path.attrib["d"], path.attrib["style"]))
    assert [len(found) for found in styles.values()] == [1] * 6
    assert len(set.union(*styles.values())) == 6


def test_the_staircase_goes_through_the_front() -> None:
    drawn = drawn_of(
        run_of("plain", 0.5, 8.0), run_of("lora", 0.4, 7.0, lora_rank=4), run_of("r", 0.75, 4.0, lora_rank=8)
    )
    (stairs,) = drawn.lines("front")
    assert (stairs[0][0], stairs[-1][1]) == (58, 403)
    turns = dict.fromkeys(tuple(map(round, drawn.read(place))) for place in stairs)
    assert [*turns][1:] == [(50, 8), (50, 4), (75, 4), (75, 0), (100, 0)]


def test_marks_without_a_dial_have_the_name_of_a_run() -> None:
    drawn = drawn_of(run_of("some-run", 0.5, 3.0))
    assert [*drawn.labels] == ["some-run"]
    assert [*drawn.places("mark")] == ["some-run: plain; kept 50.0%, gain +3.00 BLEU"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(10000, "10000"), (1e6, "1e6"), (3e-5, "3e-5"), (0.5, "0.5"), (1.5e-10, "1.5e-10"), (2e12, "2e12"), (0, "0")],
)
def test_numbers_are_short(number: float, expected: str) -> None:
    assert general(number) == expected
    assert float(general(number)) == number


def trained(num_steps: int, *, has_dev: bool = False, **asked: Any) -> training.Training:
    config = dataclasses.asdict(FinetuneConfig(**asked))
    return training.read_training("zh", config, {}, log_of(num_steps, has_dev=has_dev))


@pytest.mark.parametrize("num_steps", [1, 7, 60, 61, 120, 1000])
def test_a_curve_keeps_the_mean_of_the_loss(num_steps: int) -> None:
    log, run = log_of(num_steps), trained(num_steps)
    assert len(run.curve) == min(60, num_steps)
    if num_steps % len(run.curve) == 0:
        size = num_steps // len(run.curve)
        for k, (step, loss) in enumerate(run.curve):
            rows = log[k * size : (k + 1) * size]
            assert step == pytest.approx((rows[0]["step"] + rows[-1]["step"]) / 2)
            assert loss == pytest.approx(sum(row["loss"] for row in rows) / size)
    assert [step for step, _ in run.curve] == sorted({step for step, _ in run.curve})
    assert (run.num_steps, run.best_step) == (num_steps, None)


def test_runs_share_the_scale_of_the_largest_loss() -> None:
    run = dataclasses.replace(trained(4), curve=((1, 4.0), (4, 1.0)))
    drawn = Drawn(str(to_svg(run.loss_curve(8.0), "curve")))
    assert drawn.lines("new") == [[(62, 39), (242, 65.2)]]
    assert training.highest_loss([run, dataclasses.replace(run, curve=((2, 5.0),))]) == 5.0
    assert training.highest_loss([dataclasses.replace(run, curve=((1, 0.0),))]) == 1.0


def test_what_trained_and_whose_fisher() -> None:
    assert (trained(4).trained, trained(4).fisher) == ("decoder", None)
    assert trained(4, lora_rank=8).trained == "LoRA, rank 8"
    assert trained(4, train_embeddings=True).trained == "decoder, token embeddings"
    assert trained(4, ewc_lambda=1.0, keep=KEEP).fisher == "zh"
    assert trained(4, ewc_lambda=1.0, keep=KEEP, fisher="other").fisher == "other"
    assert trained(40, has_dev=True, evaluate_every=10).best_step == 30


WATCHED = [
    {"step": 4, "loss": 2.0, "dev_bleu": 3.0, "dev_bleu/fr-en": 6.0, "dev_bleu/en-zh": 3.0, "dev_bleu/es-fr": 1.0},
    {"step": 6, "loss": 1.5},
    {"step": 8, "loss": 1.0, "dev_bleu": 5.0, "dev_bleu/fr-en": 2.0, "dev_bleu/en-zh": 5.0},
]


def test_dev_scores_of_each_direction_by_step_the_learned_first() -> None:
    config = dataclasses.asdict(FinetuneConfig(directions=("en-zh",)))
    run = training.read_training("zh", config, {}, WATCHED)
    assert list(run.dev.items()) == [
        ("en-zh", ((4, 3.0), (8, 5.0))),
        ("es-fr", ((4, 1.0),)),
        ("fr-en", ((4, 6.0), (8, 2.0))),
    ]
    assert [run.kind(direction) for direction in run.dev] == ["new", "other", "old"]
    assert training.highest_dev([run, trained(8)]) == 6.0
    drawn = Drawn(str(to_svg(run.dev_curves(6.0), "curve")))
    assert drawn.places("old") == {"fr → en: BLEU 6.0 at step 4, 2.0 at step 8": [(122, 4), (242, 50.7)]}
    assert [group.get("class") for group in drawn.root.iter("g")] == [*["grid"] * 3, "best", "old", "other", "new"]


def test_a_learned_direction_into_english_is_new_and_none_measured_is_no_curve() -> None:
    assert trained(4, directions=("fr-en",)).kind("fr-en") == "new"
    assert trained(40, has_dev=True).dev == {}  # a log with the mean alone
    assert training.highest_dev([trained(4)]) == 1.0
