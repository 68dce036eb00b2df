import mlflow
import pytest
from matplotlib.figure import Figure

from xlt_ray.job import runs as runs_of
from xlt_ray.job import tracking

IDENTITY = {"languages": ["en", "fr"], "embed": {"encoding": "exact", "num_sentences": None}}


def runs(root, experiment):
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    return client, client.search_runs([client.get_experiment_by_name(f"xlt_ray/{experiment}").experiment_id])


@pytest.mark.slow
def test_a_run_holds_parameters_metrics_and_files(tmp_path):
    with tracking.track(str(tmp_path), "embed", "mine", IDENTITY, {"model": "base"}) as tracker:
        tracker.metrics({"retrieval/r1/en-fr": 0.5})
        tracker.describe("R@1 50 %")
        tracker.figure(Figure(), "plot.png")
        tracker.table({"pair": ["en-fr"], "r1": [0.5]}, "table.json")
    client, (run,) = runs(tmp_path, "embed")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
    assert run.data.params == {
        "languages": "en,fr",
        "embed.encoding": "exact",
        "embed.num_sentences": "None",
        "model": "base",
    }
    assert run.data.metrics == {"retrieval/r1/en-fr": 0.5}
    assert run.data.tags["fingerprint"]
    assert run.data.tags["mlflow.note.content"] == "R@1 50 %"
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"plot.png", "table.json"}
    assert (tmp_path / "mlflow").is_dir()


def test_a_run_that_breaks_is_failed_and_the_error_goes_on(tmp_path):
    with pytest.raises(RuntimeError, match="broken"), tracking.track(str(tmp_path), "embed", "x", IDENTITY, {}):
        raise RuntimeError("broken")
    _, (run,) = runs(tmp_path, "embed")
    assert run.info.status == "FAILED"


def test_a_run_that_a_killed_driver_left_open_is_closed_by_the_next(tmp_path):
    left_open = tracking.track(str(tmp_path), "embed", "x", IDENTITY, {})
    left_open.__enter__()
    with tracking.track(str(tmp_path), "embed", "x", IDENTITY, {}):
        _, found = runs(tmp_path, "embed")
        assert sorted(run.info.status for run in found) == ["KILLED", "RUNNING"]
    with tracking.track(str(tmp_path), "embed", "y", {"other": 1}, {}):
        _, found = runs(tmp_path, "embed")
        assert sorted(run.info.status for run in found) == ["FINISHED", "KILLED", "RUNNING"]


@pytest.mark.slow
def test_a_run_of_another_root_is_left_open(tmp_path, monkeypatch):
    """Somebody else may work at the same on the same server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    theirs = tracking.track(str(tmp_path / "theirs"), "embed", "x", IDENTITY, {})
    theirs.__enter__()
    with tracking.track(str(tmp_path / "mine"), "embed", "x", IDENTITY, {}):
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/shared.db")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        assert [run.info.status for run in client.search_runs(experiments)] == ["RUNNING", "RUNNING"]


def test_a_bucket_without_a_server_is_not_tracked_and_says_so(capsys):
    with tracking.track("s3://bucket/runs", "embed", "x", IDENTITY, {"model": "base"}) as tracker:
        tracker.metrics({"a": 1})
    assert isinstance(tracker, tracking.NullTracker)
    assert "set MLFLOW_TRACKING_URI" in capsys.readouterr().out


def test_the_ui_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert runs_of.ui_command("s3://bucket") == "open http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:hunter2@mlflow.example/x")
    assert runs_of.ui_command("s3://bucket") == "open https://mlflow.example/x"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:hunter2@db/mlflow")
    assert "hunter2" not in runs_of.ui_command("s3://bucket")


@pytest.mark.slow
def test_a_run_inside_another_is_its_child(tmp_path):
    root = str(tmp_path)
    with tracking.track(root, "tune", "search", IDENTITY, {}):
        with tracking.track(root, "finetune", "search-000", {**IDENTITY, "trial": 0}, {}, seconds_ago=60) as trial:
            trial.checkpoint("/weights")
        with tracking.track(root, "translate", "search-000", {**IDENTITY, "trial": 1}, {}):
            pass
    with tracking.track(root, "tune", "alone", {"other": 1}, {}):
        pass
    _, found = runs(tmp_path, "tune")
    named = {run.info.run_name: run for run in found}
    assert set(named) == {"search", "finetune search-000", "translate search-000", "alone"}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in named.items()}
    search = named["search"].info.run_id
    assert parents == {
        "search": None,
        "finetune search-000": search,
        "translate search-000": search,
        "alone": None,
    }
    trial = named["finetune search-000"]
    assert trial.data.tags["checkpoint"] == "/weights"
    assert trial.info.end_time - trial.info.start_time >= 60_000
    assert mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db").get_experiment_by_name("xlt_ray/finetune") is None


@pytest.mark.slow
def test_weights_are_registered_as_the_next_version(tmp_path):
    with tracking.track(str(tmp_path), "tune", "search", IDENTITY, {}) as tracker:
        assert tracker.register("en-zh", "s3://bucket/first") is None
        assert tracker.register("en-zh", "s3://bucket/second") is None
        assert "name" in tracker.register("", "s3://bucket/third").lower()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_model_versions("name = 'en-zh'")
    assert {int(version.version): version.source for version in found} == {
        1: "s3://bucket/first",
        2: "s3://bucket/second",
    }
