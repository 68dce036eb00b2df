"""Published sizes of public corpora, to estimate the cost of a run without the corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from xlt_ray.corpora import covost2, fleurs, mass
from xlt_ray.corpora.tables import canonical_split, check_languages
from xlt_ray.errors import UserError
from xlt_ray.languages import Direction

ALL = "all"


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """The size of one language in one split of a public corpus, as published."""

    num_recordings: int
    num_sentences: int
    mean_seconds: float


PUBLISHED: dict[tuple[str, str], Published] = {
    # FLEURS: 10 hours of training a language, 12 in all (data set card, arXiv 2205.12446); 77,809 test recordings in
    # 102 languages; 1509, 150 and 350 sentences. A recording is 12 s long by the sizes of the Hub's files.
    ("fleurs", "train"): Published(3000, 1509, 12.0),
    ("fleurs", "dev"): Published(330, 150, 12.0),
    ("fleurs", "test"): Published(763, 350, 12.0),
    # CoVoST 2, English into 15 languages (arXiv 2007.10310, table 2): 430 hours of training.
    ("covost2", "train"): Published(289_000, 289_000, 5.4),
    ("covost2", "dev"): Published(15_500, 15_500, 5.4),
    ("covost2", "test"): Published(15_500, 15_500, 5.4),
    # MaSS (arXiv 1907.12895): 8160 verses stand in all eight languages, about 20 hours each.
    ("mass", ALL): Published(8160, 8160, 8.8),
}
"""Corpora with known sizes, by name and split: any language of FLEURS and MaSS, English of CoVoST 2."""


_LANGUAGES = {"fleurs": fleurs.CODES.values(), "covost2": covost2.TARGETS, "mass": mass.FOLDERS}


def is_known(corpus: str, languages: Sequence[str]) -> bool:
    """Whether the size of these languages is published, for a corpus without a path.

    Raises:
        UserError: for a language that the corpus does not have.
    """
    if corpus not in _LANGUAGES:
        return False
    check_languages(corpus, languages, set(_LANGUAGES[corpus]))
    return corpus != "covost2" or tuple(languages) == ("en",)


def splits_of(corpus: str) -> tuple[str, ...]:
    """The splits of a corpus whose sizes are published."""
    return tuple(split for name, split in PUBLISHED if name == corpus)


SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""How a corpus without splits is divided if a job trains."""


def find(corpus: str, split: str, *, divide: bool = False) -> Published:
    """The published size of a language in a split.

    Args:
        corpus: name of the corpus.
        split: name of the split, or ALL.
        divide: whether to divide a corpus without splits; otherwise each of its splits is the whole corpus.

    Raises:
        UserError: for a split that the corpus does not have.
    """
    if (corpus, ALL) in PUBLISHED:
        whole = PUBLISHED[corpus, ALL]
        share = SHARES[canonical_split(split)] if divide and split != ALL else 1.0
        return Published(round(share * whole.num_recordings), round(share * whole.num_sentences), whole.mean_seconds)
    if split == ALL:
        sizes = [PUBLISHED[corpus, part] for part in splits_of(corpus)]
        return Published(
            sum(size.num_recordings for size in sizes), sum(size.num_sentences for size in sizes), sizes[0].mean_seconds
        )
    return PUBLISHED[corpus, canonical_split(split)]


def require_texts(corpus: str, languages: Sequence[str], directions: Iterable[Direction]) -> None:
    """Refuse a direction if a public corpus read in these languages has no text in its target language."""
    for direction in directions:
        known = covost2.TARGETS[direction.source] if corpus == "covost2" else languages
        if direction.target not in (*known, direction.source):
            raise UserError(
                f"direction {direction}: {corpus} has no {direction.target} text for --languages "
                f"{','.join(languages)}, only {', '.join(known)}; add the language, or choose another direction"
            )
