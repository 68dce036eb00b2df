"""Finds problems in a corpus before it is encoded: reads and decodes every recording, and counts.

`check_batch` checks some rows and can run anywhere; `summarise` joins its findings. A problem keeps a recording out of
every result, or makes a result wrong. A note is only for information.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence

import rich.box
import rich.console
import rich.table

from xlt_ray.corpora.audio import MAX_SAMPLES, SAMPLE_RATE, Place
from xlt_ray.corpora.guarded import Sound, sounds
from xlt_ray.corpora.text import composed
from xlt_ray.errors import Unreachable
from xlt_ray.store.schema import Utterance

_BATCH_SIZE = 64

_MAX_RATIO = 5.0
"""Translations have similar durations. A ratio 5 times the usual one means two different sentences."""

_MIN_PAIRS = 3
"""With fewer pairs, the median of their ratios does not show which pair is odd."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The findings for one recording.

    Attributes:
        utterance_id: from the row, as are sentence_id and language.
        rejected: why it cannot be used; None if it can.
        content: hash of its bytes; empty if there are none.
        num_samples: length at 16 kHz; 0 if it cannot be decoded.
        sample_rate: as recorded, in Hz; 0 if it cannot be decoded.
        num_channels: as recorded; 0 if it cannot be decoded.
        is_decomposed: whether its text in the corpus is not in NFC.
    """

    utterance_id: str
    sentence_id: str
    language: str
    rejected: str | None = None
    content: bytes = b""
    num_samples: int = 0
    sample_rate: int = 0
    num_channels: int = 0
    is_decomposed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One kind of problem, or note, in one language or pair of languages.

    Attributes:
        kind: a kind of `xlt_ray.corpora.audio` (`missing`, `truncated`, ...), or one of `too long`, `duplicate id`,
            `duplicate sound`, `one language only`, `odd duration`; as a note `resampled`, `several channels` or
            `decomposed text` (accents as letters of their own, which `corpora.read` composes).
        where: a language, or a pair such as `en-fr`.
        num: number of recordings; for `one language only` of sentences, for `odd duration` of pairs of recordings.
        example: the alphabetically first utterance_id; both ids for a pair and for `duplicate sound`.
        is_note: whether the recordings can still be used.
    """

    kind: str
    where: str
    num: int
    example: str
    is_note: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageTotals:
    """Totals of one language; `seconds` counts only recordings that can be decoded."""

    num_rows: int
    num_sentences: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CorpusCheck:
    """The state of a corpus: totals by language, and problems with an example of each."""

    totals: dict[str, LanguageTotals]
    problems: list[Problem]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found but notes."""
        return all(problem.is_note for problem in self.problems)

    def render(self) -> str:
        """Two tables, as plain text."""
        totals = _table("language", "recordings", "sentences", "minutes")
        for language, total in self.totals.items():
            totals.add_row(language, str(total.num_rows), str(total.num_sentences), f"{total.seconds / 60:.1f}")
        problems = _table("", "kind", "in", "number", "example")
        for problem in self.problems:
            severity = "note" if problem.is_note else "PROBLEM"
            problems.add_row(severity, problem.kind, problem.where, str(problem.num), problem.example)
        output = io.StringIO()
        console = rich.console.Console(file=output, width=140, no_color=True, markup=False, emoji=False)
        console.print(totals, problems if self.problems else "no problems", sep="\n")
        return output.getvalue()


def check(utterances: Iterable[Utterance]) -> CorpusCheck:
    """Read, decode and compare all recordings of a corpus."""
    rows = iter(utterances)
    batches = iter(lambda: list(itertools.islice(rows, _BATCH_SIZE)), [])
    return summarise(itertools.chain.from_iterable(map(check_batch, batches)))


def check_batch(rows: Sequence[Utterance]) -> list[Finding]:
    """The findings for some recordings, in their order; text is checked before normalisation."""
    places = [Place(row.audio, row.member, row.start, row.duration) for row in rows]
    return [_finding(row, sound) for row, sound in zip(rows, sounds(places, examine=True), strict=True)]


def _finding(row: Utterance, sound: Sound) -> Finding:
    problem = sound.problem
    return Finding(
        utterance_id=row.utterance_id,
        sentence_id=row.sentence_id,
        language=row.language,
        rejected=f"missing: {problem.reason}" if isinstance(problem, Unreachable) else str(problem or "") or None,
        content=sound.content,
        num_samples=sound.num_samples,
        sample_rate=sound.rate,
        num_channels=sound.num_channels,
        is_decomposed=composed(row) != row,
    )


def summarise(findings: Iterable[Finding]) -> CorpusCheck:
    """Join the findings of all batches; their order does not matter."""
    found = list(findings)
    places: dict[tuple[bool, str, str], list[str]] = collections.defaultdict(list)
    for is_note, kind, where, example in itertools.chain(_of_each(found), _duplicates(found), _unpaired(found)):
        places[is_note, kind, where].append(example)
    problems = [
        Problem(kind=kind, where=where, num=len(examples), example=min(examples), is_note=is_note)
        for (is_note, kind, where), examples in sorted(places.items())
    ]
    return CorpusCheck(totals=_totals(found), problems=problems)


_Place = tuple[bool, str, str, str]
"""Note or not, kind, where, example."""


def _of_each(found: Sequence[Finding]) -> Iterator[_Place]:
    for finding in found:
        place = finding.language, finding.utterance_id
        if finding.rejected:
            yield False, finding.rejected.partition(":")[0], *place
        if finding.num_samples > MAX_SAMPLES:
            yield False, "too long", *place
        if finding.sample_rate not in (0, SAMPLE_RATE):
            yield True, "resampled", *place
        if finding.num_channels > 1:
            yield True, "several channels", *place
        if finding.is_decomposed:
            yield True, "decomposed text", *place


def _duplicates(found: Sequence[Finding]) -> Iterator[_Place]:
    """Repeated identifiers, and repeated bytes under another identifier; the first of each is left out."""
    first_id: set[str] = set()
    first_content: dict[bytes, str] = {}
    for finding in found:
        if finding.utterance_id in first_id:
            yield False, "duplicate id", finding.language, finding.utterance_id
        first_id.add(finding.utterance_id)
        first = first_content.setdefault(finding.content, finding.utterance_id) if finding.content else None
        if first not in (None, finding.utterance_id):
            yield False, "duplicate sound", finding.language, f"{finding.utterance_id} = {first}"


def _unpaired(found: Sequence[Finding]) -> Iterator[_Place]:
    """Sentences in only one language, and pairs whose ratio of durations is far from that of the corpus."""
    sentences: dict[str, dict[str, list[Finding]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for finding in found:
        sentences[finding.sentence_id][finding.language].append(finding)
    languages = sorted({finding.language for finding in found})
    for versions in sentences.values():
        if len(versions) == 1 < len(languages):
            yield from ((False, "one language only", f.language, f.utterance_id) for [f, *_] in versions.values())
    for a, b in itertools.combinations(languages, 2):
        shared = [(versions[a], versions[b]) for versions in sentences.values() if a in versions and b in versions]
        yield from _odd_durations(f"{a}-{b}", [pair for x, y in shared for pair in itertools.product(x, y)])


def _odd_durations(where: str, pairs: Sequence[tuple[Finding, Finding]]) -> Iterator[_Place]:
    ratios = [(x.num_samples / y.num_samples, x, y) for x, y in pairs if x.num_samples and y.num_samples]
    if len(ratios) < _MIN_PAIRS:
        return
    usual = statistics.median(ratio for ratio, _, _ in ratios)
    for ratio, x, y in ratios:
        if not 1 / _MAX_RATIO <= ratio / usual <= _MAX_RATIO:
            yield False, "odd duration", where, f"{x.utterance_id} and {y.utterance_id}"


def _totals(found: Sequence[Finding]) -> dict[str, LanguageTotals]:
    by_language: dict[str, list[Finding]] = collections.defaultdict(list)
    for finding in found:
        by_language[finding.language].append(finding)
    return {
        language: LanguageTotals(
            num_rows=len(rows),
            num_sentences=len({row.sentence_id for row in rows}),
            seconds=sum(row.num_samples for row in rows) / SAMPLE_RATE,
        )
        for language, rows in sorted(by_language.items())
    }


def _table(*columns: str) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in columns:
        is_number = column in ("recordings", "sentences", "minutes", "number")
        table.add_column(column, justify="right" if is_number else "left")
    return table
