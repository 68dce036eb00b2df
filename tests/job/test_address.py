"""A RAY_ADDRESS that leads nowhere ends a job at once, and says so."""

import functools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xlt_ray.errors import NoResources
from xlt_ray.job import address

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}"])
def test_a_cluster_that_is_gone_is_named(monkeypatch, closed_port, form):
    given = form.format(closed_port)
    monkeypatch.setenv("RAY_ADDRESS", given)
    started = time.monotonic()
    with pytest.raises(NoResources, match=rf"^RAY_ADDRESS={given} names .* unset RAY_ADDRESS"):
        address.require_answer()
    assert time.monotonic() - started < 20


def test_an_address_to_submit_to_is_told_apart(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(NoResources, match=r"ray job submit --address http://head:8265"):
        address.require_answer()


@pytest.mark.parametrize("given", ["head", "head:port", "ftp://head:1", "head:99999999"])
def test_what_is_no_address_is_refused(monkeypatch, given):
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(NoResources, match="is no address of a Ray cluster"):
        address.require_answer()


def test_what_answers_is_let_through(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        address.require_answer()


@pytest.mark.parametrize("given", ["", "local"])
def test_this_machine_is_no_cluster(monkeypatch, given):
    monkeypatch.setenv("RAY_ADDRESS", given)
    address.require_answer()
    assert not address.is_given()
    assert address.hosts() == []


@pytest.mark.parametrize(
    ("given", "hosts"),
    [("10.0.0.1:6379", ["10.0.0.1"]), ("ray://head:10001", ["head"]), ("[::1]:6379", ["::1"]), ("auto", [])],
)
def test_the_host_of_the_cluster(monkeypatch, given, hosts):
    monkeypatch.setenv("RAY_ADDRESS", given)
    assert address.hosts() == hosts


def test_auto_without_a_cluster(monkeypatch, closed_port):
    from ray._private import services

    from xlt_ray.job import cluster

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    # Another Ray may well run on the machine of the test.
    found: set[str] = set()
    monkeypatch.setattr(services, "find_gcs_addresses", functools.cache(lambda: found))
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    with pytest.raises(NoResources, match=r"RAY_ADDRESS=auto lets Ray look .* unset RAY_ADDRESS"), cluster.cluster():
        pass
    found.add(f"127.0.0.1:{closed_port}")
    with (
        pytest.raises(NoResources, match=f"RAY_ADDRESS=auto .* nothing answers at .*:{closed_port}"),
        cluster.cluster(),
    ):
        pass


def test_a_job_ends_with_code_4_before_it_reads_its_corpus(closed_port, tmp_path):
    environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{closed_port}", "PYTHONPATH": str(ROOT)}
    flags = ["--corpus", "manifest:/nowhere.tsv", "--root", str(tmp_path / "runs")]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, ROOT / "jobs/embed.py", *flags], env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"RAY_ADDRESS=127.0.0.1:{closed_port}" in done.stderr
    assert not (tmp_path / "runs").exists()
    print(f"{time.monotonic() - started:.1f} s")
