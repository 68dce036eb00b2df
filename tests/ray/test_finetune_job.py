"""The finetune job on a tiny model: one worker or two, killed or calm, the same weights come out."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from ray.cluster_utils import Cluster
from ray_speech import row, tone, write_rows
from safetensors.torch import load_file
from soundfile import write
from tiny import tiny_whisper

from benchmarks.chaos.faults import descendants

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

LANGUAGES = ("en", "fr")
NUM_SENTENCES = 16


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus of tones with texts in zh and en, a tiny model, and a root with embeddings."""
    folder = tmp_path_factory.mktemp("world")
    rows = []
    for number, language in enumerate(LANGUAGES):
        for sentence in range(NUM_SENTENCES):
            name = f"{language}-{sentence:03d}.wav"
            write(folder / name, tone(sentence, number, 0.4 + 0.1 * (sentence % 5)), 16_000)
            translations = {"zh": f"{sentence}号", "en": f"number {sentence}"}
            if sentence == 3:
                del translations["zh"]
            split = "dev" if sentence % 4 == 1 else "train"
            rows.append(row(language, sentence, name) | {"translations": translations, "split": split})
    manifest = write_rows(folder, rows)
    model = tiny_whisper(folder / "model")
    flags = ["--corpus", f"manifest:{manifest}", "--languages", "en,fr", "--model", str(model), "--root", str(folder)]
    process = start("embed", [*flags, "--name", "speech"])
    output, _ = process.communicate()
    assert process.returncode == 0, output
    fast = ["--finetune.embeddings", "speech", "--finetune.learning-rate", "1e-2", "--finetune.batch-size", "4"]
    return folder, [*flags, *fast]


def start(job, flags, **environment):
    command = [sys.executable, f"jobs/{job}.py", *flags]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )


def run(flags, name, *more):
    process = start("finetune", [*flags, "--name", name, *more])
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def log(root, name):
    return json.loads((root / "finetune" / name / "log.json").read_text())


def weights(root, name):
    return load_file(root / "finetune" / name / "model" / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


OFTEN = ["--finetune.checkpoint-every", "2", "--finetune.evaluate-every", "4"]
KEEPING = ["--finetune.keep", "fr-en", "--finetune.ewc-lambda", "10", "--finetune.replay-fraction", "0.25"]


@pytest.fixture(scope="module")
def calm(world):
    """An undisturbed run with everything on; its log and its weights."""
    root, flags = world
    output = run(flags, "calm", *KEEPING, *OFTEN)
    return output, log(root, "calm"), weights(root, "calm")


def test_what_a_run_leaves(world, calm):
    root, _ = world
    output, rows, tuned = calm
    assert "the encoder is not loaded" in output
    assert "EWC adds a Fisher of" in output
    folder = root / "finetune" / "calm"
    manifest = json.loads((folder / "manifest.json").read_text())
    # 12 sentences to learn, of which one has no zh; 12 of fr-en to keep; 4 of zh for dev BLEU.
    assert (manifest["rows_in"], manifest["rows_out"], manifest["rows_rejected"]) == (28, 27, 1)
    rejected = pq.read_table(folder / "rejected.parquet").to_pylist()
    assert [(lost["utterance_id"], lost["reason"]) for lost in rejected] == [("en-003", "no reference: en-zh")]
    assert {entry["path"] for entry in manifest["others"]} >= {"log.json", "model/model.safetensors", "model/README.md"}
    assert not (folder / "train").exists()
    # 11 examples, 3 a step beside 1 of replay: 4 steps an epoch.
    assert [entry["step"] for entry in rows] == list(range(1, 13))
    assert sum(entry["num_examples"] for entry in rows) == 3 * 11 + 12
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["num_examples"] == {"dev": 4, "keep": 12, "learn": 11}
    assert metrics["loss"]["last"] < metrics["loss"]["first"]
    assert [entry["step"] for entry in rows if "dev_bleu" in entry] == [4, 8, 12]
    base = load_file(root / "model" / "model.safetensors")
    encoder = [name for name in base if "encoder." in name.replace("encoder_attn", "")]
    assert len(encoder) > 20
    for name in encoder:
        assert tuned[name].numpy().tobytes() == base[name].numpy().tobytes()
    assert any(not torch.equal(tuned[name].float(), base[name].float()) for name in base)


def test_the_fisher_is_that_of_one_process(world, calm):
    """Against a loop over transformers' model: squared gradients of each example's summed loss, their mean."""
    from transformers import WhisperForConditionalGeneration

    from xlt_ray.store import shards

    root, _ = world
    fisher = load_file(root / "fisher" / "calm" / "fisher.safetensors")
    model = WhisperForConditionalGeneration.from_pretrained(root / "model", dtype=torch.float32).eval()
    examples = pq.read_table(root / "fisher" / "calm" / "data" / "examples.parquet").to_pylist()
    assert {example["direction"] for example in examples} == {"fr-en"}
    assert len(examples) == 12
    total = {name: torch.zeros_like(parameter) for name, parameter in model.model.decoder.named_parameters()}
    for example in examples:
        (frames,) = shards.read_frames([(example["shard"], example["row"])])
        tokens = torch.tensor([[*example["prompt"], *example["target"][:-1]]])
        heard = torch.from_numpy(frames).float()[None]
        logits = model(decoder_input_ids=tokens, encoder_outputs=(heard,)).logits[0, 3:]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(example["target"]), reduction="sum")
        model.zero_grad()
        loss.backward()
        for name, parameter in model.model.decoder.named_parameters():
            total[name] += parameter.grad**2
    assert fisher.keys() == {f"model.decoder.{name}" for name in total}
    for name, squares in total.items():
        torch.testing.assert_close(fisher[f"model.decoder.{name}"], squares / 12, rtol=1e-3, atol=1e-7)


def test_two_workers_take_the_steps_of_one(world, calm, several_cpus):
    root, flags = world
    more = ["--finetune.num-workers", "2", "--finetune.fisher", "calm", "--finetune.evaluate-every", "4"]
    run(flags, "two", *KEEPING, *more)
    one, two = calm[1], log(root, "two")
    np.testing.assert_allclose([entry["loss"] for entry in two], [entry["loss"] for entry in one], rtol=1e-5)
    np.testing.assert_allclose([entry["grad_norm"] for entry in two], [entry["grad_norm"] for entry in one], rtol=1e-4)
    assert [entry.get("dev_bleu") for entry in two] == [entry.get("dev_bleu") for entry in one]


def trained_steps(root, name):
    """Steps of the checkpoints that are there; Ray may be copying the newest, or deleting the oldest."""
    steps = []
    for path in (root / "finetune" / name / "train").glob("checkpoint_*/progress.json"):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            steps.append(json.loads(path.read_text())["step"])
    return steps


def wait_for_step(process, root, name, step):
    while not any(done >= step for done in trained_steps(root, name)):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def kill_workers(process):
    workers = [worker for worker, title in descendants(psutil.Process(process.pid)) if "RayTrainWorker" in title]
    assert workers
    for worker in workers:
        worker.kill()


def test_what_is_killed_ends_in_the_same_bits(world, calm):
    """First the worker, which Ray replaces; then the driver, whose next run goes on from the last checkpoint."""
    root, flags = world
    again = [*KEEPING, "--finetune.fisher", "calm", *OFTEN]
    process = start("finetune", [*flags, "--name", "killed", *again])
    wait_for_step(process, root, "killed", 2)
    kill_workers(process)
    wait_for_step(process, root, "killed", 6)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(5)  # Ray's processes end without their driver
    run(flags, "killed", *again)
    assert [entry["loss"] for entry in log(root, "killed")] == [entry["loss"] for entry in calm[1]]
    assert same(weights(root, "killed"), calm[2])


def node_that_trains(cluster):
    """The node whose raylet is the parent of the training worker."""
    for process in psutil.process_iter(["ppid", "cmdline"]):
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or []):
            for node in cluster.worker_nodes:
                if process.info["ppid"] == node.all_processes["raylet"][0].process.pid:
                    return node
    raise AssertionError("no worker trains on this cluster")


def test_a_lost_node_changes_no_bit(world, calm, several_cpus, monkeypatch):
    """The node that trains goes down with all that runs there; training goes on from its checkpoint on another."""
    root, flags = world
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        address = {"RAY_ADDRESS": cluster.address}
        again = [*KEEPING, "--finetune.fisher", "calm", *OFTEN, "--finetune.num-workers", "1"]
        process = start("finetune", [*flags, "--name", "lost", *again], **address)
        wait_for_step(process, root, "lost", 2)
        cluster.remove_node(node_that_trains(cluster), allow_graceful=False)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
    finally:
        cluster.shutdown()
    assert [entry["loss"] for entry in log(root, "lost")] == [entry["loss"] for entry in calm[1]]
    assert same(weights(root, "lost"), calm[2])


def test_a_finished_run_is_left_alone(world, calm):
    root, flags = world
    path = root / "finetune" / "calm" / "model" / "model.safetensors"
    before = path.stat().st_mtime_ns
    assert "is complete, nothing to train" in run(flags, "calm", *KEEPING, *OFTEN)
    assert path.stat().st_mtime_ns == before


def test_a_model_is_converted_where_it_is_trained(world):
    """Another process converts it than the one that wrote the manifest; then there is nothing left to convert."""
    root, flags = world
    short = ["--finetune.directions", "en-zh", "--finetune.epochs", "1", "--finetune.export", "ctranslate2"]
    run(flags, "converted", *short)
    folder = root / "finetune" / "converted"
    listed = {entry["path"]: entry["bytes"] for entry in json.loads((folder / "manifest.json").read_text())["others"]}
    model = folder / "ctranslate2" / "model.bin"
    assert listed["ctranslate2/model.bin"] == model.stat().st_size
    before = model.stat().st_mtime_ns
    assert "is complete, nothing to train" in run(flags, "converted", *short)
    assert model.stat().st_mtime_ns == before
