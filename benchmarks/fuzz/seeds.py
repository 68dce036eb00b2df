"""Valid files of every kind that the package reads."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.fuzz.mutations import SECRET

ROOT = Path(__file__).parents[2]
RATE = 16_000
_SOUNDS = {"flac": "FLAC", "mp3": "MP3", "ogg": "OGG", "wav": "WAV", "aiff": "AIFF"}
_FFMPEG = {"webm": ("webm", "libopus", 48_000), "m4a": ("mp4", "aac", 16_000), "aac": ("adts", "aac", 16_000)}


def _tests() -> None:
    """The writers of whole models and artifacts are those of the tests."""
    for name in ("", "report", "models"):
        sys.path.append(str(ROOT / "tests" / name))


def _tone(seconds: float = 0.3) -> np.ndarray:
    return (0.3 * np.sin(np.arange(int(seconds * RATE)) * 0.2)).astype(np.float32)


def write_sounds(folder: Path) -> None:
    """A recording in every common format, and playlists that name others."""
    import av
    import soundfile

    for suffix, kind in _SOUNDS.items():
        soundfile.write(folder / f"a.{suffix}", _tone(), RATE, format=kind)
    for suffix, (container, codec, rate) in _FFMPEG.items():
        with av.open(str(folder / f"a.{suffix}"), "w", format=container) as output:
            stream = output.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray((_tone() * 2**15).astype(np.int16)[None], layout="mono")
            frame.sample_rate = RATE
            for packet in (*stream.encode(frame), *stream.encode(None)):
                output.mux(packet)
    (folder / "a.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile://OUTSIDE/secret.wav\nhttp://TRAP/a.ts\n")
    (folder / "a.txt").write_text("ffconcat version 1.0\nfile OUTSIDE/secret.wav\n")


def write_archives(folder: Path) -> None:
    """Recordings in tar archives and in the rows of Parquet and Arrow files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile

    sound = io.BytesIO()
    soundfile.write(sound, _tone(), RATE, format="FLAC")
    modes: dict[str, Literal["w", "w:gz"]] = {"tar": "w", "tar.gz": "w:gz"}
    for suffix, mode in modes.items():
        with tarfile.open(folder / f"a.{suffix}", mode, format=tarfile.PAX_FORMAT) as archive:
            for name in ("a.flac", "é" * 60 + ".flac", "b.flac"):
                info = tarfile.TarInfo(name)
                info.size = len(sound.getvalue())
                archive.addfile(info, io.BytesIO(sound.getvalue()))
    cells = [{"bytes": sound.getvalue(), "path": "a.flac"}, {"bytes": None, "path": "a.tar"}]
    table = pa.table({"audio": cells, "text": ["one", "two"]})
    pq.write_table(table, folder / "a.parquet")
    with pa.ipc.new_stream(folder / "a.arrow", table.schema) as stream:
        stream.write_table(table)


def write_manifests(folder: Path) -> None:
    """A small corpus, described in every way that its user may write himself."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile

    soundfile.write(folder / "a.wav", _tone(), RATE)
    rows = [
        {"utterance_id": f"{code}{i}", "sentence_id": f"s{i}", "language": code, "audio": "a.wav", "start": 0.1 * i}
        | {"duration": 0.1, "text": f"{code} {i}", "translations": {"de": "eins"}, "speaker": "x", "split": "train"}
        for i in range(2)
        for code in ("en", "fr")
    ]
    cells = [[json.dumps(v) if isinstance(v, dict) else str(v) for v in row.values()] for row in rows]
    for suffix, sign in (("tsv", "\t"), ("csv", ",")):
        lines = [sign.join(rows[0]), *(sign.join(row) for row in cells)]
        if suffix == "csv":
            quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in cells]
            lines = [sign.join(rows[0]), *(sign.join(row) for row in quoted)]
        (folder / f"a.{suffix}").write_text("\n".join(lines) + "\n")
    (folder / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    table = pa.table({name: [row[name] for row in rows] for name in ("audio", "language", "text", "start", "duration")})
    pq.write_table(table, folder / "hf.parquet")
    with pa.ipc.new_stream(folder / "hf.arrow", table.schema) as stream:
        stream.write_table(table)
    line = {"audio_filepath": "a.wav", "duration": 0.3, "source_lang": "en", "target_lang": "de", "answer": "eins"}
    nemo = [line, line | {"source_lang": "fr", "text": "un", "offset": 0.1, "duration": 0.1}]
    (folder / "nemo.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in nemo))
    (folder / "cuts.jsonl").write_text("".join(f"{json.dumps(_cut(code))}\n" for code in ("en", "fr")))


def _cut(code: str) -> dict[str, object]:
    recording = {"id": "a", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "sampling_rate": RATE}
    said = {"id": f"{code}0", "start": 0.0, "duration": 0.2, "text": "one", "language": code, "speaker": "x"}
    said |= {"custom": {"translations": {"de": "eins"}, "sentence_id": "s0"}}
    return {"id": code, "start": 0.0, "type": "MonoCut", "recording": recording, "supervisions": [said]}


def write_whisper(folder: Path) -> None:
    """A tiny Whisper as a Hugging Face directory."""
    _tests()
    from tiny import tiny_whisper

    tiny_whisper(folder)


def write_ctranslate2(folder: Path) -> None:
    """The same as CTranslate2 has it."""
    from ctranslate2.converters import TransformersConverter

    with tempfile.TemporaryDirectory() as original:
        write_whisper(Path(original))
        copied = [name for name in ("tokenizer.json", "preprocessor_config.json") if Path(original, name).exists()]
        TransformersConverter(original, copy_files=copied).convert(str(folder), quantization="int8", force=True)


def write_adapter(folder: Path) -> None:
    """A LoRA adapter, and the model that it is of."""
    _tests()
    from test_adapter import adapt

    write_whisper(folder / "base")
    adapt(folder / "base", folder / "adapter")
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    (folder / "adapter/adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "base"}))


def write_runs(folder: Path) -> None:
    """Finished artifacts of every stage."""
    _tests()
    from searched_runs import write_search, write_study
    from test_clips import write_speech, write_translations
    from test_report import retrieval_metrics, write_artifact, write_plots, write_rankings
    from tuned_runs import SWEEPS, FinetuneConfig, moved, write_baseline, write_finetune, write_translate

    write_translations(folder, write_speech(folder).named)
    metrics = retrieval_metrics()
    write_artifact(folder, "retrieval", "demo", metrics, write_rankings(folder, "demo")[:2])
    write_plots(folder, "demo", metrics)
    baseline = write_baseline(folder)
    for name, settings, kept, gain in (SWEEPS[0], SWEEPS[2]):
        checkpoint = {"name": name, "fingerprint": write_finetune(folder, name, FinetuneConfig(**settings))}
        write_translate(folder, name, baseline, moved(kept, gain), checkpoint)
    write_search(folder)
    write_study(folder)
    pair = {"num_first": 4, "num_second": 3, "num_mined": 1, "margin": {"median": 1.1}, "candidate_recall": {}}
    mined = {"score": "seqsim-f1", "mode": "best_layer", "margin": "ratio", "neighbours": 4, "one_to_one": True}
    mined |= {"threshold": 1.0, "pairs": {"en-fr": pair | {"against_corpus": None}}}
    write_artifact(folder, "mine", "mined", mined, [])


def write_settings(folder: Path) -> None:
    """Settings files of a run, of one's own, and words of a command line."""
    own = "corpus: manifest:a.tsv\nlanguages: [en, fr]\nname: mine\nembed:\n  encoding: trimmed\n  rows_per_shard: 64\n"
    own += "retrieval:\n  split: test\n  mode: best_layer\n"
    settings = {"corpus": "manifest:a.tsv", "languages": ["en", "fr"], "name": "mine", "dry_run": True}
    settings |= {"embed": {"rows_per_shard": 64, "layers": [1, 2]}, "retrieval": {"split": "test"}}
    (folder / "own.yaml").write_text(own.replace("  mode: best_layer\n", ""))
    (folder / "own.json").write_text(json.dumps(settings))
    (folder / "run.json").write_text(json.dumps({"identity": {"schema": 1}, "settings": settings, "command": "x"}))
    words = "--preset plain --corpus manifest:a.tsv --languages en,fr --name mine --embed.rows-per-shard 64"
    (folder / "words.txt").write_text(words.replace(" ", "\n"))


def write_names(folder: Path) -> None:
    """Names that a user gives: of a run, a corpus, a model, languages."""
    for number, name in enumerate(
        ("mine", "manifest:a.tsv", "openai/whisper-base", "en,fr", "s3://bucket/runs", "hf:a/b")
    ):
        (folder / f"{number}.txt").write_text(name)


def write_password(folder: Path) -> None:
    """What stands before the @ of a URI."""
    (folder / "a.txt").write_text(f"me:{SECRET}")


def write_lease(folder: Path) -> None:
    """What a writer of an artifact leaves beside it."""
    about = {"host": "x", "pid": 1, "started": "1", "kernel": "k", "since": "2026-01-01T00:00:00Z", "renewed": 0}
    path = folder / "embed" / "mine" / "writer" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(about | {"works": True}))
