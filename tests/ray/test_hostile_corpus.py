"""Recordings that crash the decoder, and what is no file: the job ends well, and says which rows they are."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import soundfile
from ray_speech import row, tone, write_rows
from tiny import tiny_whisper

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

DIES = """
import os, sys, ray
from xlt_ray.embed.unit import require_few_losses
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)

@ray.remote(max_retries=-1)
def die(deaths):
    require_few_losses("en-test-00003")
    with open(deaths, "a") as file:
        file.write("x")
    os._exit(1)

ray.get(die.remote(sys.argv[1]))
"""


def run(*words, **variables):
    environment = os.environ | variables
    return subprocess.run([sys.executable, *map(str, words)], env=environment, capture_output=True, text=True)


def test_one_recording_does_not_stop_a_corpus(tmp_path):
    sys.path.insert(0, "tests/corpora")
    try:
        from fragile import CRASHES_ON_NINE_CHANNELS, write
        from test_decoding import many_channels
    finally:
        sys.path.remove("tests/corpora")
    site = write(tmp_path / "site", CRASHES_ON_NINE_CHANNELS)
    for number in (0, 1, 4):
        soundfile.write(tmp_path / f"{number}.wav", tone(number, 0, 1.0), 16_000)
    (tmp_path / "2.webm").write_bytes(many_channels("webm", "libopus", 10, {"mapping_family": "255"})[1])
    os.mkfifo(tmp_path / "3.wav")
    names = ["0.wav", "1.wav", "2.webm", "3.wav", "4.wav"]
    manifest = write_rows(tmp_path, [row("en", number, name) for number, name in enumerate(names)])
    model = tiny_whisper(tmp_path / "model")
    flags = ["--corpus", f"manifest:{manifest}", "--languages", "en", "--root", tmp_path / "runs", "--name", "hostile"]
    path = os.pathsep.join([str(site), os.getcwd()])
    done = run("jobs/embed.py", *flags, "--model", model, "--embed.max-rejected", "0.5", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    rejected = pq.read_table(tmp_path / "runs/embed/hostile/rejected.parquet").to_pylist()
    assert {line["utterance_id"]: line["reason"] for line in rejected} == {
        "en-002": "crashes: the decoder crashes on it (signal 11)",
        "en-003": "missing: a pipe, a socket or a device, not a file",
    }
    index = pq.read_table(tmp_path / "runs/embed/hostile/index.parquet").to_pylist()
    assert [line["utterance_id"] for line in index if line["row"] is not None] == ["en-000", "en-001", "en-004"]
    dead = run("-c", DIES, tmp_path / "deaths", PYTHONPATH=os.getcwd())
    assert "unit en-test-00003 could not be decoded: 4 workers died on it" in dead.stderr
    assert (tmp_path / "deaths").read_text() == "xxxx"
