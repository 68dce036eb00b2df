from types import SimpleNamespace

from ray.tune.schedulers import TrialScheduler

from xlt_ray.tune.halving import Halving
from xlt_ray.tune.scheduler import HalvingScheduler


def decide(scheduler, trial, *scores):
    measured = [{"step": 10 * count, "dev_bleu": score} for count, score in enumerate(scores, 1)]
    return scheduler.on_trial_result(None, SimpleNamespace(config={"trial": trial}), {"measured": measured})


def test_who_falls_behind_is_stopped_but_not_at_the_end():
    def best(measured):
        return (max(row["dev_bleu"] for row in measured),)

    scheduler = HalvingScheduler(Halving(1, 3), best, [30, 30, 10, 30])
    assert decide(scheduler, 0, 5.0) == TrialScheduler.CONTINUE
    assert decide(scheduler, 1, 4.0) == TrialScheduler.STOP
    assert decide(scheduler, 2, 3.0) == TrialScheduler.CONTINUE  # 10 steps are all that it has
    assert decide(scheduler, 3, 6.0) == TrialScheduler.CONTINUE
    assert decide(scheduler, 3, 6.0, 1.0, 1.0) == TrialScheduler.CONTINUE
    assert decide(scheduler, 0, 5.0, 5.0, 5.0) == TrialScheduler.CONTINUE
    assert scheduler.stopped == {1}
    assert decide(scheduler, 4) == TrialScheduler.CONTINUE


def test_a_trial_that_goes_on_after_a_kill_counts_where_it_has_been():
    """It first tells of its second measurement; others are held against its first one too, as without the kill."""

    def best(measured):
        return (max(row["dev_bleu"] for row in measured),)

    calm, resumed = HalvingScheduler(Halving(1, 3), best, [90] * 3), Halving(1, 3)
    resumed.record(0, [(5.0,)])
    resumed = HalvingScheduler(resumed, best, [90] * 3)
    decide(calm, 0, 5.0)
    decide(calm, 1, 6.0)
    for scheduler in (calm, resumed):
        assert decide(scheduler, 1, 6.0, 7.0) == TrialScheduler.CONTINUE
        assert decide(scheduler, 2, 5.5) == TrialScheduler.STOP
