"""The real mining job on tones that are not parallel: every figure is computed again, naively, from the shards."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from ray_speech import RATE, row, tone, write_rows
from tiny import tiny_whisper

sys.path.append(str(Path(__file__).parents[1] / "mine"))
import naive_mining
import whole_matrix

from xlt_ray.corpora.manifest import manifest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

NUM, CANDIDATES, NEIGHBOURS, POOL = 12, 3, 2, 5


def run_job(job, *words):
    return subprocess.run(
        [sys.executable, f"jobs/{job}.py", *map(str, words)], capture_output=True, text=True, check=False
    )


def write_corpus(folder):
    """Of 12 sentences, each language lacks half of those that the other has."""
    rows = []
    for number, (code, left_out) in enumerate({"en": 0, "fr": 2}.items()):
        for sentence in range(NUM):
            if sentence % 4 != left_out:
                name = f"{code}-{sentence:03d}.wav"
                soundfile.write(folder / name, tone(sentence, number, 0.4 + 0.1 * (sentence % 12)), RATE)
                rows.append(row(code, sentence, name))
    return write_rows(folder, rows)


def utterances(root, language):
    """Utterance_ids, sentence_ids and frames of a language, straight from the Parquet files."""
    out = []
    for path in sorted((root / "embed/tones/data").glob(f"{language}-*.parquet")):
        for line in pq.read_table(path).to_pylist():
            frames = np.frombuffer(line["frames"], np.float16).reshape(line["num_frames"], line["dim"])
            out.append((line["utterance_id"], line["sentence_id"], frames[: line["num_valid"]].astype(np.float64)))
    return list(zip(*sorted(out, key=lambda line: line[0]), strict=True))


def pooled(frames):
    unit = whole_matrix.unit(frames)
    return np.array([unit[start : start + POOL].mean(axis=0) for start in range(0, len(unit), POOL)])


def test_what_is_mined_is_what_whole_matrices_say(tmp_path):
    corpus, model = write_corpus(tmp_path), tiny_whisper(tmp_path / "model")
    root = tmp_path / "runs"
    flags = ["--corpus", f"manifest:{corpus}", "--languages", "en,fr", "--model", model, "--root", root]
    sizes = ["--embed.rows-per-shard", 4, "--mine.strip-utterances", 2, "--mine.sample", 5]
    mine = ["--mine.candidates", CANDIDATES, "--mine.neighbours", NEIGHBOURS, "--mine.pool-frames", POOL]
    done = run_job("mine", "--name", "tones", *flags, *sizes, *mine)
    assert done.returncode == 0, done.stderr
    assert f"results  {root}/mine/tones" in done.stdout
    (names, sentences, frames), (others, said, theirs) = (utterances(root, code) for code in ("en", "fr"))
    exact = whole_matrix.matrix(whole_matrix.f1, frames, theirs)
    coarse = whole_matrix.matrix(whole_matrix.f1, [pooled(part) for part in frames], [pooled(part) for part in theirs])
    there, back = naive_mining.neighbours(coarse, CANDIDATES)
    wanted = np.array([[j in there[i] or i in back[j] for j in range(len(others))] for i in range(len(names))])
    assert not wanted.all()
    expected = naive_mining.pairs(np.where(wanted, exact, np.nan), NEIGHBOURS)

    found = pq.read_table(root / "mine/tones/data/en-fr.parquet").to_pylist()
    assert [(line["first"], line["second"]) for line in found] == [(names[i], others[j]) for i, j in sorted(expected)]
    for line, key in zip(found, sorted(expected), strict=True):
        score, ratio, distance, found_by = expected[key]
        assert (line["score"], line["ratio"], line["distance"]) == pytest.approx((score, ratio, distance), abs=1e-5)
        assert line["found_by"] == found_by
    taken = naive_mining.chosen(expected, "ratio", True, None, None)
    mined = pq.read_table(root / "mine/tones/mined/en-fr.parquet").to_pylist()
    assert [(line["first"], line["second"]) for line in mined] == [(names[i], others[j]) for i, j in taken]
    metrics = json.loads((root / "mine/tones/metrics.json").read_text())
    figures = metrics["pairs"]["en-fr"]
    assert (figures["num_first"], figures["num_second"]) == (9, 9)
    assert (figures["num_found"], figures["num_mined"]) == (len(expected), len(taken))
    shared = set(sentences) & set(said)
    assert len(shared) == 6
    naive = naive_mining.figures(taken, (sentences, said), shared)
    assert tuple(figures["against_corpus"][key] for key in ("precision", "recall", "f1")) == pytest.approx(naive)
    assert {recall["num_sampled"] for recall in figures["candidate_recall"].values()} == {5}

    rows = {line.utterance_id: line for line in manifest(str(root / "mine/tones/mined.tsv"), ["en", "fr"], None)}
    assert set(rows) == {names[i] for i, _ in taken} | {others[j] for _, j in taken}
    for i, j in taken:
        assert rows[names[i]].sentence_id == rows[others[j]].sentence_id
        assert rows[names[i]].translations == {"fr": rows[others[j]].text}

    before = (root / "mine/tones/data/en-fr.parquet").stat().st_mtime_ns
    again = run_job("mine", "--name", "tones", *flags, *sizes, *mine, "--mine.margin", "absolute", "--mine.top-n", 3)
    assert again.returncode == 0, again.stderr
    assert "has new pairs for margin absolute, one_to_one True, threshold None, top_n 3" in again.stdout
    assert (root / "mine/tones/data/en-fr.parquet").stat().st_mtime_ns == before
    mined = pq.read_table(root / "mine/tones/mined/en-fr.parquet").to_pylist()
    best = naive_mining.chosen(expected, "absolute", True, None, 3)
    assert [(line["first"], line["second"]) for line in mined] == [(names[i], others[j]) for i, j in best]
    assert {path.name for path in (root / "mine/tones").iterdir()} == {
        *("config.json", "data", "manifest.json", "metrics.json", "mined", "mined.tsv", "recall", "rejected.parquet")
    }

    recall = root / "mine/tones/recall/en-fr.json"
    measured = recall.read_bytes()
    recall.write_bytes(bytes(len(measured)))  # as a crash leaves it
    mended = run_job("mine", "--name", "tones", *flags, *sizes, *mine, "--mine.margin", "distance")
    assert mended.returncode == 0, mended.stderr
    assert recall.read_bytes() == measured
    assert pq.read_table(root / "mine/tones/data/en-fr.parquet").to_pylist() == found
    page = run_job("report", "--root", root, "--name", "page")
    assert page.returncode == 0, page.stderr
    assert "pairs of recordings" in (root / "report/page/index.html").read_text()
