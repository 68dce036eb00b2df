"""Corpora: each is a function that yields the rows of the languages asked for, without their sound.

All have one signature, `(source, languages, split) -> Iterator[Utterance]`, and yield language by language in the
order of `languages`. `--corpus` names one, with a place where there is a choice: `fleurs`, `manifest:my.jsonl`. Only
`hf` takes a fourth argument, the names of its columns.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence

from xlt_ray import storage
from xlt_ray.corpora import asterisk, covost2, fleurs, hf, hf_files, lhotse, manifest, mass, mustc, nemo
from xlt_ray.corpora.hf import parse_columns as parse_columns
from xlt_ray.corpora.text import composed
from xlt_ray.errors import UserError
from xlt_ray.schema import Utterance

Reader = Callable[..., Iterator[Utterance]]

CORPORA: dict[str, Reader] = {
    "asterisk": asterisk.asterisk,
    "covost2": covost2.covost2,
    "fleurs": fleurs.fleurs,
    "hf": hf.hf,
    "lhotse": lhotse.lhotse,
    "manifest": manifest.manifest,
    "mass": mass.mass,
    "mustc": mustc.mustc,
    "nemo": nemo.nemo,
}
"""Reader of each corpus, by the name that `--corpus` takes."""

_HOME = {
    "asterisk": "",
    "covost2": "hf://datasets/fixie-ai/covost2",
    "fleurs": "hf://datasets/google/fleurs@refs%2Fconvert%2Fparquet",
}
"""Where a corpus lies when no place is given; those not named here lie nowhere but with the user."""

_ATTRIBUTIONS = {
    "asterisk": "Trained on the Asterisk core sounds: voices Allison Smith (en, es), June Wallack (fr), CC-BY-SA-3.0; "
    "Carlo Flora (it), ivrvoice.ru (ru), CC-BY-3.0; Chinese translations by the xlt_ray authors, CC-BY-SA-3.0.",
    "fleurs": "Trained on FLEURS (Conneau et al. 2022), CC-BY-4.0.",
}
"""What the licence of a corpus asks to be said, where it is known."""

_FORMS = ", ".join(
    f"{name}[:PATH]" if name in _HOME else f"{name}:REF" if name == "hf" else f"{name}:PATH" for name in CORPORA
)


def parse(spec: str) -> tuple[Reader, str]:
    """Reader and source of a `--corpus` value; local paths become absolute.

    Raises:
        UserError: no such corpus, or it needs a path and has none.
    """
    name, _, path = spec.partition(":")
    if name not in CORPORA:
        close = difflib.get_close_matches(name, CORPORA, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown corpus {spec!r}; valid are {_FORMS}{hint}")
    if not path and name not in _HOME:
        form = "hf:REF, with a folder, Parquet files or a Hub id" if name == "hf" else f"{name}:PATH"
        raise UserError(f"corpus {spec!r} needs a path: {form}")
    if name == "hf":
        return CORPORA[name], hf_files.place(path)
    return CORPORA[name], storage.absolute(path) if path else _HOME[name]


def attribution(spec: str) -> str | None:
    """What must be said of a model that was trained on a corpus; None where nothing is known."""
    return _ATTRIBUTIONS.get(spec.partition(":")[0])


def fetch(spec: str) -> None:
    """Bring to this machine what the corpus keeps in the user's cache; for all but `asterisk` there is nothing to do.

    Workers on other machines than the driver's call it before they read.
    """
    if spec == "asterisk":
        asterisk.fetch()


def read(
    spec: str, languages: Sequence[str], split: str | None, columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """Rows of a corpus, language by language in the order of `languages`; their text is in NFC.

    Args:
        spec: a `--corpus` value.
        languages: codes in Whisper's spelling; at least one, each once.
        split: a split of the corpus; None for what the corpus does by default.
        columns: for `hf`, our name of a column to its own (`parse_columns`).

    Raises:
        UserError: from `parse`, for `languages`, and, once rows are asked for, from the reader.
    """
    return map(composed, read_as_written(spec, languages, split, columns))


def read_as_written(
    spec: str, languages: Sequence[str], split: str | None, columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """As `read`, with text as it stands in the corpus; for the doctor, who counts what `read` changes."""
    reader, source = parse(spec)
    if not languages or len(set(languages)) < len(languages):
        raise UserError(f"languages are {', '.join(languages) or 'empty'}; name at least one, and each once")
    if reader is hf.hf:
        return hf.hf(source, languages, split, columns)
    if columns:
        raise UserError(f"columns are named for hf: only, not for {spec!r}")
    return reader(source, languages, split)
