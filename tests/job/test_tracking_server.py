"""Runs on a tracking server over HTTP, as on a cluster: nested, with files and the registry."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import mlflow
import pytest

from xlt_ray.job import tracking


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server on loopback, with a store of its own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen([*command, *store], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health", process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url, process):
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


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
    runs = client.search_runs([client.get_experiment_by_name("tune").experiment_id])
    child, parent = sorted(runs, key=lambda run: "mlflow.parentRunId" not in run.data.tags)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.data.metrics["bleu/en-zh"], child.data.params["learning_rate"]) == (12.5, "0.0001")
    assert [of.value for of in client.get_metric_history(child.info.run_id, "dev/new_bleu")] == [1.0, 2.0]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["trials.json"]
    (version,) = client.search_model_versions("name = 'en-zh'")
    assert (version.source, version.run_id) == ("s3://bucket/runs/finetune/search-000/model", parent.info.run_id)
