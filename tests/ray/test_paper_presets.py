"""The paper's presets end to end in miniature: corpora in their real formats, the tiny model, one Ray for all.

Nothing but the place of the corpus and the model is another one than in the preset, and the size of the texts.
"""

import contextlib
import json
import os
import runpy

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from tiny import tiny_whisper
from trees import (
    MASS_EDITIONS,
    covost_row,
    fleurs_row,
    write_common_voice,
    write_covost2,
    write_fleurs_parquet,
    write_mass,
)

from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.job import cli, cluster
from xlt_ray.models.prompts import Prompter
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval.config import RetrievalJob
from xlt_ray.translate.config import TranslateJob

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

JOBS = {"retrieval": RetrievalJob, "finetune": FinetuneJob, "translate": TranslateJob}
FLEURS = {"en": "en_us", "fr": "fr_fr", "de": "de_de", "zh": "cmn_hans_cn", "ja": "ja_jp"}
UNSEEN = {"kea": "kea_cv", "ast": "ast_es", "ceb": "ceb_ph", "ky": "ky_kg", "ckb": "ckb_iq", "ga": "ga_ie"}
UNSEEN |= {"sw": "sw_ke", "tr": "tr_tr", "vi": "vi_vn"}
SENTENCES = (3, 4)
BOOKS = {"basque": "San_Lucas", "spanish": "San_Lucas", "french": "Luc"}


def text(language, sentence):
    return f"{language} {'一二三四五六七八'[sentence]}"


def write_fleurs(root):
    for split in ("train", "validation", "test"):
        for number, (code, config) in enumerate(FLEURS.items()):
            rows = [fleurs_row(k, number, text(code, k), seconds=0.4) for k in SENTENCES]
            write_fleurs_parquet(root, config, split, rows)
    for number, (code, config) in enumerate(UNSEEN.items()):
        rows = [fleurs_row(k, 10 + number, text(code, k), seconds=0.4) for k in SENTENCES]
        write_fleurs_parquet(root, config, "test", rows)


def write_covost(root):
    rows = [covost_row("en", k, f"number {k}", text("zh", k), "train") for k in range(5)]
    write_common_voice(root / "en", rows)
    write_covost2(root / "en", "en_zh-CN", rows, split="train")


def write_verses(root):
    for language in MASS_EDITIONS:
        verses = {(3, BOOKS.get(language, "Luke"), 15, k): f"{language} {k}" for k in (1, 2)}
        write_mass(root, language, verses)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a job on a preset, in this process and on one Ray, and gives the folder of its artifact."""
    folder = tmp_path_factory.mktemp("paper")
    os.environ["MPLBACKEND"] = "Agg"
    write_fleurs(folder / "fleurs")
    write_covost(folder / "covost2")
    write_verses(folder / "mass")
    model = tiny_whisper(folder / "model")
    monkeypatch = pytest.MonkeyPatch()

    def run_job(job, preset, *words):
        corpus = cli.parse(JOBS[job], ["--preset", preset], PRESETS).corpus
        flags = ["--corpus", f"{corpus}:{folder / corpus}", "--model", model, "--root", folder / "runs", *words]
        runpy.run_path(f"jobs/{job}.py")["main"](cli.parse(JOBS[job], ["--preset", preset, *map(str, flags)], PRESETS))
        return folder / "runs" / job / preset

    with cluster.cluster():
        monkeypatch.setattr(cluster, "cluster", lambda **_: contextlib.nullcontext())
        yield run_job
        monkeypatch.undo()


def metrics_of(artifact):
    return json.loads((artifact / "metrics.json").read_text())


def check_pairs(artifact, languages):
    """Every ordered pair, and in each a query for every sentence."""
    pairs = metrics_of(artifact)["pairs"]
    assert set(pairs) == {f"{first}-{second}" for first in languages for second in languages if first != second}
    assert {scores["num_queries"] for scores in pairs.values()} == {2}


def check_learnt(artifact, references):
    """Examples are those of the corpus; of the weights, the decoder's have moved and the encoder's have not."""
    examples = pq.read_table(artifact / "data/examples.parquet").to_pylist()
    prompter = Prompter(artifact.parents[2] / "model")
    assert sorted((row["direction"], prompter.text(row["target"])) for row in examples) == sorted(references)
    before = load_file(artifact.parents[2] / "model/model.safetensors")
    after = load_file(artifact / "model/model.safetensors")
    moved = {name for name, weights in before.items() if not weights.equal(after[name])}
    assert moved
    assert all(name.startswith("model.decoder.") for name in moved)


def check_translated(artifact, checkpoint):
    """Every direction of the paper, each text beside its reference, by the checkpoint of the other preset."""
    figures = metrics_of(artifact)
    expected = [
        *(f"{code}-zh" for code in ("de", "en", "fr", "ja")),
        *(f"{code}-en" for code in ("de", "fr", "ja", "zh")),
    ]
    assert list(figures["directions"]) == expected
    assert figures["checkpoint"]["name"] == checkpoint
    rows = [row for path in artifact.glob("data/*.parquet") for row in pq.read_table(path).to_pylist()]
    found = {(row["direction"], row["sentence_id"], row["reference"]) for row in rows}
    assert found == {
        (direction, f"fleurs-{k}", text(direction.split("-")[1], k)) for direction in expected for k in SENTENCES
    }


def test_twenty_pairs_of_fleurs(run):
    check_pairs(run("retrieval", "fleurs_large_v2"), FLEURS)


def test_all_pairs_of_mass(run):
    check_pairs(run("retrieval", "mass_large_v2"), ("en", "es", "eu", "fi", "fr", "hu", "ro", "ru"))


FAST = ("--translate.embeddings", "fleurs_large_v2", "--translate.max-tokens", 8)


def test_transfer_from_covost(run):
    artifact = run("finetune", "transfer_large_v2")
    check_learnt(artifact, [("en-zh", text("zh", k)) for k in range(5)])
    check_translated(run("translate", "transfer_test_large_v2", *FAST), "transfer_large_v2")


def test_transfer_from_japanese(run):
    artifact = run("finetune", "ja_zh_large_v2")
    check_learnt(artifact, [("ja-zh", text("zh", k)) for k in SENTENCES])
    check_translated(run("translate", "ja_zh_test_large_v2", *FAST), "ja_zh_large_v2")


def test_unseen_languages_by_four_prompts(run):
    folder = run("translate", "unseen", "--translate.max-tokens", 8).parent
    for prompt in ("auto", "related", "en", "soft"):
        figures = metrics_of(folder / f"unseen-{prompt}")
        assert figures["source_prompt"] == prompt
        directions = figures["directions"]
        # Transcription has the same prompts, and its error rate stands beside BLEU.
        expected = {f"{code}-{target}" for code in UNSEEN for target in ("en", code)} | {"en-en"}
        assert set(directions) == expected
        assert {scores["num"] for scores in directions.values()} == {2}
        assert all("bleu" in directions[f"{code}-en"] for code in UNSEEN)
        assert all("wer" in directions[f"{code}-{code}"] for code in UNSEEN)
