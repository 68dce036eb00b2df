"""Plans the embeddings of a job: which rows of which embed artifact it reads, and which rows must be encoded first.

Embeddings are found by corpus, model and encoding, not by name. Each job names the splits that it needs, and rows that
the artifact lacks are encoded into it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray import corpora
from xlt_ray.corpora.stamps import stamps
from xlt_ray.embed import committed, index, selection
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.embeddings import Embeddings, Work
from xlt_ray.errors import Damaged, TooManyRejected, UserError
from xlt_ray.job.settings import Job, identity
from xlt_ray.models import whisper
from xlt_ray.store import artifacts
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import INDEX, UTTERANCE, versions_of

Indices = npt.NDArray[np.int64]

_RECORDED = ("preset", "root", "name", "corpus", "columns", "languages", "model", "splits")
"""Settings of a job that are recorded in a new artifact; only jobs/embed.py has splits."""


def prepare(
    job: Job,
    config: EmbedConfig,
    splits: Sequence[str],
    *,
    name: str | None = None,
    divide: bool = False,
    parallel: bool = False,
) -> Embeddings:
    """Plan the embeddings that a job reads, and check all user input. Nothing is written.

    Args:
        job: corpus, languages, model, root and name.
        config: the encoding.
        splits: splits that the job needs; none: every row.
        name: a finished embed artifact to read unchanged; None: find it by content, and encode missing rows.
        divide: whether the job trains, so that a corpus without splits is divided.
        parallel: whether every two languages must share a sentence.

    Raises:
        UserError: names the mistake and what to do.
    """
    model_dir = whisper.resolve_model(job.model)
    sha256 = whisper.weights_sha256(model_dir)
    if name is not None:
        artifact, rows = _named(job, name, sha256)
    else:
        _require_layers(job, config, model_dir)
        utterances = corpora.read_splits(
            job.corpus, job.languages, _read_of(splits), corpora.parse_columns(job.columns)
        )
        rows = _as_index(index.collect(utterances, job.languages))
    places = selection.select(rows, splits or (selection.ALL,), divide=divide, num_sentences=config.num_sentences)
    _warn_without_split(rows, splits)
    rows, places = _only(rows, places)
    if parallel:
        for at in places.values():
            index.require_parallel(rows.take(pa.array(at)), job.languages)
    if name is not None:
        return Embeddings(artifact, rows, places, None, _as_made(artifact, config))
    rows = _stamped(rows)
    asked = {"corpus": job.corpus, "model": job.model, "embed": dataclasses.asdict(config)}
    artifact = _find(job, config, sha256, model_dir, rows)
    rows, missing = _compare(artifact, rows, config)
    _require_there(missing, config)
    if artifact.is_complete and not missing.num_rows:
        return Embeddings(artifact, rows, places, None, asked)
    # Every shard of an artifact keeps the same hidden layers, though this job may need fewer.
    config = dataclasses.replace(config, layers=tuple(artifact.identity["layers"]))
    return Embeddings(artifact, rows, places, Work(missing, job.corpus, job.model, config), asked)


def _as_made(artifact: Artifact, config: EmbedConfig) -> dict[str, Any]:
    """The settings of a named artifact; settings that change no frame, such as num_sentences, are the job's own."""
    made = artifact.settings
    encoding = {name: made["embed"][name] for name in identity(config) if name in made["embed"]}
    return {"corpus": made["corpus"], "model": made["model"], "embed": {**dataclasses.asdict(config), **encoding}}


def again(embeddings: Embeddings) -> Embeddings:
    """Plan again after another job has added recordings to the artifact, which need not be encoded any more.

    Raises:
        UserError: if that job has begun the artifact with other settings.
    """
    assert embeddings.work
    planned, work = embeddings.artifact, embeddings.work
    artifact = artifacts.plan(planned.root, "embed", planned.name, planned.identity, planned.settings)
    _, missing = _compare(artifact, work.missing, work.config)
    left = dataclasses.replace(work, missing=missing) if missing.num_rows or not artifact.is_complete else None
    return embeddings.with_work(artifact, left)


def _named(job: Job, name: str, sha256: str) -> tuple[Artifact, pa.Table]:
    artifact = artifacts.find(job.root, "embed", name)
    require_model(artifact, sha256, job.model)
    rows = artifact.table("index.parquet")
    there = pc.unique(rows["language"]).to_pylist()
    if missing := sorted(set(job.languages) - set(there)):
        raise UserError(f"embed artifact {name!r} has no {', '.join(missing)}; --languages can be {','.join(there)}")
    by_language = [rows.filter(pc.equal(rows["language"], code)) for code in job.languages]
    print(f"embeddings: {name} (given by name)")
    return artifact, pa.concat_tables(table.sort_by("utterance_id") for table in by_language)


def require_model(artifact: Artifact, sha256: str, name: str) -> None:
    """Refuse frames of another encoder, and weights tuned from another model.

    Args:
        artifact: of the stage embed, fisher or finetune.
        sha256: hash of the weights of `--model`.
        name: the value of `--model`.

    Raises:
        UserError: naming both models.
    """
    if artifact.identity["model"]["sha256"] != sha256:
        raise UserError(
            f"{artifact.stage} artifact {artifact.name!r} was made with another model than --model {name!r}; give "
            f"that model ({artifact.settings['model']!r}), or another {artifact.stage} artifact"
        )


def _require_layers(job: Job, config: EmbedConfig, model_dir: Path) -> None:
    num_layers = whisper.num_encoder_layers(model_dir)
    if beyond := [layer for layer in config.layers if layer >= num_layers]:
        raise UserError(f"--embed.layers {beyond}: {job.model} has blocks 0 to {num_layers - 1}")


def _read_of(splits: Sequence[str]) -> tuple[str, ...]:
    """The splits to read, each once; none: all."""
    return () if selection.ALL in splits else tuple(dict.fromkeys(splits))


def _as_index(rows: pa.Table) -> pa.Table:
    """Rows of UTTERANCE as rows of INDEX that are not encoded."""
    nulls = {
        name: pa.nulls(rows.num_rows, INDEX.field(name).type)
        for name in ("row", "num_samples", "num_valid", "num_frames", "bytes", "modified")
    }
    new = nulls | {"unit": pa.array([""] * rows.num_rows), "generation": pa.array(np.zeros(rows.num_rows, np.int32))}
    return pa.table([rows[n] if n in UTTERANCE.names else new[n] for n in INDEX.names], schema=INDEX)


def _warn_without_split(rows: pa.Table, splits: Sequence[str]) -> None:
    """Print how many rows belong to no requested split, such as those of a joined corpus that has none."""
    num = rows["split"].null_count
    if num and splits and selection.ALL not in splits and selection.has_splits(rows):
        named = rows["utterance_id"].filter(pc.is_null(rows["split"]))[0].as_py()
        print(
            f"warning: {num} of {rows.num_rows} recordings name no split ({named}...) and are not read, because others "
            "name one; give them a split in the corpus",
            flush=True,
        )


def _only(rows: pa.Table, places: dict[str, Indices]) -> tuple[pa.Table, dict[str, Indices]]:
    """The rows of all selected splits, and the positions of each split among them."""
    union = np.unique(np.concatenate(list(places.values())))
    return rows.take(pa.array(union)), {split: np.searchsorted(union, at) for split, at in places.items()}


def _stamped(rows: pa.Table) -> pa.Table:
    """The rows with size and date of their files; null if a file does not exist."""
    files = rows["audio"].to_pylist()
    found = stamps(files)
    marks = [found.get(file) for file in files]
    sizes = pa.array([mark.size if mark else None for mark in marks], pa.int64())
    dates = pa.array([mark.modified if mark else None for mark in marks], pa.string())
    return _with(_with(rows, "bytes", sizes), "modified", dates)


def _with(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), INDEX.field(name), values)


def _find(job: Job, config: EmbedConfig, sha256: str, model_dir: Path, rows: pa.Table) -> Artifact:
    """The artifact with this corpus, model and encoding: the one with the job's name, else the one with most rows."""
    what = {
        "corpus": corpora.identity(job.corpus),
        "model": {"sha256": sha256},
        "encoding": config.encoding_identity,
        "layers": sorted(config.layers),
    }
    own = Artifact.at(job.root, "embed", job.name)
    if own.is_begun and _serves(own, what):
        return own.planned(own.read_json("config.json"))
    finished = (other for other in artifacts.all_of(job.root, "embed") if other.is_committed)
    if others := [other for other in finished if _serves(other, what)]:
        best = max(others, key=lambda other: _num_shared(other, rows))
        print(f"embeddings: {best.name} (same corpus, model and encoding)")
        return best.planned(best.read_json("config.json"))
    settings = {
        **{key: getattr(job, key) for key in _RECORDED if hasattr(job, key)},
        "num_layers": whisper.num_encoder_layers(model_dir),
        "embed": dataclasses.asdict(config),
    }
    return artifacts.plan(job.root, "embed", job.name, what, settings)


def _serves(artifact: Artifact, what: dict[str, Any]) -> bool:
    """Whether an artifact has the requested frames; more hidden layers do no harm. A damaged one does not count."""
    try:
        there, asked = artifact.identity, {"schema": versions_of("embed"), **what}
    except Damaged:
        return False
    same = all(there.get(key) == asked[key] for key in asked if key != "layers")
    return same and set(there.get("layers", ())) >= set(what["layers"])


def _num_shared(artifact: Artifact, rows: pa.Table) -> int:
    there = committed.read_index(artifact)["utterance_id"].combine_chunks()
    return int(pc.sum(pc.is_in(rows["utterance_id"], there)).as_py() or 0)


def _compare(artifact: Artifact, rows: pa.Table, config: EmbedConfig) -> tuple[pa.Table, pa.Table]:
    """The rows with the data of encoded ones filled in, and the rows that must be encoded.

    A rejected recording is tried again if its file or segment has changed, or if a missing file now exists. An encoded
    recording that has changed is reported, and encoded again if the user asks for it.
    """
    there = committed.read_index(artifact)
    at = pc.index_in(rows["utterance_id"], value_set=there["utterance_id"].combine_chunks())
    old = there.take(at)
    known, encoded = pc.is_valid(at), pc.is_valid(old["row"])
    changed = pc.and_(pc.and_(known, index.sound_differs(rows, old)), pc.is_valid(rows["bytes"]))
    again = changed if config.refresh else pc.and_(changed, pc.invert(encoded))
    if not config.refresh:
        _warn_changed(artifact, rows.filter(pc.and_(changed, encoded)))
    missing = pc.or_(pc.invert(known), again)
    generation = pc.add(pc.fill_null(old["generation"], 0), pc.cast(pc.and_(again, known), pa.int32()))
    kept = {name: pc.if_else(missing, rows[name], old[name]) for name in index.SOUND}
    rows = _with(rows, "generation", generation)
    todo = rows.filter(missing)
    for name, values in kept.items():
        rows = _with(rows, name, values)
    return rows, todo


def _warn_changed(artifact: Artifact, changed: pa.Table) -> None:
    if changed.num_rows:
        names = ", ".join(changed["utterance_id"].slice(0, 3).to_pylist())
        print(
            f"warning: {changed.num_rows} recordings have changed since {artifact.name!r} encoded them ({names}...); "
            "their old frames are read; --embed.refresh encodes them again",
            flush=True,
        )


def _require_there(missing: pa.Table, config: EmbedConfig) -> None:
    """Stop if more files are missing than may be rejected: then the path is wrong, not the rows."""
    gone = missing.filter(pc.is_null(missing["bytes"]))
    if gone.num_rows and gone.num_rows / missing.num_rows > config.max_rejected:
        example = gone["audio"][0].as_py()
        raise TooManyRejected(
            f"{gone.num_rows} of {missing.num_rows} recordings are missing, such as {example}; mount or copy the "
            f"audio, or correct the corpus; the maximum fraction is --embed.max-rejected {config.max_rejected:g}"
        )


def warn_of_loops(embeddings: Embeddings) -> None:
    """Warn if the embeddings keep too little silence for a decoder.

    Of 260 recordings, Whisper base transcribed 10 with endless repetitions if there were 100 frames after the speech,
    and none with 150. With trimmed encoding it needs about 300.
    """
    made_with = embeddings.identity["encoding"]
    is_trimmed = made_with["encoding"] == "trimmed"
    kept = math.inf if made_with["keep_margin"] == "all" else made_with["keep_margin"]
    kept, needed = (min(kept, made_with["context_margin"]), 300) if is_trimmed else (kept, 150)
    if kept < needed:
        flags = "--embed.keep-margin and --embed.context-margin" if is_trimmed else "--embed.keep-margin"
        print(
            f"warning: the embeddings {embeddings.name!r} keep {kept} frames of silence behind the speech; with fewer "
            f"than {needed} the decoder may repeat itself; encode again with {flags} {needed} or more"
        )
