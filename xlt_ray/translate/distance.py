"""BLEU into en of languages without a Whisper token, by distance to the nearest language with one.

The distances are those of `xlt_ray.languages`, from features of grammar and sound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlt_ray import metrics
from xlt_ray.charts.scatter import Dot, scatter
from xlt_ray.languages import LANGUAGES, Direction, Distance, Language, by_distance, language_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Unseen:
    """A language without a token in some runs.

    Attributes:
        nearest: the typologically nearest language with a token.
        bleu: BLEU into en in each run; None if the run does not have it.
    """

    language: Language
    distance: Distance
    nearest: Language
    bleu: tuple[float | None, ...]


def unseen_languages(runs: Sequence[Figures]) -> list[Unseen]:
    """The languages without a token in some runs, sorted by distance to a language with one.

    Args:
        runs: content of metrics.json of translate runs.
    """
    found = by_distance(name for figures in runs for name in _translated(figures))
    return [_unseen(name, distance, runs) for name, distance in found.items()]


def has_unseen(figures: Figures) -> bool:
    """Whether a run translates a language without a token into en."""
    return bool(by_distance(_translated(figures)))


def _translated(figures: Figures) -> Iterable[str]:
    return [name for name, scores in figures["directions"].items() if "measure" not in scores]


def _unseen(name: str, distance: Distance, runs: Sequence[Figures]) -> Unseen:
    scores = [figures["directions"].get(name) for figures in runs]
    return Unseen(
        language=LANGUAGES[language_of(Direction.parse(name).source)],
        distance=distance,
        nearest=LANGUAGES[distance.nearest],
        bleu=tuple(score and score["bleu"] for score in scores),
    )


def distance_correlation(figures: Figures) -> float | None:
    """Spearman's rank correlation of distance and BLEU over the languages without a token; None for fewer than 3."""
    found = by_distance(_translated(figures))
    bleu = [figures["directions"][name]["bleu"] for name in found]
    return metrics.rank_correlation([nearest.distance for nearest in found.values()], bleu) if len(bleu) > 2 else None


def distance_scatter(figures: Figures) -> Figure:
    """BLEU into en (y) of a run against the distance (x): a dot per language, with its 95% interval as a line.

    Args:
        figures: of a run with such a language.
    """
    found = by_distance(_translated(figures))
    dots = [_dot(name, distance.distance, figures["directions"][name]) for name, distance in found.items()]
    return scatter(dots, "distance to the nearest language with a token", "BLEU", from_zero=True)


def _dot(name: str, distance: float, scores: Figures) -> Dot:
    title = _title(name, distance, scores)
    source = Direction.parse(name).source
    return Dot(x=distance, y=scores["bleu"], interval=scores["bleu_ci95"], title=title, label=source)


def _title(name: str, distance: float, scores: Figures) -> str:
    low, high = scores["bleu_ci95"]
    return f"{name}: distance {distance:.3f}; BLEU {scores['bleu']:.2f}, 95% interval {low:.1f} to {high:.1f}"
