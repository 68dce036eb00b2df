"""Runs on a tracking server over HTTP, as on a cluster: nested, with files and the registry."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import mlflow
import pytest

from xlt_ray.job import runs, tracking
from xlt_ray.report.untracked import log_missing
from xlt_ray.store import artifacts

pytestmark = pytest.mark.slow


class Server:
    """A tracking server on loopback, with a store of its own; it can be stopped and started again."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._folder, self.address = folder, f"http://127.0.0.1:{self._port}"

    def start(self):
        files = str(self._folder / "files")
        store = ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--artifacts-destination", files]
        place = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", *place, *store]
        # Its runner of background jobs starts eight more processes, each of which imports mlflow; nothing here uses it.
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = self._folder / "server.log"
        with log.open("w") as out:
            self._process = subprocess.Popen(
                command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_for(f"{self.address}/health", self._process, log)

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(running):
    return running.address


def wait_for(url, process, log):
    # `urlopen` keeps the proxies of its first call in this process, which may have been in a test of proxies.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        try:
            with direct.open(url, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            assert process.poll() is None, log.read_text()
            last = error
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer ({last}): {log.read_text()}")


@pytest.mark.timeout(180)
def test_a_search_on_a_server(server, monkeypatch):
    """The root is in a bucket, which can hold no store of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with tracking.track("s3://bucket/runs", "tune", "search", {"seed": 0}, {"model": "base"}) as search:
        with tracking.track("s3://bucket/runs", "trial", "search-000", {"trial": 0}, {"learning_rate": 1e-4}) as trial:
            trial.metrics({"bleu/en-zh": 12.5})
            trial.curve("dev/new_bleu", [(10, 1.0), (20, 2.0)])
        search.table({"name": ["search-000"], "gain": [3.0]}, "trials.json")
        assert search.register("en-zh", "s3://bucket/runs/finetune/search-000/model") is None
        refused = search.register("en-zh", "/a/folder/of/this/machine")
    assert refused is not None
    assert "\n" not in refused
    client = mlflow.MlflowClient(server)
    runs = client.search_runs([client.get_experiment_by_name("xlt_ray/tune").experiment_id])
    child, parent = sorted(runs, key=lambda run: "mlflow.parentRunId" not in run.data.tags)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.data.metrics["bleu/en-zh"], child.data.params["learning_rate"]) == (12.5, "0.0001")
    assert [metric.value for metric in client.get_metric_history(child.info.run_id, "dev/new_bleu")] == [1.0, 2.0]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["trials.json"]
    (version,) = client.search_model_versions("name = 'en-zh'")
    assert (version.source, version.run_id) == ("s3://bucket/runs/finetune/search-000/model", parent.info.run_id)


@pytest.mark.timeout(240)
def test_a_server_that_dies_does_not_end_the_work_and_its_run_is_logged_later(running, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address)
    monkeypatch.setattr(runs, "_lost", {})
    root, figures = str(tmp_path / "runs"), {"num_examples": 7, "trace": 1.5}
    artifact = artifacts.plan(root, "fisher", "f", {"seed": 0}, {"corpus": "c", "model": "m", "seed": 0})
    artifact.begin()
    with tracking.track(root, "fisher", "f", artifact.identity, {"model": "m"}) as tracker:
        running.stop()
        started = time.monotonic()
        for _ in range(5):
            tracker.metrics({"fisher/trace": 1.5})
        artifact.write_json("metrics.json", figures)
        artifact.merge_rejected()
        artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=60)
    assert time.monotonic() - started < 60
    assert capsys.readouterr().out.count("not tracked") == 1
    assert "jobs/report.py" in runs.where(root)
    running.start()
    monkeypatch.setattr(runs, "_lost", {})
    log_missing(root)
    log_missing(root)
    told = [line for line in capsys.readouterr().out.splitlines() if "logged" in line]
    assert told == ["runs: 1 artifacts logged, 0 had a run", "runs: 0 artifacts logged, 1 had a run"]
    client = mlflow.MlflowClient(running.address)
    found = client.search_runs([client.get_experiment_by_name("xlt_ray/fisher").experiment_id])
    (whole,) = [run for run in found if run.info.status == "FINISHED"]
    assert whole.data.metrics == {f"fisher/{key}": value for key, value in figures.items()}
    assert (whole.data.params["seed"], whole.data.params["corpus"]) == ("0", "c")
    assert whole.data.tags["artifact"] == artifact.uri
    assert whole.info.end_time - whole.info.start_time == pytest.approx(60_000, abs=15_000)  # a busy machine is late
