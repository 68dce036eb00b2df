import itertools

import numpy as np
import pytest

from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job.cli import parse
from xlt_ray.presets import PRESETS
from xlt_ray.tune.config import Axis, TuneConfig, TuneJob
from xlt_ray.tune.plan import config_of
from xlt_ray.tune.space import applied, draw


def test_lists_are_combined_each_once_in_an_order_of_the_seed():
    trials = draw(TuneConfig())
    expected = set(itertools.product((1e-5, 3e-5, 1e-4), (0.0, 1.0, 10.0, 100.0)))
    assert len(trials) == 12
    assert {(trial["learning_rate"], trial["ewc_lambda"]) for trial in trials} == expected
    assert draw(TuneConfig()) == trials
    assert draw(TuneConfig(seed=1)) != trials
    assert draw(TuneConfig(num_trials=5)) == trials[:5]


def test_a_range_is_drawn_on_its_scale():
    wide = TuneConfig(
        learning_rate=Axis(bounds=(1e-6, 1e-2)),
        ewc_lambda=Axis(),
        replay_fraction=Axis(bounds=(0.1, 0.5)),
        epochs=Axis(bounds=(1, 4)),
        num_trials=2000,
    )
    trials = draw(wide)
    rates = np.log10([trial["learning_rate"] for trial in trials])
    assert rates.min() >= -6
    assert rates.max() <= -2
    # Uniform on the log scale: mean of the ends, and a twelfth of the squared width.
    assert rates.mean() == pytest.approx(-4, abs=0.1)
    assert rates.var() == pytest.approx(16 / 12, rel=0.1)
    shares = np.array([trial["replay_fraction"] for trial in trials])
    assert shares.mean() == pytest.approx(0.3, abs=0.01)
    assert {trial["epochs"] for trial in trials} == {1.0, 2.0, 3.0, 4.0}
    assert len(draw(TuneConfig(learning_rate=Axis(bounds=(1e-6, 1e-2))))) == 12


def test_lora_and_ewc_are_never_combined():
    trials = draw(TuneConfig(lora_rank=Axis(values=(0.0, 16.0)), ewc_lambda=Axis(values=(0.0, 10.0))))
    assert len(trials) == 3 * 3
    assert not any(trial["lora_rank"] and trial["ewc_lambda"] for trial in trials)


def test_what_a_trial_trains_with():
    base, kept = FinetuneConfig(evaluate_every=7, epochs=2), ("es-en",)
    plain = applied(base, {"learning_rate": 1e-4, "ewc_lambda": 0.0, "lora_rank": 8.0}, kept, "shared")
    assert (plain.learning_rate, plain.lora_rank, plain.keep, plain.fisher) == (1e-4, 8, (), None)
    held = applied(base, {"ewc_lambda": 5.0, "lora_rank": 0.0, "epochs": 4.0}, kept, "shared")
    assert (held.ewc_lambda, held.lora_rank, held.keep, held.fisher, held.epochs) == (5.0, None, kept, "shared", 4)
    replaying = applied(base, {"replay_fraction": 0.3}, kept, "shared")
    assert (replaying.keep, replaying.fisher, replaying.checkpoint_every) == (kept, None, 7)
    assert all(trial.evaluate == kept for trial in (plain, held, replaying))


def test_what_is_kept_when_nobody_says_so():
    assert TuneJob(languages=("en", "fr", "es")).kept == ("es-en", "fr-en")
    learned = FinetuneConfig(directions=("es-en", "en-zh"), evaluate_every=1)
    assert TuneJob(languages=("en", "fr", "es"), finetune=learned).kept == ("fr-en",)
    named = FinetuneConfig(evaluate_every=1, evaluate=("es-en",))
    assert TuneJob(languages=("en", "fr", "es"), finetune=named).kept == ("es-en",)


def test_the_command_line_says_lists_and_ranges():
    flags = ["--tune.learning-rate", "1e-5..1e-4", "--tune.ewc-lambda", "0,10", "--tune.epochs", "2"]
    config = parse(TuneJob, flags, PRESETS).tune
    assert config.learning_rate == Axis(bounds=(1e-5, 1e-4))
    assert config.ewc_lambda == Axis(values=(0.0, 10.0))
    assert set(config.space) == {"learning_rate", "ewc_lambda", "epochs"}
    assert set(parse(TuneJob, ["--tune.ewc-lambda", ""], PRESETS).tune.space) == {"learning_rate"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tune.learning-rate", "1e-4..1e-5"], "0.0001..1e-05 is no range"),
        (["--tune.ewc-lambda", "0..10"], "log scale, which has no 0"),
        (["--tune.ewc-lambda", "1,1"], "names a value twice"),
        (["--tune.learning-rate", "", "--tune.ewc-lambda", ""], "nothing is searched"),
        (["--tune.epochs", "1.5,2"], "--tune.epochs 1.5,2 has 1.5; give whole numbers"),
        (["--tune.lora-rank", "0.5..4"], "--tune.lora-rank 0.5..4 has 0.5; give whole numbers"),
        (["--tune.lora-rank", "0,inf"], "--tune.lora-rank 0,inf has inf; give whole numbers"),
        (["--tune.gain-weight", "0.7"], "only with --tune.objective mix"),
        (["--tune.objective", "mix", "--tune.gain-weight", "2"], "give 0 to 1"),
        (["--tune.objective", "speed"], "speed"),
        (["--tune.reduction", "0"], "--tune.reduction is 0"),
        (["--tune.learning-rate", "fast"], "fast"),
        (["--finetune.evaluate-every", "0"], "compares trials by dev BLEU"),
        (["--languages", "en"], "no direction to preserve"),
    ],
)
def test_a_mistake_is_one_line(flags, message):
    with pytest.raises(UserError, match=message) as error:
        parse(TuneJob, flags, PRESETS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rank", "strength"), [("4..16", "1,10"), ("4,8", "1..10"), ("4..16", "1..10"), ("4,8", "1,10")]
)
def test_a_search_without_a_possible_trial_is_refused(rank, strength):
    """Draws from a range would go on for ever, and lists would leave no trial."""
    with pytest.raises(UserError) as error:
        parse(TuneJob, ["--tune.lora-rank", rank, "--tune.ewc-lambda", strength], PRESETS)
    message = str(error.value)
    assert f"--tune.lora-rank {rank} and --tune.ewc-lambda {strength}" in message
    assert "add 0 to one of them" in message


@pytest.mark.parametrize(("rank", "strength"), [("4..16", "0,10"), ("0,4", "1..10"), ("0,4", "1,10"), ("4,8", "0")])
def test_a_0_in_one_of_two_lists_is_enough(rank, strength):
    config = parse(TuneJob, ["--tune.lora-rank", rank, "--tune.ewc-lambda", strength], PRESETS).tune
    assert draw(config)


def test_a_combination_that_cannot_be_is_refused_before_any_trial():
    job = TuneJob(tune=TuneConfig(learning_rate=Axis(values=(-1.0,))))
    with pytest.raises(UserError, match=r"learning-rate is -1\.0"):
        [config_of(job, settings) for settings in draw(job.tune)]
    assert isinstance(job, FinetuneJob)
