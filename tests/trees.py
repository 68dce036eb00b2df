"""Miniature corpora on disk, in exactly the formats of the public ones, with sine waves for speech."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
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


SENTENCES = [
    {
        "en": "The train leaves at nine.",
        "fr": "Le train part à neuf heures.",
        "de": "Der Zug fährt um neun.",
        "zh": "火车九点开。",
    },
    {
        "en": "We are late again.",
        "fr": "Nous sommes encore en retard.",
        "de": "Wir sind wieder spät.",
        "zh": "我们又迟到了。",
    },
    {"en": "Where is the key?", "fr": "Où est la clé ?", "de": "Wo ist der Schlüssel?", "zh": "钥匙在哪里？"},
    {"en": "It rains in May.", "fr": "Il pleut en mai.", "de": "Es regnet im Mai.", "zh": "五月下雨。"},
    {"en": "She reads two books.", "fr": "Elle lit deux livres.", "de": "Sie liest zwei Bücher.", "zh": "她读两本书。"},
    {"en": "The bridge is old.", "fr": "Le pont est vieux.", "de": "Die Brücke ist alt.", "zh": "桥很旧。"},
    {
        "en": "Bread is on the table.",
        "fr": "Le pain est sur la table.",
        "de": "Brot liegt auf dem Tisch.",
        "zh": "面包在桌上。",
    },
    {"en": "Please close the door.", "fr": "Fermez la porte.", "de": "Bitte schließ die Tür.", "zh": "请关门。"},
    {
        "en": "My brother is a doctor.",
        "fr": "Mon frère est médecin.",
        "de": "Mein Bruder ist Arzt.",
        "zh": "我哥哥是医生。",
    },
    {"en": "The river is deep.", "fr": "La rivière est profonde.", "de": "Der Fluss ist tief.", "zh": "河很深。"},
    {
        "en": "They sing every evening.",
        "fr": "Ils chantent chaque soir.",
        "de": "Sie singen jeden Abend.",
        "zh": "他们每晚唱歌。",
    },
    {"en": "Tomorrow is a holiday.", "fr": "Demain est férié.", "de": "Morgen ist Feiertag.", "zh": "明天放假。"},
]
"""What every tree of TREES says, in English, French and German; Chinese is written only."""

SPOKEN = ("en", "fr", "de")
RATE = 16_000


def split_of(number: int) -> str:
    return "train" if number < 6 else "dev" if number < 9 else "test"


def speech_like(language: str, number: int) -> np.ndarray:
    """A voice for ears that do not listen: harmonics of a gliding pitch, in syllables, another for each recording."""
    seconds = 0.8 + 0.1 * (number % 5) + 0.05 * SPOKEN.index(language)
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = 110 + 30 * SPOKEN.index(language) + 3 * number + 10 * np.sin(2 * np.pi * 1.5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(100 * number + SPOKEN.index(language)).normal(scale=0.01, size=len(t))
    return (0.2 * voice * np.abs(np.sin(2 * np.pi * 2 * t)) + noise).clip(-0.9, 0.9).astype(np.float32)


def _wav(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _clips(folder: Path) -> dict[tuple[str, int], str]:
    """A file of each recording; their names, relative to the folder."""
    names = {(code, i): f"clips/{code}-{i:02d}.wav" for code in SPOKEN for i in range(len(SENTENCES))}
    for (code, i), name in names.items():
        _write(folder / name, _wav(speech_like(code, i)))
    return names


def _others(number: int, language: str) -> dict[str, str]:
    return {code: text for code, text in SENTENCES[number].items() if code != language}


def write_mustc(
    root: Path,
    *,
    pairs: Sequence[str] = ("en-fr", "en-de", "en-zh", "fr-en", "fr-de", "fr-zh", "de-en", "de-fr", "de-zh"),
) -> str:
    """`en-fr/data/{train,dev,tst-COMMON}/{txt,wav}`: one talk a split, with half a second between its segments."""
    for pair in pairs:
        for split, name in {"train": "train", "dev": "dev", "test": "tst-COMMON"}.items():
            numbers = [i for i in range(len(SENTENCES)) if split_of(i) == split]
            _write_mustc_split(root / pair / "data" / name, name, pair.split("-"), numbers)
    return f"mustc:{root}"


def _write_mustc_split(folder: Path, name: str, codes: Sequence[str], numbers: Sequence[int]) -> None:
    pause, talk, lines = np.zeros(RATE // 2, np.float32), [], []
    for number in numbers:
        talk.append(pause)
        wave = speech_like(codes[0], number)
        offset, duration = sum(map(len, talk)) / RATE, len(wave) / RATE
        lines.append(
            f"- {{duration: {duration:.6f}, offset: {offset:.6f}, rW: 4, uW: 0, "
            f"speaker_id: spk.1, wav: ted_{name}.wav}}\n"
        )
        talk.append(wave)
    _write(folder / "wav" / f"ted_{name}.wav", _wav(np.concatenate([*talk, pause])))
    _write(folder / "txt" / f"{name}.yaml", "".join(lines).encode())
    for code in codes:
        _write(folder / "txt" / f"{name}.{code}", "".join(SENTENCES[i][code] + "\n" for i in numbers).encode())


def _hf_table(split: str) -> pa.Table:
    keys = [(code, i) for code in SPOKEN for i in range(len(SENTENCES)) if split_of(i) == split]
    columns = {
        "id": [f"{code}_{i}" for code, i in keys],
        "audio": pa.array(
            [{"bytes": _wav(speech_like(code, i)), "path": f"{code}_{i}.wav"} for code, i in keys], AUDIO
        ),
        "sentence": [SENTENCES[i][code] for code, i in keys],
        "locale": [code for code, _ in keys],
        "client_id": [f"speaker {code}" for code, _ in keys],
        "duration": [0.0 for _ in keys],
    }
    translations = {f"translation_{to}": [_others(i, code).get(to) for code, i in keys] for to in SENTENCES[0]}
    return pa.table(columns | translations)


_HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def write_hf_parquet(root: Path) -> str:
    """`data/train-00000-of-00001.parquet`, as the Hub has it; row groups of five rows."""
    (root / "data").mkdir(parents=True)
    for split, name in _HUB_SPLITS.items():
        pq.write_table(_hf_table(split), root / "data" / f"{name}-00000-of-00001.parquet", row_group_size=5)
    return f"hf:{root}"


def write_hf_saved(root: Path) -> str:
    """A dictionary of data sets by `save_to_disk`, each of two Arrow files."""
    import datasets

    audio = datasets.Audio(decode=False)
    sets = {name: datasets.Dataset(_hf_table(split)) for split, name in _HUB_SPLITS.items()}
    saved = datasets.DatasetDict({name: part.cast_column("audio", audio) for name, part in sets.items()})
    saved.save_to_disk(root, num_shards=dict.fromkeys(sets, 2))
    return f"hf:{root}"


def write_nemo(root: Path) -> str:
    """`{train,dev,test}_manifest.json`, a line for each target of each recording, as Canary has them."""
    clips = _clips(root)
    for split in ("train", "dev", "test"):
        lines = []
        for (code, i), name in clips.items():
            if split_of(i) != split:
                continue
            seconds = len(speech_like(code, i)) / RATE
            for target, text in SENTENCES[i].items():
                task = "asr" if target == code else "ast"
                lines.append(
                    {"audio_filepath": name, "offset": 0.0, "duration": seconds, "taskname": task, "pnc": "yes"}
                    | {"source_lang": code, "target_lang": target, "text": text, "speaker": f"speaker {code}"}
                )
        _write(root / f"{split}_manifest.json", _json_lines(lines))
    return f"nemo:{root}"


def write_lhotse(root: Path, *, cuts: bool = True) -> str:
    """`mini_cuts_train.jsonl.gz`, or recordings and supervisions."""
    clips = _clips(root)
    for split in ("train", "dev", "test"):
        recordings, supervisions = [], []
        for (code, i), name in clips.items():
            if split_of(i) != split:
                continue
            num_samples = len(speech_like(code, i))
            source = {"type": "file", "channels": [0], "source": name}
            times = {"num_samples": num_samples, "duration": num_samples / RATE, "sampling_rate": RATE}
            recordings.append({"id": f"rec-{code}-{i}", "sources": [source], "channel_ids": [0]} | times)
            supervisions.append(
                {"id": f"{code}-{i}", "recording_id": f"rec-{code}-{i}", "start": 0.0, "duration": num_samples / RATE}
                | {"channel": 0, "text": SENTENCES[i][code], "language": code, "speaker": f"speaker {code}"}
                | {"custom": {"translations": _others(i, code)}}
            )
        both = list(zip(recordings, supervisions, strict=True))
        made = [
            {"id": f"cut-{s['id']}", "start": 0.0, "duration": s["duration"], "channel": 0, "supervisions": [s]}
            | {"recording": r, "type": "MonoCut"}
            for r, s in both
        ]
        files = {"cuts": made} if cuts else {"recordings": recordings, "supervisions": supervisions}
        for kind, lines in files.items():
            _write(root / f"mini_{kind}_{split}.jsonl.gz", gzip.compress(_json_lines(lines)))
    return f"lhotse:{root}"


def write_csv_manifest(root: Path) -> str:
    """`m.csv`, as a spreadsheet writes it; every second recording is a segment."""
    clips = _clips(root)
    rows = [
        {"utterance_id": f"{code}-{i}", "sentence_id": str(i), "language": code, "audio": name}
        | {"start": 0 if i % 2 else "", "duration": len(speech_like(code, i)) / RATE if i % 2 else ""}
        | {"text": SENTENCES[i][code], "translations": json.dumps(_others(i, code)), "split": split_of(i)}
        | {"speaker": f"speaker {code}"}
        for (code, i), name in clips.items()
    ]
    with open(root / "m.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return f"manifest:{root}/m.csv"


def _json_lines(lines: Sequence[dict[str, object]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


TREES = {
    "mustc": write_mustc,
    "hf parquet": write_hf_parquet,
    "hf saved": write_hf_saved,
    "nemo": write_nemo,
    "lhotse cuts": write_lhotse,
    "lhotse supervisions": lambda root: write_lhotse(root, cuts=False),
    "csv": write_csv_manifest,
}
"""Miniatures of the corpora that a user has: each writes 12 sentences in three languages below a folder that is empty
or not there, 6 train, 3 dev and 3 test, parallel by sentence_id, and returns the value of `--corpus`."""
