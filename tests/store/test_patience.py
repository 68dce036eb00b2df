"""A store that fails for a while is asked again; what no patience mends is said at once."""

import hashlib

import pyarrow as pa
import pytest

from benchmarks.chaos import store
from xlt_ray.store import artifacts, patience, reading, storage

SLOW_DOWN = "When reading information for key 'x' in bucket 'b': AWS Error SLOW_DOWN during HeadObject operation"

NO_SERVER = (
    "When getting information for key 'x' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject operation: "
    "curlCode: 7, Could not connect to server"
)
"""What Arrow says after six seconds, while a server is started again."""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(patience, "FIRST_S", 0.001)
    monkeypatch.setattr(patience, "MOST_S", 0.002)


def failing(errors):
    """A function that raises these errors first; how often it was called."""
    calls = []

    def ask():
        calls.append(0)
        if len(calls) <= len(errors):
            raise OSError(errors[len(calls) - 1])
        return "answer"

    return patience.patient(ask), calls


def test_it_asks_until_there_is_an_answer(quick):
    ask, calls = failing([SLOW_DOWN, "AWS Error UNKNOWN (HTTP status 502) during PutObject operation", NO_SERVER])
    assert ask() == "answer"
    assert len(calls) == 4


@pytest.mark.parametrize(
    "error",
    [
        "AWS Error ACCESS_DENIED during GetObject",
        "[Errno 13] Permission denied: '/r'",
        "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 6, Could not resolve hostname",
    ],
)
def test_what_stays_wrong_is_raised_at_once(quick, error):
    ask, calls = failing([error] * 2)
    with pytest.raises(OSError, match=error.split("]")[-1]):
        ask()
    assert len(calls) == 1


def test_a_thread_that_comes_again_by_itself_asks_once(quick):
    ask, calls = failing([SLOW_DOWN] * 2)
    with patience.at_once(), pytest.raises(OSError, match="SLOW_DOWN"):
        ask()
    assert len(calls) == 1
    assert ask() == "answer"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self._now = 0.0

    def monotonic(self):
        return self._now

    def sleep(self, seconds):
        self._now += seconds


def test_it_tells_that_it_waits_and_gives_up(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    ask, calls = failing([SLOW_DOWN] * 10_000)
    with pytest.raises(OSError, match="SLOW_DOWN"):
        ask()
    assert patience.LONGEST_S < clock.monotonic() <= patience.LONGEST_S + patience.MOST_S
    told = capsys.readouterr().out.splitlines()
    longest = patience.TELL_S + patience.MOST_S  # between two lines
    assert patience.LONGEST_S / longest - 1 <= len(told) <= patience.LONGEST_S / patience.TELL_S
    lefts = [float(line.removeprefix("the store fails, trying again for ").partition(" s: ")[0]) for line in told]
    assert lefts == sorted(lefts, reverse=True)
    assert 0 <= lefts[-1] <= lefts[0] < patience.LONGEST_S
    assert all(line.endswith(f" s: {SLOW_DOWN}") for line in told)
    assert len(calls) > patience.LONGEST_S / patience.MOST_S


@pytest.mark.slow
def test_an_artifact_is_written_and_read_in_a_store_that_often_fails(monkeypatch):
    """Files shorter than the text of an error, which Arrow does not ask for again, among them."""
    with store.bucket() as bucket:
        door = store.Store(bucket.url, seed=1, rates={"slow down": 0.15, "error": 0.15})
        for name, value in door.environment.items():
            monkeypatch.setenv(name, value)
        storage._remote_filesystem.cache_clear()
        artifact = artifacts.plan(f"s3://{store.BUCKET}/runs", "embed", "a", {"x": 1}, {})
        artifact.begin()
        units = [f"u{number}" for number in range(6)]
        for number, unit in enumerate(units):
            artifact.write_table(f"data/{unit}.parquet", pa.table({"x": [number]}))
            artifact.write_bytes(f"small/{unit}", bytes([number]))
        artifact.merge_rejected()
        artifact.commit(units=dict.fromkeys(units, 1), num_rows_in=6, inputs={}, seconds=0)
        found = artifacts.find(f"s3://{store.BUCKET}/runs", "embed", "a")
        assert [reading.table_of(uri).to_pydict() for uri in found.files()] == [{"x": [n]} for n in range(6)]
        smalls = [storage.read_bytes(found.path("small", unit)) for unit in units]
        assert hashlib.sha256(b"".join(smalls)).digest() == hashlib.sha256(bytes(range(6))).digest()
        assert door.faults["slow down"] > 5
        assert door.faults["error"] > 5
        door.close()
    storage._remote_filesystem.cache_clear()
