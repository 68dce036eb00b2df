"""What `import xlt_ray` offers: names, types, examples, how long it takes."""

import ast
import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import embedded
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_whisper

import xlt_ray
from xlt_ray import open_embeddings, read_corpus
from xlt_ray.embed import plan
from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.errors import RejectedRow, UserError
from xlt_ray.models import whisper

ROOT = Path(__file__).parent.parent


def test_every_name_is_what_its_module_has():
    for name in xlt_ray.__all__:
        found = getattr(xlt_ray, name)
        assert found is getattr(importlib.import_module(found.__module__), name)
        assert found.__doc__
        assert name in dir(xlt_ray)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        xlt_ray.nothing  # noqa: B018
    assert xlt_ray.__all__ == sorted(xlt_ray._MODULES)


def test_types_are_seen_without_an_import():
    """What mypy reads under TYPE_CHECKING is what is imported in the end, each name under its own."""
    tree = ast.parse(Path(xlt_ray.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    names = {alias.name: node.module for node in imports for alias in node.names if alias.name == alias.asname}
    assert names == xlt_ray._MODULES
    assert (ROOT / "xlt_ray/py.typed").is_file()


def test_the_package_is_imported_at_once():
    """In CPU time of a process of its own, the fastest of three: 0.1 s is the promise."""
    code = (
        "import sys, time; start = time.process_time(); import xlt_ray; print(time.process_time() - start);"
        "assert not {'torch', 'ray', 'numpy', 'pyarrow'} & sys.modules.keys()"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) < 0.1


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """corpus.jsonl, a model, and runs/embed/demo of it with a hidden layer."""
    folder = tmp_path_factory.mktemp("place")
    worlds.manifest(folder)
    (folder / "manifest.jsonl").rename(folder / "corpus.jsonl")
    tiny_whisper(folder / "model")
    job = EmbedJob(
        corpus=f"manifest:{folder}/corpus.jsonl",
        languages=("en", "fr"),
        model=str(folder / "model"),
        root=str(folder / "runs"),
        embed=EmbedConfig(layers=(1,), encoding="trimmed", keep_margin=7, rows_per_shard=5),
    )
    embedded.encode(plan.prepare(job, job.embed, ()))
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    resolve = whisper.resolve_model
    monkeypatch.setattr(whisper, "resolve_model", lambda _: resolve(str(place / "model")))
    return place


EXAMPLES = ["", ".corpora.speech", ".embed.opened", ".finetune.ewc"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_say_what_comes_out(module):
    found = doctest.testmod(importlib.import_module(f"xlt_ray{module}"))
    assert found.attempted >= 3
    assert found.failed == 0


def rows_of(place, **wanted):
    """The lines of the manifest with these values."""
    rows = [json.loads(line) for line in (place / "corpus.jsonl").read_text().splitlines()]
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_a_corpus_is_read_by_language_and_split(here):
    for split in ("train", "dev", "test"):
        read = read_corpus("manifest:corpus.jsonl", ["fr", "en"], split)
        expected = [row["utterance_id"] for code in ("fr", "en") for row in rows_of(here, language=code, split=split)]
        assert [row.utterance_id for row in read] == expected
    assert len(read_corpus("manifest:corpus.jsonl", ["en"])) == len(rows_of(here, language="en"))
    with pytest.raises(UserError, match=r"is of split 'exam'; the corpus has dev, test, train"):
        read_corpus("manifest:corpus.jsonl", ["en"], "exam")


def test_sound_is_that_of_the_files(here):
    rows = read_corpus("manifest:corpus.jsonl", ["fr"], "dev")
    for row, waveform in zip(rows, xlt_ray.load_speech(rows), strict=True):
        np.testing.assert_allclose(waveform, soundfile.read(row.audio, dtype="float32")[0], atol=1e-6)


def test_a_recording_that_can_not_be_used_says_why(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    (row,) = read_one(tmp_path, "a.wav")
    with pytest.raises(RejectedRow, match="silent"):
        list(xlt_ray.load_speech([row]))


def read_one(folder, audio):
    line = {"utterance_id": "a", "sentence_id": "a", "language": "en", "audio": audio}
    (folder / "m.jsonl").write_text(json.dumps(line))
    return read_corpus(f"manifest:{folder}/m.jsonl", ["en"])


@pytest.mark.usefixtures("here")
def test_opened_frames_are_what_the_encoder_gives(here):
    """By the encoder itself, recording by recording, and by the bytes in the shards."""
    opened = open_embeddings("runs/embed/demo", ["fr"], "dev")
    encoder = xlt_ray.SpeechEncoder(here / "model", encoding="trimmed", keep_margin=7, layers=[1])
    rows = read_corpus("manifest:corpus.jsonl", ["fr"], "dev")
    assert opened.rows["utterance_id"].to_pylist() == [row.utterance_id for row in rows]
    encoded = encoder.encode(list(xlt_ray.load_speech(rows)))
    for one, speech, whole, hidden in zip(
        encoded, opened.frames(), opened.frames(with_silence=True), opened.frames(1), strict=True
    ):
        np.testing.assert_allclose(speech, one.final[: one.num_valid], atol=2e-2)
        np.testing.assert_allclose(hidden, one.layers[1][: one.num_valid], atol=2e-2)
        assert len(whole) == len(one.final) == one.num_valid + 7
    assert xlt_ray.Frames.of([torch.from_numpy(frames) for frames in opened.frames()]).lengths == tuple(
        one.num_valid for one in encoded
    )


@settings(max_examples=20)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=30))
def test_any_choice_of_rows_is_read_in_its_order(place, chosen):
    """The witness is the shards as pyarrow reads them, by utterance_id."""
    tables = [pq.read_table(file) for file in sorted((place / "runs/embed/demo/data").glob("*.parquet"))]
    stored = {row["utterance_id"]: row for table in tables for row in table.to_pylist()}
    opened = open_embeddings(str(place / "runs/embed/demo"))
    assert len(opened) == len(stored) == 24
    some = opened.take(chosen)
    names = some.rows["utterance_id"].to_pylist()
    assert names == [opened.rows["utterance_id"][place].as_py() for place in chosen]
    for name, frames in zip(names, some.frames(with_silence=True), strict=True):
        assert frames.tobytes() == stored[name]["frames"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: open_embeddings("runs"), "runs is no folder of embeddings; give ROOT/embed/NAME"),
        (lambda: open_embeddings("runs/embed/no"), "no finished embed artifact 'no' .* finished ones: demo"),
        (lambda: open_embeddings("runs/embed/demo", ["en", "de"]), "has no de; languages can be en, fr"),
        (lambda: open_embeddings("runs/embed/demo", split="exam"), "split 'exam'; the corpus has dev, test, train"),
        (lambda: open_embeddings("runs/embed/demo").frames(0), "has no layer 0; it keeps 1"),
    ],
)
def test_a_mistake_says_what_is_there(ask, message):
    with pytest.raises(UserError, match=message) as error:
        ask()
    assert "\n" not in str(error.value)
