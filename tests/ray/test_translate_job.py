"""The real job on miniature speech: hypotheses against transformers' own, figures against sacrebleu, kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sacrebleu
import soundfile
import torch
from ray_speech import RATE, row, tone, write_rows
from tiny import END, IDS, tiny_whisper
from transformers import GenerationMixin, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.modeling_outputs import BaseModelOutput

from xlt_ray.models import whisper
from xlt_ray.store import artifacts

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

torch.set_num_threads(1)

LANGUAGES = ["en", "fr"]
NUM_SENTENCES = 5
DIRECTIONS = ["fr-en", "en-zh", "fr-zh", "en-en", "fr-fr"]
NUM_TEXTS = 5 * NUM_SENTENCES - 2  # two have no Chinese reference
MAX_TOKENS = 100


def start(root, *words):
    command = [sys.executable, "jobs/translate.py", "--root", str(root), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_job(root, *words):
    """Its output, when it has done what it should."""
    process = start(root, *words)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def write_corpus(folder):
    """Tones with their text in each language; the last sentence of each is of another split, the first has no zh."""
    rows = []
    for number, language in enumerate(LANGUAGES):
        for sentence in range(NUM_SENTENCES + 1):
            name = f"{language}-{sentence:03d}.wav"
            soundfile.write(folder / name, tone(sentence, number, 0.4 + 0.1 * sentence), RATE)
            texts = {code: f"{code} words of sentence {sentence}" for code in (*LANGUAGES, "zh")}
            del texts[language]
            if sentence == 0:
                del texts["zh"]
            split = "test" if sentence < NUM_SENTENCES else "train"
            rows.append({**row(language, sentence, name), "translations": texts, "split": split})
    return write_rows(folder, rows)


def write_model(folder):
    """The tiny model, but it heeds what it hears and writes letters: else its texts are blank and all the same."""
    model = WhisperForConditionalGeneration.from_pretrained(tiny_whisper(folder))
    with torch.no_grad():
        for name, parameter in model.model.decoder.named_parameters():
            if "encoder_attn." in name and "weight" in name:
                parameter.mul_(4)
    num_letters = 94  # the first tokens are the bytes of printable ASCII
    model.generation_config.suppress_tokens = [i for i in range(num_letters, model.config.vocab_size) if i != END]
    model.save_pretrained(folder)
    return folder


def write_checkpoint(root, base):
    """A finished finetune artifact whose decoder is another one than the model's."""
    identity = {"model": {"sha256": whisper.weights_sha256(base)}}
    settings = {"finetune": {"directions": ["en-zh"], "prompt": "tgt_translate"}, "model": str(base)}
    artifact = artifacts.plan(str(root), "finetune", "tuned", identity, settings)
    artifact.begin()
    artifact.write_json("metrics.json", {"weights_sha256": "of what it learned"})
    model = WhisperForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.model.decoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(artifact.path("model"))
    artifact.merge_rejected()
    others = ["model/config.json", "model/generation_config.json", "model/model.safetensors"]
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0, others=others)
    return root / "finetune" / "tuned" / "model"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Root, model, flags of every job on the corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    model = write_model(folder / "model")
    flags = ["--corpus", f"manifest:{write_corpus(folder)}", "--languages", "en,fr", "--model", model]
    flags += ["--translate.max-tokens", MAX_TOKENS, "--translate.rows-per-unit", 2, "--translate.batch-size", 2]
    return folder / "runs", model, flags


@pytest.fixture(scope="module")
def base(corpus):
    """The finished job with the model as it is, into en and zh; embeddings are made on the way."""
    root, _, flags = corpus
    return run_job(root, "--name", "base", "--translate.targets", "en,zh", *flags)


@pytest.fixture(scope="module")
def tuned(corpus, base):
    """The same with a checkpoint, by its own prompt and targets."""
    root, model, flags = corpus
    model_dir = write_checkpoint(root, model)
    words = ["--name", "tuned", "--translate.checkpoint", "tuned", "--translate.embeddings", "base"]
    return model_dir, run_job(root, *words, *flags)


def read(root, name, direction):
    paths = sorted((root / "translate" / name / "data").glob(f"{direction}-*.parquet"))
    return [line for path in paths for line in pq.read_table(path).to_pylist()]


def metrics_of(root, name):
    return json.loads((root / "translate" / name / "metrics.json").read_text())


def recordings(root, language):
    """Frames of the test split by utterance, straight from the shards."""
    found = {}
    for path in sorted((root / "embed" / "base" / "data").glob(f"{language}-*.parquet")):
        for line in pq.read_table(path).to_pylist():
            if line["split"] == "test":
                frames = np.frombuffer(line["frames"], np.float16).reshape(line["num_frames"], line["dim"])
                found[line["utterance_id"]] = frames.astype(np.float32)
    return found


def witness(model, tokenizer, frames, language, task):
    prompt = [IDS[token] for token in ("<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>", "<|notimestamps|>")]
    with torch.inference_mode():
        out = GenerationMixin.generate(
            model,
            encoder_outputs=BaseModelOutput(torch.from_numpy(frames)[None]),
            decoder_input_ids=torch.tensor([prompt]),
            max_new_tokens=MAX_TOKENS,
        )
    tokens = [token for token in out[0, 4:].tolist() if token != END]
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


PROMPTS = {"fr-en": ("fr", "translate"), "en-en": ("en", "transcribe"), "fr-fr": ("fr", "transcribe")}
NEW = {"base": ("zh", "transcribe"), "tuned": ("zh", "translate")}


def check_hypotheses(root, name, model_dir, tokenizer_dir):
    """Every text against that of transformers' whole model and its general generate, one recording at a time."""
    texts = {line["hypothesis"] for direction in DIRECTIONS for line in read(root, name, direction)}
    assert len(texts) > NUM_TEXTS / 2  # were they all the same, mistakes would not show
    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    tokenizer = WhisperTokenizer.from_pretrained(tokenizer_dir)
    for direction in DIRECTIONS:
        source, target = direction.split("-")
        frames = recordings(root, source)
        prompt = PROMPTS.get(direction, NEW[name])
        rows = read(root, name, direction)
        first = 1 if target == "zh" else 0
        assert [line["utterance_id"] for line in rows] == [f"{source}-{i:03d}" for i in range(first, NUM_SENTENCES)]
        for line in rows:
            expected = witness(model, tokenizer, frames[line["utterance_id"]], *prompt)
            assert line["hypothesis"] == expected, (direction, line["utterance_id"])
            sentence = int(line["utterance_id"][-3:])
            said = f"sentence {sentence}"
            assert line["text"] == said
            assert line["reference"] == (said if source == target else f"{target} words of {said}")


def test_the_model_writes_what_transformers_writes(corpus, base):
    root, model, _ = corpus
    check_hypotheses(root, "base", model, model)


def test_the_checkpoint_writes_what_transformers_writes(corpus, tuned):
    root, model, _ = corpus
    check_hypotheses(root, "tuned", tuned[0], model)
    assert read(root, "tuned", "fr-zh") != read(root, "base", "fr-zh")


def test_figures_are_those_of_sacrebleu(corpus, base):
    root, _, _ = corpus
    figures = metrics_of(root, "base")
    assert list(figures["directions"]) == DIRECTIONS
    for direction, tokenize in (("fr-en", "13a"), ("en-zh", "zh"), ("fr-zh", "zh")):
        rows = read(root, "base", direction)
        texts = [line["hypothesis"] for line in rows], [[line["reference"] for line in rows]]
        scores = figures["directions"][direction]
        assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(*texts, tokenize=tokenize).score)
        assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(*texts).score)
        assert scores["num"] == len(rows)
    zh = [figures["directions"][direction]["chrf"] for direction in ("en-zh", "fr-zh")]
    assert figures["means"]["zh"]["chrf"] == pytest.approx(sum(zh) / 2)
    assert figures["directions"]["fr-fr"]["wer"] > 0
    assert (figures["prompt"], figures["checkpoint"], figures["comet"]) == ("tgt_transcribe", None, None)


def test_every_row_is_accounted_for(corpus, base):
    root, _, _ = corpus
    manifest = json.loads((root / "translate/base/manifest.json").read_text())
    assert manifest["rows_in"] == len(DIRECTIONS) * NUM_SENTENCES
    assert manifest["rows_rejected"] == 2
    rejected = pq.read_table(root / "translate/base/rejected.parquet").to_pylist()
    assert [line["reason"] for line in rejected] == ["no reference: en-zh", "no reference: fr-zh"]
    assert {file["path"] for file in manifest["files"]} >= {"data/fr-en-00002.parquet", "data/en-zh-00001.parquet"}
    assert manifest["inputs"]["embed"]["name"] == "base"


def test_the_run_is_in_mlflow(corpus, base):
    import mlflow

    root, _, _ = corpus
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("xlt_ray/translate").experiment_id])
    (run,) = (run for run in runs if run.info.run_name == "base")
    figures = metrics_of(root, "base")
    assert run.info.status == "FINISHED"
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "scores.json")).read_text())
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert rows["fr-zh"]["chrf"] == pytest.approx(figures["directions"]["fr-zh"]["chrf"])
    assert rows["fr-fr"]["wer"] == pytest.approx(figures["directions"]["fr-fr"]["wer"])
    assert run.data.metrics["wer/mean"] == pytest.approx(figures["means"]["transcription"]["wer"])
    assert run.data.params["translate.num_beams"] == "1"
    assert run.data.params["embeddings.name"] == "base"
    assert run.data.tags["mlflow.note.content"].startswith("BLEU ")
    manifest = json.loads((root / "translate/base/manifest.json").read_text())
    assert run.data.tags["fingerprint"] == manifest["fingerprint"]


def test_the_job_shows_its_table_and_where_it_is(corpus, base):
    root, _, _ = corpus
    assert "fr-zh" in base
    assert "chrF" in base
    assert f"results  {root}/translate/base" in base
    assert "rejected 2 rows" in base


def test_scores_can_be_asked_for_later(corpus, tuned, tmp_path):
    """Nothing is translated again; a COMET that is not there is named, and a second look adds nothing."""
    root, _, flags = corpus
    data = root / "translate/tuned/data"
    stamps = {path: path.stat().st_mtime_ns for path in data.iterdir()}
    assert metrics_of(root, "tuned")["kept"] is None
    words = ["--name", "tuned", "--translate.checkpoint", "tuned", "--translate.embeddings", "base", *flags]
    missing = tmp_path / "no" / "model.ckpt"
    output = run_job(root, *words, "--translate.baseline", "base", "--translate.comet", missing)
    assert "is complete, nothing to translate" in output
    assert f"comet: no scores: no COMET checkpoint '{missing}'" in output
    assert "against base" in output
    figures = metrics_of(root, "tuned")
    before, after = metrics_of(root, "base")["directions"]["fr-zh"], figures["directions"]["fr-zh"]
    kept = figures["kept"]["directions"]["fr-zh"]
    assert (kept["before"], kept["after"]) == pytest.approx((before["bleu"], after["bleu"]))
    assert kept["num"] == NUM_SENTENCES - 1
    assert figures["baseline"]["name"] == "base"
    assert figures["comet"]["reason"].startswith("no COMET checkpoint")
    assert after["comet"] is None
    assert {path: path.stat().st_mtime_ns for path in data.iterdir()} == stamps
    written = (root / "translate/tuned/metrics.json").stat().st_mtime_ns
    run_job(root, *words, "--translate.baseline", "base")
    assert (root / "translate/tuned/metrics.json").stat().st_mtime_ns == written


def test_a_mistake_is_one_line_before_any_work(corpus, tmp_path):
    _, _, flags = corpus
    process = start(tmp_path / "empty", "--name", "x", *flags, "--translate.targets", "de")
    output, _ = process.communicate()
    assert process.returncode == 2
    (line,) = (line for line in output.splitlines() if "error" in line)
    assert line.startswith("error: direction en-de: ")
    assert "ray: " not in output
    assert not list((tmp_path / "empty" / "embed" / "x").glob("data/*"))


def units(root):
    folder = root / "translate" / "killed" / "data"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")} if folder.exists() else {}


def test_a_killed_driver_goes_on_from_what_is_there(corpus, base, tuned):
    """Killed and calm run must agree; with alpha 0, where a checkpoint is the model, the calm one is there already."""
    root, _, flags = corpus
    words = ["--name", "killed", "--translate.embeddings", "base", *flags, "--translate.max-actors", 1]
    words += ["--translate.checkpoint", "tuned", "--translate.alpha", 0, "--translate.prompt", "tgt_transcribe"]
    process = start(root, *words, "--translate.rows-per-unit", 1)
    while len(units(root)) < 3:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)  # an actor without a driver may finish the unit that it holds
    before = units(root)
    assert 3 <= len(before) < NUM_TEXTS
    # Another size would give the units' names to other rows, so that of the first run counts.
    output = run_job(root, *words, "--translate.rows-per-unit", 64)
    assert f"{len(before)} of {NUM_TEXTS} texts are done" in output
    after = units(root)
    assert before.items() <= after.items()
    assert len(after) == NUM_TEXTS
    for direction in DIRECTIONS:
        assert read(root, "killed", direction) == read(root, "base", direction)
    killed, calm = metrics_of(root, "killed"), metrics_of(root, "base")
    assert (killed["alpha"], calm["alpha"]) == (0, None)
    assert killed["directions"] == calm["directions"]
