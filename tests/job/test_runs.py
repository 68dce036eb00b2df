"""Nothing that is wrong with MLflow's store ends a job, nor lets it write elsewhere."""

import shlex
import shutil
import socket
import subprocess
import sys
import time

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from xlt_ray.job import runs, tracking


@pytest.fixture(autouse=True)
def forget_losses(monkeypatch):
    monkeypatch.setattr(runs, "_lost", {})


def log_one(root, name):
    with tracking.track(str(root), "embed", name, {"name": name}, {"model": "base"}) as tracker:
        tracker.metrics({"embed/num": 1})
        tracker.figure(Figure(), "plot.png")
        tracker.checkpoint(f"{root}/embed/{name}/model")
    assert not runs._lost


def found(root):
    """The runs of the experiment `embed`, by name."""
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("xlt_ray/embed")
    return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_a_deleted_experiment_is_restored_and_a_line_says_so(root, capsys):
    log_one(root, "a")
    client, _ = found(root)
    client.delete_experiment(client.get_experiment_by_name("xlt_ray/embed").experiment_id)
    log_one(root, "b")
    assert capsys.readouterr().out.count("the experiment 'xlt_ray/embed' had been deleted") == 1
    assert set(found(root)[1]) == {"a", "b"}


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_store_follows_its_root(root, tmp_path, how, capsys):
    old, new = root, tmp_path / "a new %41place"
    log_one(old, "a")
    client, of_old = found(old)
    client.create_registered_model("m")
    client.create_model_version("m", f"{old}/embed/a/model", of_old["a"].info.run_id)
    before = sorted(old.rglob("*"))
    shutil.move(old, new) if how == "moved" else shutil.copytree(old, new)
    log_one(new, "b")
    assert f"{new} was moved or copied from {old}" in capsys.readouterr().out
    assert (sorted(old.rglob("*")) if old.exists() else []) == ([] if how == "moved" else before)
    client = runs.connect(str(new))
    assert client.get_registered_model("m").latest_versions[0].source == f"{new}/embed/a/model"
    for run in client.search_runs([client.get_experiment_by_name("xlt_ray/embed").experiment_id]):
        name = run.info.run_name
        assert client.download_artifacts(run.info.run_id, "plot.png").endswith("plot.png")
        assert run.info.artifact_uri.startswith((new / "mlflow").as_uri() + "/")
        assert run.data.tags["checkpoint"] == f"{new}/embed/{name}/model"


def test_a_place_with_a_longer_name_is_another_one(root, tmp_path):
    """/x/runs has moved, /x/runs-2 has not."""
    log_one(root, "a")
    with tracking.track(str(root), "embed", "b", {"b": 1}, {}) as tracker:
        tracker.checkpoint(f"{root}-2/model")
    new = tmp_path / "new"
    shutil.move(root, new)
    log_one(new, "c")
    assert found(new)[1]["b"].data.tags["checkpoint"] == f"{root}-2/model"


def test_work_goes_on_where_no_server_answers(tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:hunter22@127.0.0.1:{port}")
    started = time.monotonic()
    with tracking.track(str(tmp_path), "study", "x", {"a": 1}, {}) as tracker:
        assert time.monotonic() - started < 15
        with tracking.track(str(tmp_path), "embed", "y", {"a": 2}, {}) as inner:
            inner.metrics({"a": 1})
        tracker.metrics({"a": 1})
    assert time.monotonic() - started < 16
    out = capsys.readouterr().out
    assert out.count("not tracked") == 1
    assert f"http://127.0.0.1:{port}" in out
    assert "hunter22" not in out
    assert runs.where(str(tmp_path)).endswith(shlex.join(["--root", str(tmp_path), "--log"]))


@pytest.mark.slow
def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(runs.NotTracked):
            runs.connect(str(tmp_path))
        assert time.monotonic() - started < 15


def test_what_the_store_refuses_is_told_and_the_run_is_no_whole_record(root, capsys):
    with tracking.track(str(root), "embed", "a", {"a": 1}, {}) as tracker:
        tracker.metrics({"k" * 300: 1.0})
        tracker.metrics({"good": 2.0})
    assert "a run can't be written" in capsys.readouterr().out
    (run,) = found(root)[1].values()
    assert (run.info.status, run.data.metrics) == ("FAILED", {"good": 2.0})


def test_a_damaged_store_does_not_stop_the_work(tmp_path, capsys):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with tracking.track(str(tmp_path), "embed", "a", {"a": 1}, {}) as tracker:
        tracker.metrics({"a": 1})
    assert "not tracked" in capsys.readouterr().out
    assert (tmp_path / "mlflow.db").read_bytes() == b"no database" * 100


@pytest.mark.slow
def test_two_jobs_that_start_at_once_under_a_new_root_both_have_runs(tmp_path):
    code = (
        "import sys; from xlt_ray.job import tracking\n"
        "with tracking.track(sys.argv[1], 'embed', sys.argv[2], {'n': sys.argv[2]}, {}) as t: t.metrics({'a': 1})"
    )
    root = tmp_path / "new" / "runs"
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, str(root), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    assert [job.communicate(timeout=110)[0] for job in jobs] == ["", ""]
    assert [job.returncode for job in jobs] == [0, 0]
    assert {name: run.info.status for name, run in found(root)[1].items()} == dict.fromkeys("ab", "FINISHED")


@pytest.mark.parametrize("name", ["a b", "it's", "50%", "a%20b", "a?b=c", "a#b"])
def test_the_line_that_shows_the_runs_names_the_store(tmp_path, empty_store, name):
    root = tmp_path / name
    root.mkdir()
    shutil.copyfile(empty_store, root / "mlflow.db")
    log_one(root, "a")
    program, *words, uri = shlex.split(runs.ui_command(str(root)))
    assert words == ["ui", "--backend-store-uri"]
    assert shutil.which(program)
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("xlt_ray/embed").experiment_id])
    assert run.info.run_name == "a"
    assert list((root / "mlflow").rglob("plot.png"))


def test_a_database_that_is_no_server_keeps_files_under_the_root(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    log_one(other, "a")
    assert list((other / "mlflow").rglob("plot.png"))
    assert not (tmp_path / "mlruns").exists()
