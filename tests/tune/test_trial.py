"""What a trial tells the search."""

from types import SimpleNamespace

import pytest
import ray.train

from xlt_ray.job.pools import Workers
from xlt_ray.tune import trial


@pytest.fixture
def reported(monkeypatch):
    rows = []
    monkeypatch.setattr(trial.ray.tune, "report", rows.append)
    return rows


def run(monkeypatch, fit):
    monkeypatch.setattr(trial, "TuneReportCallback", lambda: None)  # it asks for a search
    monkeypatch.setattr(trial, "trainer_of", lambda *_: SimpleNamespace(fit=fit))
    trial.run_trial({"trial": 0}, [None], Workers(1, 0.89, 0.0))


def test_a_training_that_fails_is_reported_and_not_tried_once_more(monkeypatch, reported):
    """Ray Tune runs a trial again that raises, and Ray Train has run the training again already."""

    def fit():
        raise ray.train.TrainingFailedError("Training failed due to worker errors:\nCUDA out of memory\n")

    run(monkeypatch, fit)
    assert reported == [{"measured": [], "failed": "CUDA out of memory"}]


def test_a_trial_that_is_lost_raises(monkeypatch, reported):
    def fit():
        raise ray.exceptions.ActorDiedError

    with pytest.raises(ray.exceptions.ActorDiedError):
        run(monkeypatch, fit)
    assert not reported


def test_the_last_measurement_is_reported(monkeypatch, reported):
    metrics = {"measured": [{"step": 4}]}
    run(monkeypatch, lambda: SimpleNamespace(metrics=metrics))
    assert reported == [metrics]
