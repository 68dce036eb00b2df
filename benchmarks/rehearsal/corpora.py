"""Imitations of public corpora in their real layouts, with as many rows: real clips of 0.3 to 1 s under many names.

The clips are cut from the demo's speech. A clip stands under up to a thousand names, as hard links, so that 400,000
recordings take the space of some hundreds.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from xlt_ray import corpora
from xlt_ray.corpora import audio
from xlt_ray.errors import RejectedRow

RATE = 16_000
NUM_CLIPS = 400

FLEURS = {"en": "en_us", "fr": "fr_fr", "de": "de_de", "zh": "cmn_hans_cn", "ja": "ja_jp"}
FLEURS_ROWS = {"train": (3000, 1509), "dev": (330, 150), "test": (763, 350)}
"""Recordings and sentences of a language (arXiv 2205.12446)."""

COVOST_ROWS = {"train": 289_000, "dev": 15_500, "test": 15_500}
"""English clips with a Chinese text (arXiv 2007.10310)."""

MASS = {
    "basque": "EUSEABN1DA",
    "english": "ENGESVN1DA",
    "finnish": "FIN38VN1DA",
    "french": "FRNTLSN2DA",
    "hungarian": "HUNHBSN1DA",
    "romanian": "RONDCVN1DA",
    "russian": "RUSS76N2DA",
    "spanish": "SPNBDAN1DA",
}
MASS_ROWS = 8130
"""Verses in each language (arXiv 1907.12895); 271 in each of 30 chapters here."""


def cut_clips(folder: Path, suffix: str) -> list[Path]:
    """The clips as files, each at most a second long; cut once."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = sorted(folder.glob(f"*.{suffix}"))
    if len(clips) == NUM_CLIPS:
        return clips
    rng = np.random.default_rng(0)
    for number, sound in enumerate(itertools.islice(_speech(), NUM_CLIPS)):
        length = int(rng.uniform(0.3, 1.0) * RATE)
        start = max(0, (len(sound) - length) // 2)
        soundfile.write(folder / f"{number:04d}.{suffix}", sound[start : start + length], RATE)
    return sorted(folder.glob(f"*.{suffix}"))


def _speech() -> Iterator[npt.NDArray[np.float32]]:
    """Recordings of the demo's corpus, over and over."""
    rows = list(corpora.read("asterisk", ["en", "fr", "es", "it", "ru"], None))
    for row in itertools.cycle(rows):
        (data,) = audio.read_recordings([audio.Place(row.audio, row.member)])
        assert not isinstance(data, RejectedRow)
        yield audio.decode(data, row.audio)


def _text(language: str, sentence: int) -> str:
    words = ("uno dos tres quatro".split(), "一 二 三 四".split())[language in ("zh", "ja")]
    return " ".join(words[(sentence >> shift) % 4] for shift in (0, 2, 4)) + f" {language} {sentence}"


def write_fleurs(root: Path, clips: list[Path], scale: float) -> None:
    """`{config}/{split}.tsv` and `{config}/audio/{split}/`, as the original archive is unpacked."""
    for code, config in FLEURS.items():
        for split, (num_rows, num_sentences) in FLEURS_ROWS.items():
            folder = root / config / "audio" / split
            folder.mkdir(parents=True)
            sentences = max(2, round(num_sentences * scale))
            with open(root / config / f"{split}.tsv", "w", encoding="utf-8", newline="\n") as tsv:
                for row in range(max(sentences, round(num_rows * scale))):
                    sentence, name = row % sentences, f"{10**16 + row}.wav"
                    text = _text(code, sentence)
                    print(sentence, name, text, text.lower(), "", 16000, "FEMALE", sep="\t", file=tsv)
                    os.link(clips[(row * 7 + sentence) % len(clips)], folder / name)


def write_covost2(root: Path, clips: list[Path], scale: float) -> None:
    """`en/covost_v2.en_zh-CN.{split}.tsv` as CoVoST's script makes it, and `en/clips/`."""
    folder = root / "en" / "clips"
    folder.mkdir(parents=True)
    number = 0
    for split, num_rows in COVOST_ROWS.items():
        with open(root / "en" / f"covost_v2.en_zh-CN.{split}.tsv", "w", encoding="utf-8", newline="\n") as tsv:
            print("path", "sentence", "translation", "client_id", sep="\t", file=tsv)
            for _ in range(round(num_rows * scale)):
                name = f"common_voice_en_{number}.mp3"
                print(name, _text("en", number), _text("zh", number), f"speaker{number % 999}", sep="\t", file=tsv)
                os.link(clips[number % len(clips)], folder / name)
                number += 1


def write_mass(root: Path, clips: list[Path], scale: float) -> None:
    """`{language}/txt/B..verse_N.txt` and `{language}/wav/`."""
    per_chapter = max(1, round(MASS_ROWS / 30 * scale))
    for language, edition in MASS.items():
        book = {"basque": "San_Mateo", "spanish": "San_Mateo", "french": "Matthieu"}.get(language, "Matthew")
        for folder in ("txt", "wav"):
            (root / language / folder).mkdir(parents=True)
        for chapter, verse in itertools.product(range(1, 31), range(1, per_chapter + 1)):
            stem = f"B01___{chapter:02d}_{book:_<12}{edition}_verse_{verse}"
            (root / language / "txt" / f"{stem}.txt").write_text(f"{language} {chapter} {verse}\n", encoding="utf-8")
            os.link(clips[(chapter * 300 + verse) % len(clips)], root / language / "wav" / f"{stem}.wav")
