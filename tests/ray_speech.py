"""Miniature speech for tests: tones that differ by sentence, in the formats that users have."""

import json
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def tone(sentence: int, language: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """A chord of the sentence, coloured by the language; float32 mono."""
    time = np.arange(int(seconds * rate)) / rate
    pitches = 150 * (1 + sentence % 7) + 40 * np.arange(1, 4) * (1 + sentence // 7)
    chord = sum(np.sin(2 * np.pi * pitch * time * (1 + 0.02 * language)) for pitch in pitches)
    return (0.2 * chord / len(pitches)).astype(np.float32)


def write_manifest(folder: Path, languages: list[str], num_sentences: int, suffix: str = "wav") -> Path:
    """A corpus of tones, 0.4 to 1.5 s each; the path of its manifest.jsonl."""
    rows = []
    for number, language in enumerate(languages):
        for sentence in range(num_sentences):
            name = f"{language}-{sentence:03d}.{suffix}"
            soundfile.write(folder / name, tone(sentence, number, 0.4 + 0.1 * (sentence % 12)), RATE)
            rows.append(row(language, sentence, name))
    return write_rows(folder, rows)


def row(language: str, sentence: int, audio: str) -> dict[str, str]:
    """A row of a manifest."""
    return {
        "utterance_id": f"{language}-{sentence:03d}",
        "sentence_id": f"s{sentence:03d}",
        "language": language,
        "audio": audio,
        "text": f"sentence {sentence}",
    }


def write_rows(folder: Path, rows: list[dict[str, str]]) -> Path:
    """A manifest.jsonl of the rows."""
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
