"""The real jobs on miniature speech: every figure is computed a second time, naively, from the shards."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import s3_server
import soundfile
from ray_speech import RATE, row, tone, write_manifest, write_rows
from tiny import tiny_whisper

from xlt_ray.retrieval import rankings
from xlt_ray.store import artifacts, reading, storage

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LANGUAGES = ["en", "fr", "it"]


def run_job(job, *words):
    return subprocess.run(
        [sys.executable, f"jobs/{job}.py", *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    """Root of a finished retrieval job over 3 languages, 9 sentences, strips of 4: units of 2 by 2 strips and less."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest = write_manifest(folder, LANGUAGES, 9)
    root = folder / "runs"
    flags = ["--corpus", f"manifest:{manifest}", "--languages", ",".join(LANGUAGES), "--model", model, "--root", root]
    sizes = ["--embed.rows-per-shard", 2, "--retrieval.strip-utterances", 4, "--embed.num-sentences", 9]
    scores = [*("--retrieval.baselines", "mean_pool", "max_pool", "dtw", "random")]
    scores += [*("--embed.layers", 1, "--retrieval.layers", 1)]
    done = run_job("retrieval", "--name", "tones", *flags, *sizes, *scores)
    assert done.returncode == 0, done.stderr
    return root, done.stdout, [*flags, *sizes, *scores]


def utterances(root, language):
    """(utterance_id, sentence_id, unit frames) of a language, straight from the Parquet files."""
    out = []
    for path in sorted((root / "embed" / "tones" / "data").glob(f"{language}-*.parquet")):
        for line in pq.read_table(path).to_pylist():
            frames = np.frombuffer(line["frames"], np.float16).reshape(line["num_frames"], line["dim"])
            valid = frames[: line["num_valid"]].astype(np.float64)
            out.append(
                (line["utterance_id"], line["sentence_id"], valid / np.linalg.norm(valid, axis=1, keepdims=True))
            )
    return out


def naive_f1(x, y):
    recall = sum(max(float(a @ b) for b in y) for a in x) / len(x)
    precision = sum(max(float(a @ b) for a in x) for b in y) / len(y)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def test_every_figure_equals_a_naive_recomputation(finished):
    root, *_ = finished
    metrics = json.loads((root / "retrieval" / "tones" / "metrics.json").read_text())
    assert set(metrics["pairs"]) == {f"{a}-{b}" for a in LANGUAGES for b in LANGUAGES if a != b}
    for pair, figures in metrics["pairs"].items():
        queries, candidates = (utterances(root, language) for language in pair.split("-"))
        ranks = []
        for _, sentence, x in queries:
            scored = [(naive_f1(x, y), other) for _, other, y in candidates]
            own = max(score for score, other in scored if other == sentence)
            ranks.append(1 + sum(score >= own for score, other in scored if other != sentence))
        assert figures["num_queries"] == figures["num_candidates"] == 9
        assert figures["chance_r1"] == pytest.approx(1 / 9)
        for k in (1, 5, 10):
            assert figures[f"r{k}"] == pytest.approx(np.mean(np.array(ranks) <= k)), pair
        assert figures["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))
        low, high = figures["r1_ci95"]
        assert 0 <= low <= figures["r1"] <= high <= 1


def test_the_ranking_shows_the_top_with_scores(finished):
    root, *_ = finished
    by_id = {identifier: frames for identifier, _, frames in utterances(root, "fr")}
    queries = {identifier: frames for identifier, _, frames in utterances(root, "en")}
    uri = str(root / "retrieval" / "tones" / "data" / "en-fr.parquet")
    table = rankings.with_candidates(rankings.read(uri, "f1", "multi_positive"), uri)
    assert table.num_rows == 9
    for line in table.to_pylist():
        scores = [entry["score"] for entry in line["top"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 9
        for entry in line["top"]:
            naive = naive_f1(queries[line["utterance_id"]], by_id[entry["utterance_id"]])
            assert entry["score"] == pytest.approx(naive, abs=1e-5)
            assert entry["correct"] == (entry["sentence_id"] == line["sentence_id"])


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def test_another_mode_and_protocol_only_summarise_anew(finished):
    """Neither frames nor rankings are touched; the figures are those of a run that asked for them at once."""
    root, _, flags = finished
    shown = ["--retrieval.mode", "recall", "--retrieval.protocol", "one_per_sentence", "--retrieval.top-k", 3]
    before = tree(root)
    again, at_once = (run_job("retrieval", "--name", name, *flags, *shown) for name in ("tones", "at_once"))
    assert again.returncode == at_once.returncode == 0, again.stderr + at_once.stderr
    assert "has new metrics for mode recall, protocol one_per_sentence, top_k 3" in again.stdout
    assert "score pairs" not in again.stdout
    assert "embeddings: tones (same corpus, model and encoding)" in at_once.stdout
    for name, stamp in before.items():
        if not name.startswith("retrieval/tones/rejected"):
            assert tree(root)[name] == stamp, name
    metrics = [json.loads((root / "retrieval" / name / "metrics.json").read_text()) for name in ("tones", "at_once")]
    assert metrics[0] == metrics[1]
    assert (metrics[0]["mode"], metrics[0]["protocol"], metrics[0]["top_k"]) == ("recall", "one_per_sentence", 3)
    refused = run_job("retrieval", "--name", "at_once", *flags, "--retrieval.top-k", 5)
    assert refused.returncode == 2
    assert "--retrieval.top-k 5" in refused.stderr
    assert "keeps 3 candidates a query; score anew under another --name, or delete it" in refused.stderr
    back = run_job("retrieval", "--name", "tones", *flags)
    assert back.returncode == 0, back.stderr


def test_pairs_are_counted_while_a_unit_is_scored(finished):
    """9 x 9 recordings of 3 pairs of languages in 2 layers, by columns of at most 4."""
    _, output, _ = finished
    done = [int(line.split("/")[0].split()[-1]) for line in output.splitlines() if line.startswith("score pairs")]
    assert done[0] == 0
    assert done[-1] == 2 * 3 * 81


def test_the_job_says_where_its_results_are(finished):
    root, output, _ = finished
    assert f"results  {root}/retrieval/tones" in output
    assert "en-fr" in output
    assert "chance" in output
    manifest = json.loads((root / "retrieval/tones/manifest.json").read_text())
    assert manifest["rows_in"] == manifest["rows_out"] == 6 * 9
    assert {path.name for path in (root / "retrieval/tones").iterdir()} == {
        *("config.json", "data", "manifest.json", "metrics.json", "plots", "rejected.parquet")
    }


def test_the_run_is_in_mlflow(finished):
    import mlflow

    root, *_ = finished
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    metrics = json.loads((root / "retrieval/tones/metrics.json").read_text())
    # The newest one: other tests have had the same rankings summarised in other modes.
    run, *_ = client.search_runs([client.get_experiment_by_name("xlt_ray/retrieval").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["retrieval/r1/mean"] == pytest.approx(metrics["mean"]["r1"])
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "retrieval.json")).read_text())
    pairs = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert {row["pair"]: row["r1"] for row in pairs} == {
        pair: pytest.approx(found["r1"]) for pair, found in metrics["pairs"].items()
    }
    (read,) = run.inputs.dataset_inputs
    rows = json.loads((root / "retrieval/tones/config.json").read_text())["identity"]["embeddings"]["rows"]
    (split,) = rows
    assert (read.tags[0].value, read.dataset.digest) == (split, rows[split]["sha256"][:36])
    assert run.data.params["retrieval.mode"] == metrics["mode"]
    assert run.data.params["retrieval.protocol"] == metrics["protocol"]
    manifest = json.loads((root / "retrieval/tones/manifest.json").read_text())
    assert run.data.tags["fingerprint"] == manifest["fingerprint"]


def test_report_is_made_from_the_artifacts(finished):
    root, *_ = finished
    done = run_job("report", "--root", root, "--name", "page")
    assert done.returncode == 0, done.stderr
    page = (root / "report/page/index.html").read_text()
    assert "sentence 3" in page


BAD = {
    "missing": None,
    "empty": b"",
    "non-audio": b"this is no sound " * 500,
}


def test_bad_recordings_are_rejected_with_reasons_and_odd_ones_work(tmp_path, model):
    rows = []
    good = {"stereo": (2, RATE), "slow": (1, 8000), "fast": (1, 48_000)}
    for number, (name, (channels, rate)) in enumerate(good.items()):
        sound = np.stack([tone(number, 0, 1.0, rate)] * channels, axis=1)
        soundfile.write(tmp_path / f"{name}.wav", sound, rate)
    for number, (name, suffix) in enumerate([("flac", "flac"), ("mp3", "mp3"), ("ogg", "ogg")]):
        soundfile.write(tmp_path / f"{name}.{suffix}", tone(number, 0, 1.0), RATE)
    for name, data in BAD.items():
        if data is not None:
            (tmp_path / f"{name}.wav").write_bytes(data)
    whole = (tmp_path / "fast.wav").read_bytes()
    (tmp_path / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", tone(1, 0, 31.0), RATE)
    files = ["stereo.wav", "slow.wav", "fast.wav", "flac.flac", "mp3.mp3", "ogg.ogg", "missing.wav", "empty.wav"]
    files += ["non-audio.wav", "truncated.wav", "silent.wav", "nan.wav", "long.wav"]
    rows = [row("en", number, file) for number, file in enumerate(files)]
    manifest = write_rows(tmp_path, rows)
    flags = ["--corpus", f"manifest:{manifest}", "--languages", "en", "--model", model, "--root", tmp_path / "runs"]
    refused = run_job("embed", "--name", "bad", *flags)
    assert refused.returncode == 3
    assert "1 of 13 recordings are missing" in refused.stderr
    assert not (tmp_path / "runs").exists()
    refused = run_job("embed", "--name", "bad", *flags, "--embed.max-rejected", "0.1")
    assert refused.returncode == 3
    assert "7 of 13 recordings are rejected" in refused.stderr
    assert not (tmp_path / "runs/embed/bad/manifest.json").exists()
    done = run_job("embed", "--name", "bad", *flags, "--embed.max-rejected", "1")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "embed" / "bad"
    kept = pq.read_table(out / "data" / "en-rows-00000.parquet", columns=["utterance_id", "num_valid"]).to_pylist()
    rejected = {
        line["audio"].rsplit("/", 1)[1]: line["reason"] for line in pq.read_table(out / "rejected.parquet").to_pylist()
    }
    assert [line["utterance_id"] for line in kept] == [row["utterance_id"] for row in rows[:6]]
    assert all(abs(line["num_valid"] - 50) <= 4 for line in kept)  # 1 s; mp3 may add a block of silence
    assert set(rejected) == set(files[6:])
    for name, word in {
        "missing": "missing",
        "empty": "empty",
        "silent": "silent",
        "nan": "NaN",
        "long": "too long",
    }.items():
        assert word.lower() in rejected[f"{name}.wav"].lower()
    split = run_job("embed", "--name", "split", "--embed.split-long", *flags, "--embed.max-rejected", "1")
    assert split.returncode == 0, split.stderr
    table = pq.read_table(
        tmp_path / "runs/embed/split/data/en-rows-00000.parquet", columns=["utterance_id", "num_valid"]
    )
    assert dict(zip(*table.to_pydict().values(), strict=True))["en-012"] == pytest.approx(31 * 50, abs=1)


def test_corpus_and_results_in_an_object_store(tmp_path, model):
    """The same job with nothing on this machine but the model: the manifest names its audio relative to itself."""
    write_manifest(tmp_path, ["en", "fr"], 3)
    with s3_server.bucket() as bucket:
        for path in tmp_path.iterdir():
            with storage.locate(bucket)[0].open_output_stream(f"bucket/corpus/{path.name}") as far:
                far.write(path.read_bytes())
        flags = ["--corpus", f"manifest:{bucket}/corpus/manifest.jsonl", "--languages", "en,fr", "--model", model]
        done = run_job("retrieval", "--name", "far", "--root", f"{bucket}/runs", *flags)
        assert done.returncode == 0, done.stderr
        found = artifacts.find(f"{bucket}/runs", "retrieval", "far")
        assert found.read_json("metrics.json")["pairs"]["en-fr"]["num_queries"] == 3
        assert reading.table_of(found.files()[0]).num_rows == 3
    storage._remote_filesystem.cache_clear()
    assert "not tracked" in done.stdout
    assert f"results  {bucket}/runs/retrieval/far" in done.stdout
