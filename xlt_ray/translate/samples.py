"""The best and worst translations of a run, for the report.

Sorted by chrF of each sentence (Popovic 2015), because BLEU of one sentence is mostly 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sacrebleu.metrics.chrf import CHRF

from xlt_ray.languages import Direction

MAX_SAMPLES = 4
"""Number of best and of worst translations shown per run."""
MAX_SCORED = 300
"""Maximum number of texts considered per direction, from the first on."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One translation.

    Attributes:
        text: transcript of the source, if known.
        score: chrF2, 0 to 100.
    """

    direction: str
    utterance_id: str
    text: str | None
    reference: str
    hypothesis: str
    score: float

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        direction = Direction.parse(self.direction)
        return direction.source, direction.target


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Examples of one run, with a maximum number per direction, so that all directions are shown."""

    best: tuple[Sample, ...] = ()
    worst: tuple[Sample, ...] = ()


def read_samples(hypotheses: Mapping[str, pa.Table]) -> Samples:
    """The translations to show of a run.

    Args:
        hypotheses: rows of HYPOTHESIS by direction; transcriptions are ignored.
    """
    scored = [_scored(table) for name, table in hypotheses.items() if _is_translation(name)]
    each = -(-MAX_SAMPLES // len(scored)) if scored else 0
    best = [sample for samples in scored for sample in samples[:each]]
    # No text is among both, however few there are.
    worst = [sample for samples in scored for sample in samples[each:][-each:]]
    return Samples(
        best=tuple(sorted(best, key=lambda sample: -sample.score)[:MAX_SAMPLES]),
        worst=tuple(sorted(worst, key=lambda sample: sample.score)[:MAX_SAMPLES]),
    )


def _is_translation(name: str) -> bool:
    direction = Direction.parse(name)
    return direction.source != direction.target


def _scored(table: pa.Table) -> list[Sample]:
    """The first texts of a direction, best first; with equal scores, longer texts first."""
    metric = CHRF()
    samples = [_sample(row, metric) for row in table.slice(0, MAX_SCORED).to_pylist()]
    return sorted(samples, key=lambda sample: (-sample.score, -len(sample.reference), sample.utterance_id))


def _sample(row: Mapping[str, Any], metric: CHRF) -> Sample:
    score = metric.sentence_score(row["hypothesis"], [row["reference"]]).score
    names = ("direction", "utterance_id", "text", "reference", "hypothesis")
    return Sample(score=float(score), **{name: row[name] for name in names})
