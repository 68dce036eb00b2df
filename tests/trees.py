"""Miniature corpora on disk, in exactly the formats of the public ones, with sine waves for speech."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from xlt_ray.store.schema import Utterance


def sine_wave(seconds: float, *, rate: int = 16_000, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound_bytes(
    seconds: float, *, rate: int = 16_000, frequency: float = 440.0, format: str = "WAV", subtype: str | None = None
) -> bytes:
    """A sound file with a sine wave; WAV has 32-bit float samples, as in FLEURS, unless `subtype` says otherwise."""
    file = io.BytesIO()
    wave = sine_wave(seconds, rate=rate, frequency=frequency)
    soundfile.write(file, wave, rate, format=format, subtype=subtype or {"WAV": "FLOAT"}.get(format))
    return _without_time(file.getvalue())


def _without_time(sound: bytes) -> bytes:
    """Without the time of writing, which float WAV holds (PEAK: name, size, version, time): same wave, same bytes."""
    start = sound.find(b"PEAK", 0, 100)
    return sound if start < 0 else sound[: start + 12] + bytes(4) + sound[start + 16 :]


def recording_bytes(utterance: Utterance) -> bytes:
    """The sound file that `audio` and `member` lead to, found with nothing of xlt_ray; local files only."""
    if utterance.audio.endswith(".parquet"):
        return pq.read_table(utterance.audio)["audio"][int(utterance.member)]["bytes"].as_py()
    if utterance.audio.endswith(".tar.gz"):
        with tarfile.open(utterance.audio) as archive:
            return archive.extractfile(utterance.member).read()
    assert utterance.member == ""
    return Path(utterance.audio).read_bytes()


@dataclasses.dataclass(frozen=True)
class FleursRow:
    id: int
    file: str
    raw: str
    sound: bytes

    @property
    def normalised(self) -> str:
        return "".join(character for character in self.raw.lower() if character.isalnum() or character == " ")


def fleurs_row(id: int, recording: int, raw: str, *, seconds: float = 0.1) -> FleursRow:
    """The `recording`-th recording of a sentence; each has a frequency of its own."""
    sound = sound_bytes(seconds, frequency=200 + 10 * id + recording)
    return FleursRow(id, f"{10**16 + 1000 * id + recording}.wav", raw, sound)


def write_fleurs_parquet(
    root: Path, config: str, split: str, rows: Sequence[FleursRow], *, shards: int = 1, flat: bool = False
) -> list[Path]:
    """`{config}/{split}/0000.parquet`, or the older `{config}/fleurs-{split}.parquet` where `flat`."""
    parts = [rows[len(rows) * i // shards : len(rows) * (i + 1) // shards] for i in range(shards)]
    paths = []
    for i, part in enumerate(parts):
        name = f"fleurs-{split}" + (f"-{i:05d}-of-{shards:05d}" if shards > 1 else "")
        path = root / config / (f"{name}.parquet" if flat else f"{split}/{i:04d}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_fleurs_table(part, config), path, compression="none")
        paths.append(path)
    return paths


def _fleurs_table(rows: Sequence[FleursRow], config: str) -> pa.Table:
    columns = {
        "id": pa.array([row.id for row in rows], pa.int32()),
        "num_samples": pa.array([1600 for _ in rows], pa.int32()),
        "path": pa.array([f"/cache/downloads/extracted/0a1b2c/test/{row.file}" for row in rows]),
        "audio": pa.array([{"bytes": row.sound, "path": f"test/{row.file}"} for row in rows], AUDIO),
        "transcription": pa.array([row.normalised for row in rows]),
        "raw_transcription": pa.array([row.raw for row in rows]),
        "gender": pa.array([1 for _ in rows], pa.int64()),
        "lang_id": pa.array([19 for _ in rows], pa.int64()),
        "language": pa.array([config for _ in rows]),
        "lang_group_id": pa.array([0 for _ in rows], pa.int64()),
    }
    return pa.table(columns)


AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The Arrow type of the Hub's audio columns."""


def write_fleurs_original(
    root: Path, config: str, split: str, rows: Sequence[FleursRow], *, archive: bool = True, extracted: bool = False
) -> None:
    """`{config}/{split}.tsv` with `audio/{split}.tar.gz`, `audio/{split}/` or both; on the Hub all is below `data/`."""
    audio = root / config / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    with open(root / config / f"{split}.tsv", "w", encoding="utf-8", newline="\n") as tsv:
        for row in rows:
            characters = " ".join(row.normalised.replace(" ", "|")) + " |"
            print(row.id, row.file, row.raw, row.normalised, characters, 1600, "FEMALE", sep="\t", file=tsv)
    if archive:
        with tarfile.open(audio / f"{split}.tar.gz", "w:gz") as tar:
            for row in reversed(rows):  # the archive has an order of its own
                member = tarfile.TarInfo(f"{split}/{row.file}")
                member.size = len(row.sound)
                tar.addfile(member, io.BytesIO(row.sound))
    if extracted:
        (audio / split).mkdir()
        for row in rows:
            (audio / split / row.file).write_bytes(row.sound)


@dataclasses.dataclass(frozen=True)
class CovostRow:
    """One clip; `sentence` and `translation` are written as they are, quotation marks and backslashes included."""

    path: str
    sentence: str
    translation: str
    split: str = "test"
    speaker: str = "4b5e7f"
    sound: bytes = b""


def covost_row(language: str, number: int, sentence: str, translation: str, split: str = "test") -> CovostRow:
    sound = sound_bytes(0.1, rate=48_000, frequency=200 + 10 * number, format="MP3")
    return CovostRow(
        f"common_voice_{language}_{number}.mp3", sentence, translation, split, f"speaker{number % 3}", sound
    )


def write_common_voice(folder: Path, rows: Sequence[CovostRow], *, clips: bool = True) -> None:
    """`validated.tsv` of Common Voice 4 and `clips/`."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    columns = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accent")
    lines = [(row.speaker, row.path, row.sentence, "2", "0", "", "", "") for row in rows]
    _write_tsv(folder / "validated.tsv", [columns, *lines])
    if clips:
        for row in rows:
            (folder / "clips" / row.path).write_bytes(row.sound)


def write_covost2(folder: Path, pair: str, rows: Sequence[CovostRow], *, split: str | None = None) -> Path:
    """`covost_v2.{pair}.tsv` as published, or `covost_v2.{pair}.{split}.tsv` as CoVoST's script makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    if split is None:
        path = folder / f"covost_v2.{pair}.tsv"
        lines = [(row.path, row.translation, row.split) for row in rows]
        _write_tsv(path, [("path", "translation", "split"), *lines])
    else:
        path = folder / f"covost_v2.{pair}.{split}.tsv"
        lines = [(row.path, row.sentence, row.translation, row.speaker) for row in rows]
        _write_tsv(path, [("path", "sentence", "translation", "client_id"), *lines])
    return path


def write_covost2_parquet(root: Path, pair: str, hub_split: str, rows: Sequence[CovostRow]) -> list[Path]:
    """Two shards `{pair}/{hub_split}/0000.parquet` and `0001.parquet`."""
    folder = root / pair / hub_split
    folder.mkdir(parents=True, exist_ok=True)
    half = (len(rows) + 1) // 2
    paths = [folder / "0000.parquet", folder / "0001.parquet"]
    for path, part in zip(paths, (rows[:half], rows[half:]), strict=True):
        columns = {
            "client_id": pa.array([row.speaker for row in part], pa.string()),
            "file": pa.array([f"/cache/clips/{row.path}" for row in part], pa.string()),
            "audio": pa.array([{"bytes": row.sound, "path": row.path} for row in part], AUDIO),
            "sentence": pa.array([row.sentence for row in part], pa.string()),
            "translation": pa.array([row.translation for row in part], pa.string()),
            "id": pa.array([row.path.removesuffix(".mp3") for row in part], pa.string()),
        }
        pq.write_table(pa.table(columns), path, compression="none")
    return paths


def _write_tsv(path: Path, lines: Sequence[Sequence[str]]) -> None:
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8", newline="\n")


MASS_EDITIONS = {
    "basque": "EUSEABN1DA",
    "english": "ENGESVN1DA",
    "finnish": "FIN38VN1DA",
    "french": "FRNTLSN2DA",
    "hungarian": "HUNHBSN1DA",
    "romanian": "RONDCVN1DA",
    "russian": "RUSS76N2DA",
    "spanish": "SPNBDAN1DA",
}


def write_mass(
    root: Path,
    language: str,
    verses: dict[tuple[int, str, int, int], str],
    *,
    text_folder: str = "txt",
    sound_folder: str | None = "wav",
    sound_ending: str = ".wav",
) -> list[str]:
    """`{language}/txt/B27___22_Revelation__ENGESVN1DA_verse_9.txt`, and sound unless `sound_folder` is None.

    Args:
        root: `dataset/`.
        language: name of the language's directory.
        verses: texts by (number of the book in this edition, its name there, chapter, verse).
        text_folder: below the language's directory; "" for itself.
        sound_folder: likewise.
        sound_ending: `.wav`, `_one_channel.wav`, `.mp3` or `.flac`.

    Returns:
        The stems of the text files.
    """
    stems = []
    for (number, book, chapter, verse), text in verses.items():
        stem = f"B{number:02d}___{chapter:02d}_{book:_<12}{MASS_EDITIONS[language]}_verse_{verse}"
        _write(root / language / text_folder / f"{stem}.txt", f"{text}\n".encode())
        if sound_folder is not None:
            container = {".flac": "FLAC", ".mp3": "MP3"}.get(sound_ending, "WAV")
            sound = sound_bytes(0.1, frequency=200 + 10 * verse + number, format=container)
            _write(root / language / sound_folder / f"{stem}{sound_ending}", sound)
        stems.append(stem)
    return stems


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
