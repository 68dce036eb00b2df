"""Proxies and read-only homes."""

import os
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests

from xlt_ray.errors import UserError
from xlt_ray.job import cli, environment
from xlt_ray.job.settings import Job
from xlt_ray.store import cache


@pytest.fixture
def served():
    """The address of a server on loopback that answers everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What a test sets in the environment goes with it."""
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_loopback_is_reached_without_the_proxy(served, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(served, timeout=10)
    environment.keep_direct(["127.0.0.1", "localhost", "::1"])
    assert requests.get(served, timeout=10).status_code == 200
    # Not `urlopen`, which keeps the proxy of its first call for the tests that follow.
    assert urllib.request.build_opener().open(served, timeout=10).status == 200


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_what_the_user_keeps_direct_stays_so(name, monkeypatch):
    monkeypatch.setenv(name, "inner.example, 10.0.0.0/8")
    environment.keep_direct(["127.0.0.1"])
    environment.keep_direct(["127.0.0.1"])
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "inner.example,10.0.0.0/8,127.0.0.1"


def test_the_cluster_that_is_joined_is_direct_too(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    environment.prepare(Job(dry_run=True))
    assert os.environ["no_proxy"] == "127.0.0.1,localhost,::1,10.1.2.3"


@pytest.fixture
def no_folder(tmp_path, monkeypatch):
    """A home in which nothing can be made, for root too: it is below a file."""
    (tmp_path / "file").touch()
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    return tmp_path / "file"


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(no_folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=f"the cache {no_folder}/.cache/xlt_ray/models can't .* set XDG_CACHE_HOME"):
        cache.folder("models")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache.folder("models") == tmp_path / "cache/xlt_ray/models"


def write_below_home(job: Job) -> None:
    """Fail as a library does that keeps something in the home directory."""
    try:
        raise PermissionError(13, "Permission denied", os.environ["TO_WRITE"])
    except OSError as error:
        raise RuntimeError("download failed") from error


@pytest.mark.parametrize(
    ("path", "variable"),
    [(".cache/huggingface/hub/x", "HF_HOME"), (".cache/other", "XDG_CACHE_HOME"), (".other/x", "HOME")],
)
def test_a_library_that_cannot_write_ends_the_job_with_its_variable(path, variable, tmp_path, monkeypatch, capsys):
    for name in ("XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TO_WRITE", str(tmp_path / path))
    with pytest.raises(SystemExit) as stop:
        cli.run(write_below_home, {"demo": dict}, [])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / path} can't be written (Permission denied); set {variable} to")
    assert told.count("\n") == 1


def test_other_errors_are_no_matter_of_the_home(tmp_path):
    assert environment.advice(PermissionError(13, "Permission denied", "/elsewhere/x")) is None
    assert environment.advice(FileNotFoundError(2, "No such file", str(Path.home() / "x"))) is None


@pytest.mark.slow
def test_the_demo_model_says_where_its_cache_can_go(no_folder, tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "jobs/retrieval.py", "--root", str(tmp_path / "runs")],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 2, done.stderr
    assert "set XDG_CACHE_HOME" in done.stderr.splitlines()[-1]  # before it matplotlib says where it keeps its fonts
