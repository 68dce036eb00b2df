"""Miniature corpora of every kind, with splits, two languages or more and translations: what every job can run on."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import soundfile
from ray_speech import RATE, tone

sys.path.append(str(Path(__file__).parent / "corpora"))
from trees import (
    MASS_EDITIONS,
    TREES,
    covost_row,
    fleurs_row,
    write_common_voice,
    write_covost2,
    write_fleurs_parquet,
    write_mass,
)

from xlt_ray.embed.config import EmbedJob
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.mine.config import MineJob
from xlt_ray.report.config import ReportJob
from xlt_ray.retrieval.config import RetrievalJob
from xlt_ray.study.config import StudyJob
from xlt_ray.translate.config import TranslateJob
from xlt_ray.tune.config import TuneJob

FLEURS = {
    **{"en": "en_us", "fr": "fr_fr", "de": "de_de", "zh": "cmn_hans_cn", "ja": "ja_jp", "es": "es_419"},
    **{"kea": "kea_cv", "ast": "ast_es", "ceb": "ceb_ph", "ky": "ky_kg", "ckb": "ckb_iq", "ga": "ga_ie"},
    **{"sw": "sw_ke", "tr": "tr_tr", "vi": "vi_vn"},
}
SPLITS = {"train": 6, "dev": 3, "test": 3}
"""Sentences of each split."""
ASTERISK = ("en", "es", "fr", "it", "ru")


@dataclasses.dataclass(frozen=True)
class World:
    """A corpus and how jobs run on it.

    Attributes:
        spec: as `--corpus`.
        languages: of the jobs.
        learn: a direction to fine-tune on.
        keep: a direction that a search keeps.
        sources: languages that a study compares, into `target`.
        target: of the study.
    """

    spec: str
    languages: tuple[str, ...]
    learn: str
    keep: str
    sources: tuple[str, ...]
    target: str


def text(language: str, sentence: int) -> str:
    words = "uno dos tres quatro cinque seis siete ocho nueve dix once doce".split()
    return f"{language} {words[sentence % 12]} {'一二三四五六七八九十'[sentence % 10]}"


def fleurs(root: Path, languages: tuple[str, ...] = ("en", "fr", "zh")) -> World:
    for split, num in SPLITS.items():
        hub = {"dev": "validation"}.get(split, split)
        first = sum(list(SPLITS.values())[: list(SPLITS).index(split)])
        for number, code in enumerate(languages):
            rows = [fleurs_row(k, number, text(code, k), seconds=0.4) for k in range(first, first + num)]
            write_fleurs_parquet(root, FLEURS[code], hub, rows)
    return World(f"fleurs:{root}", ("en", "fr", "zh"), "en-zh", "fr-en", ("en", "fr"), "zh")


def covost2(root: Path) -> World:
    for split, num in SPLITS.items():
        first = sum(list(SPLITS.values())[: list(SPLITS).index(split)])
        numbers = range(first, first + num)
        english = [covost_row("en", k, text("en", k), text("zh", k), split) for k in numbers]
        write_covost2(root / "en", "en_zh-CN", english, split=split)
        for number, code in enumerate(("fr", "de"), start=1):
            rows = [covost_row(code, 100 * number + k, text(code, k), text("en", k), split) for k in numbers]
            write_covost2(root / code, f"{code}_en", rows, split=split)
    everything = range(sum(SPLITS.values()))
    write_common_voice(root / "en", [covost_row("en", k, text("en", k), "", "") for k in everything])
    for number, code in enumerate(("fr", "de"), start=1):
        write_common_voice(root / code, [covost_row(code, 100 * number + k, text(code, k), "", "") for k in everything])
    return World(f"covost2:{root}", ("en", "fr", "de"), "en-zh", "fr-en", ("fr", "de"), "en")


BOOKS = {"basque": "San_Lucas", "spanish": "San_Lucas", "french": "Luc"}


def mass(root: Path) -> World:
    for language in MASS_EDITIONS:
        verses = {(3, BOOKS.get(language, "Luke"), 15, k): f"{language} {k}" for k in range(1, 31)}
        write_mass(root, language, verses)
    return World(f"mass:{root}", ("en", "es", "fr"), "en-fr", "es-en", ("en", "es"), "fr")


def manifest(
    root: Path, languages: tuple[str, ...] = ("en", "fr"), ending: str = "jsonl", with_splits: bool = True
) -> World:
    """Tones in every language; each row has a text in every other language, and in Chinese."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, language in enumerate(languages):
        sentence = 0
        for split, num in SPLITS.items():
            for _ in range(num if with_splits else 3 * num):
                name = f"{language}-{sentence:03d}.wav"
                soundfile.write(root / name, tone(sentence, number, 0.4 + 0.05 * (sentence % 12)), RATE)
                others = {code: text(code, sentence) for code in (*languages, "zh") if code != language}
                row = {
                    "utterance_id": f"{language}-{sentence:03d}",
                    "sentence_id": f"s{sentence:03d}",
                    "language": language,
                    "audio": name,
                    "text": text(language, sentence),
                    "translations": others,
                }
                rows.append(row | ({"split": split} if with_splits else {}))
                sentence += 1
    path = root / f"manifest.{ending}"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return World(f"manifest:{path}", languages, f"{languages[0]}-zh", f"{languages[1]}-en", languages[:2], "zh")


def tree(name: str) -> Callable[[Path], World]:
    """A corpus of TREES: en, fr and de are spoken, zh is written too."""

    def write(root: Path) -> World:
        return World(TREES[name](root), ("en", "fr", "de"), "en-zh", "fr-en", ("en", "fr"), "zh")

    return write


JOBS = {
    "embed": EmbedJob,
    "retrieval": RetrievalJob,
    "mine": MineJob,
    "finetune": FinetuneJob,
    "translate": TranslateJob,
    "tune": TuneJob,
    "study": StudyJob,
    "report": ReportJob,
}
"""Settings of each job, in the order in which a user runs them."""

KINDS: dict[str, Callable[[Path], World]] = {
    "fleurs": fleurs,
    "covost2": covost2,
    "mass": mass,
    "manifest": manifest,
    **{name: tree(name) for name in TREES},
}
