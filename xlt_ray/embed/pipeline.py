"""The embed stage: recordings in, shards of encoder frames out.

    index rows -> decode_unit (CPU tasks) -> EncodeUnit (actors, on GPUs if there are any) -> one shard per unit

One row of Ray Data is one unit of work from end to end. `unit` has the code that processes it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import ray.exceptions

from xlt_ray import corpora
from xlt_ray.corpora.guarded import DecoderEnded
from xlt_ray.embed import committed, cost, index, plan, results
from xlt_ray.embed.embeddings import Embeddings, Work
from xlt_ray.embed.unit import MOST_LOSSES, PART, EncodeUnit, WorkersLost, decode_unit
from xlt_ray.errors import Damaged, Unreachable
from xlt_ray.job import cluster, pools, progress, resume
from xlt_ray.job.tracking import track
from xlt_ray.models.size import model_size
from xlt_ray.store import reading
from xlt_ray.store.artifact import Artifact, Overtaken
from xlt_ray.store.schema import INDEX, to_ipc

_BEGUN = "begun.parquet"


def embed(embeddings: Embeddings) -> Artifact:
    """Encode missing recordings and commit the artifact; does nothing if none is missing. Needs a running Ray.

    Raises:
        UserError: if a node does not see the artifact, the model or the audio.
        TooManyRejected: if more recordings can't be used than the user allows; finished shards are kept.
        Unreachable: if audio that existed when the job started can't be read.
        WorkersLost, DecoderEnded: if the decoding processes are killed again and again.
    """
    embeddings = begun(embeddings)
    artifact, work = embeddings.artifact, embeddings.work
    if work is None:
        print(f"embed: {artifact.uri} has all {embeddings.all_rows.num_rows} recordings, nothing to encode")
        return artifact
    cluster.require_shared(artifact.path("config.json"))
    cluster.require_shared_model(work.model)
    resume.drop_damaged(artifact)
    _require_audio(work)
    names = {"corpus": work.corpus, "model": work.model}
    with track(artifact.root, "embed", artifact.name, artifact.identity, names) as tracker:
        started = time.monotonic()
        cut = _encode_missing(artifact, work)
        metrics = _commit(artifact, work, cut, time.monotonic() - started)
        results.log(tracker, metrics, artifact, time.monotonic() - started)
    return artifact


def begun(embeddings: Embeddings) -> Embeddings:
    """Take the artifact for writing, if there is work. Recordings that another job has encoded meanwhile are not work.

    Raises:
        UserError: as `Artifact.begin`.
    """
    while embeddings.work:
        try:
            embeddings.artifact.begin()
            break
        except Overtaken:
            embeddings = plan.again(embeddings)
    return embeddings


def _require_audio(work: Work) -> None:
    """Refuse local audio that a node does not see: its rows would be rejected for no fault of their own."""
    there = work.missing.filter(pc.is_valid(work.missing["bytes"]))["audio"]
    if there.length() and not corpora.is_fetched(work.corpus):
        cluster.require_shared(there[0].as_py(), "copy the audio to all nodes, or give a corpus in a shared place")


def _encode_missing(artifact: Artifact, work: Work) -> index.Cut:
    """Write the shard of every unit without one. Returns the units of this run."""
    cut = _cut(artifact, work)
    done = artifact.done()
    left = {unit: rows for unit, rows in cut.units.items() if unit not in done}
    num_left = sum(rows.num_rows for rows in left.values())
    if num_left < cut.rows.num_rows:
        print(f"embed: {cut.rows.num_rows - num_left} of {cut.rows.num_rows} recordings are done, resuming")
    if left:
        encoded = _encoded(artifact, work, left)
        with progress.Bar("embed", total=cut.rows.num_rows, done=cut.rows.num_rows - num_left) as bar:
            try:
                for row in encoded.iter_rows():
                    bar.advance(row["num_rows"])
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, Unreachable | WorkersLost | DecoderEnded):
                    raise error.cause from None
                raise
    return cut


def _cut(artifact: Artifact, work: Work) -> index.Cut:
    """The units of this run, including those of an interrupted run. They are stored before any is encoded."""
    taken = committed.units(artifact)
    _drop_halves(artifact, taken)
    begun = _begun(artifact, taken)
    for unit in index.changed(work.missing, begun) - taken:
        # Where too many were rejected, nothing was committed: what was mended since must not be rejected again.
        artifact.remove_file(f"data/{unit}.parquet")
    # Settings of the run that began the artifact, so that a resumed run has the same units.
    rows_per_shard = artifact.settings["embed"]["rows_per_shard"]
    cut = index.cut(work.missing, begun, artifact.done(), taken, rows_per_shard)
    artifact.write_table(_BEGUN, cut.rows)
    committed.keep(artifact)
    return cut


def _drop_halves(artifact: Artifact, taken: set[str]) -> None:
    """Delete shards without their part of the index, so that their units are encoded again.

    Args:
        artifact: of the run.
        taken: committed units, which need no part.
    """
    there = artifact.done()  # first: a unit that an actor of an earlier run still finishes gets its part before it
    for unit in there - artifact.done("parts") - taken:
        artifact.remove_file(f"data/{unit}.parquet")


def _begun(artifact: Artifact, taken: set[str]) -> pa.Table:
    """Rows of INDEX as an interrupted run divided them; if a crash lost them, the rows of its finished units."""
    if artifact.has(_BEGUN):
        try:
            return reading.table_of(artifact.path(_BEGUN))
        except Damaged:
            artifact.discard({_BEGUN: "is damaged"})
    return _read_parts(artifact, sorted(artifact.done() - taken)).select(INDEX.names)


def _encoded(artifact: Artifact, work: Work, units: dict[str, pa.Table]) -> ray.data.Dataset:
    """Rows with the number of recordings encoded, as they are encoded; a unit's rows end when its shard is written."""
    needed = functools.partial(cost.encoding_memory, model_size(work.model), work.config)
    pool = pools.pool("embed", work.config.num_gpus, work.config.max_actors, len(units), needed)
    rows = ({"unit": unit, "table": to_ipc(table)} for unit, table in units.items())
    decode = {"corpus": work.corpus, "split_long": work.config.split_long}
    encode = {"artifact": artifact, "model": work.model, "config": work.config, "device": pool.device}
    decoded = pools.one_by_one(rows).map(
        decode_unit, fn_kwargs=decode, num_cpus=pool.feed_cpus, max_retries=MOST_LOSSES
    )
    return pools.stream(decoded, EncodeUnit, encode, pool.overlapping)


def _commit(artifact: Artifact, work: Work, cut: index.Cut, seconds: float) -> dict[str, Any]:
    """Add the units of this run to the artifact, and commit it. Returns its metrics.

    Raises:
        TooManyRejected: if, with this run, more recordings are rejected than the user allows.
    """
    parts = _read_parts(artifact, list(cut.units))
    there, taken = committed.read_index(artifact), committed.units(artifact)
    results.require_few_rejected(parts, there, work.config.max_rejected)
    table, rejected = results.joined(there, results.read_rejected(artifact, there), parts)
    del parts  # the table has a copy: 84 MB of 289,000 rows
    metrics = results.summarise(table, rejected)
    counts = table.group_by("unit").aggregate([("row", "count")])  # of a unit's rows, those that are not rejected
    units = dict(zip(counts["unit"].to_pylist(), counts["row_count"].to_pylist(), strict=True))
    made_with = artifact.settings
    inputs = {
        "corpus": {"name": work.corpus, "num_rows": table.num_rows, "sha256": index.sha256(table)},
        "model": {"name": work.model, **artifact.identity["model"], "num_layers": made_with["num_layers"]},
    }
    # Until the manifest is there, the artifact is not whole: nothing is computed between.
    artifact.write_table("index.parquet", table)
    artifact.write_table("rejected.parquet", rejected)
    artifact.write_json("metrics.json", metrics)
    artifact.commit(
        units=units,
        num_rows_in=table.num_rows,
        inputs=inputs,
        seconds=seconds,
        others=["index.parquet"],
        working=["parts", _BEGUN, committed.FOLDER],
    )
    if not there.num_rows:  # the index was lost, so nobody knows any more what is in the shards before
        for unit in taken - units.keys():
            artifact.remove_file(f"data/{unit}.parquet")
    return metrics


def _read_parts(artifact: Artifact, units: Sequence[str]) -> pa.Table:
    files = (artifact.path("parts", f"{unit}.parquet") for unit in units)
    return pa.concat_tables([PART.empty_table(), *(reading.table_of(file) for file in files)])
