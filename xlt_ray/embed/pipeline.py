"""The embed stage: recordings in, shards of encoder frames out.

    index rows -> decode_unit (CPU tasks) -> EncodeUnit (actors, on GPUs where there are any) -> one shard a unit

One row of Ray Data is one unit of work from end to end. The actor that encodes a unit writes its shard, so frames
never cross the object store (up to 1.5 MB a recording with Whisper base, 3.8 MB with large) or reach the driver.
Beside each shard it writes the unit's rows of the index, so that nothing has to open a shard to know what is in it.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import ray.exceptions

from xlt_ray import corpora
from xlt_ray.corpora import audio, guarded, places
from xlt_ray.corpora.guarded import DecoderEnded, Sound
from xlt_ray.embed import cost, index, plan, results
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.plan import Embeddings, Work
from xlt_ray.errors import Damaged, RejectedRow, Unreachable
from xlt_ray.job import cluster, pools, progress, resume
from xlt_ray.job.tracking import track
from xlt_ray.models import whisper
from xlt_ray.models.size import model_size
from xlt_ray.store import artifacts, shards, workers
from xlt_ray.store.artifacts import Artifact, Overtaken
from xlt_ray.store.schema import INDEX, embedding_schema, from_ipc, layer_column, to_ipc

if TYPE_CHECKING:
    from xlt_ray.embed.encoder import Encoded, FrameArray, Waveform

REASON = pa.field("reason", pa.string())
DECODED = INDEX.append(pa.field("pcm", pa.large_binary())).append(REASON)
"""An index row with its sound (float32, 16 kHz mono), or the reason why there is none."""
PART = INDEX.append(REASON)
"""An index row of a unit that is encoded; `reason` says why a rejected one has no frames."""

_BEGUN = "begun.parquet"

_MOST_LOSSES = 4
"""How many workers may die while they decode the same unit. Ray's default is to retry forever, without a message."""


class WorkersLost(RuntimeError):  # noqa: N818 - what happened
    """The workers that decode a unit died, again and again."""


def embed(embeddings: Embeddings) -> Artifact:
    """Encode what is missing and commit the artifact; nothing is done if nothing is missing. Needs a running Ray.

    Raises:
        UserError: if some node does not see the artifact or the audio.
        TooManyRejected: if more recordings can't be used than the user allows; what is encoded stays.
        Unreachable: if audio that was there when the job started can't be read.
        WorkersLost, DecoderEnded: if what decodes is ended again and again.
    """
    embeddings = begun(embeddings)
    artifact, work = embeddings.artifact, embeddings.work
    if work is None:
        print(f"embed: {artifact.uri} has all {embeddings.all_rows.num_rows} recordings, nothing to encode")
        return artifact
    cluster.require_shared(artifact.path("config.json"))
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
    """Take the artifact for writing, if there is work; what another job has encoded since the plan is no work.

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
    """Refuse local audio that some node does not see: its rows would be lost for what they are not."""
    there = work.missing.filter(pc.is_valid(work.missing["bytes"]))["audio"]
    if there.length() and not corpora.is_fetched(work.corpus):
        cluster.require_shared(there[0].as_py(), "copy the audio to all nodes, or give a corpus in a shared place")


def _encode_missing(artifact: Artifact, work: Work) -> index.Cut:
    """Write the shard of every unit that has none; the units of this run."""
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
    """The units of this run, those of an interrupted run among them; written down before any is encoded."""
    taken = plan.committed_units(artifact)
    _drop_halves(artifact, taken)
    begun = _begun(artifact, taken)
    for unit in index.changed(work.missing, begun) - taken:
        # Where too many were rejected, nothing was committed: what was mended since must not be rejected again.
        artifact.remove_file(f"data/{unit}.parquet")
    # Settings of the run that began the artifact, so that a resumed run has the same units.
    rows_per_shard = artifact.settings["embed"]["rows_per_shard"]
    cut = index.cut(work.missing, begun, artifact.done(), taken, rows_per_shard)
    artifact.write_table(_BEGUN, cut.rows)
    plan.keep_committed(artifact)
    return cut


def _drop_halves(artifact: Artifact, taken: set[str]) -> None:
    """Delete the shards of which no part of the index is there, so that their units are encoded again.

    Args:
        artifact: of the run.
        taken: committed units; they need no part.
    """
    there = artifact.done()  # first: a unit that an actor of an earlier run still finishes gets its part before it
    for unit in there - artifact.done("parts") - taken:
        artifact.remove_file(f"data/{unit}.parquet")


def _begun(artifact: Artifact, taken: set[str]) -> pa.Table:
    """Rows of INDEX as an interrupted run has cut them; where a crash took them, those of the units that are done."""
    if artifact.has(_BEGUN):
        try:
            return artifacts.read_table(artifact.path(_BEGUN))
        except Damaged:
            artifact.discard({_BEGUN: "is damaged"})
    return _read_parts(artifact, sorted(artifact.done() - taken)).select(INDEX.names)


def _encoded(artifact: Artifact, work: Work, units: dict[str, pa.Table]) -> ray.data.Dataset:
    """Rows with a number of recordings, as they are encoded; a unit's rows end when its shard is written."""
    needed = functools.partial(cost.encoding_memory, model_size(work.model), work.config)
    pool = pools.pool("embed", work.config.num_gpus, work.config.max_actors, len(units), needed)
    rows = ({"unit": unit, "table": to_ipc(table)} for unit, table in units.items())
    decode = {"corpus": work.corpus, "split_long": work.config.split_long}
    encode = {"artifact": artifact, "model": work.model, "config": work.config, "device": pool.device}
    decoded = pools.one_by_one(rows).map(
        decode_unit, fn_kwargs=decode, num_cpus=pool.feed_cpus, max_retries=_MOST_LOSSES
    )
    return pools.stream(decoded, EncodeUnit, encode, pool.overlapping)


def decode_unit(unit: dict[str, Any], corpus: str, split_long: bool) -> dict[str, Any]:
    """Read and decode the recordings of one unit: a table of INDEX in, one of DECODED out."""
    require_few_losses(unit["unit"])
    corpora.fetch(corpus)
    return {"unit": unit["unit"], "table": to_ipc(decode(from_ipc(unit["table"]), split_long))}


def require_few_losses(unit: str) -> None:
    """Give up a unit whose workers die; what Ray raises after the last retry does not say which unit it was.

    Raises:
        WorkersLost: this task has been tried often enough.
    """
    if ray.is_initialized() and _attempt() >= _MOST_LOSSES:
        raise WorkersLost(
            f"unit {unit} could not be decoded: {_MOST_LOSSES} workers died on it, or their nodes did; if memory ran "
            "out, give nodes more; the same command resumes"
        )


def _attempt() -> int:
    """How often this task was begun before. Ray has no public way to ask; its version is pinned."""
    return int(ray._private.worker.global_worker.core_worker.get_current_task_attempt_number())


def decode(rows: pa.Table, split_long: bool) -> pa.Table:
    """Rows of INDEX in, rows of DECODED out, none lost: each with its sound, or the reason why there is none.

    A row without `bytes` was not there when the job started; it is not looked for again.

    Raises:
        Unreachable: a file that was there cannot be read from here.
    """
    wanted = audio.places_of(rows)
    there = pc.is_valid(rows["bytes"]).to_pylist()
    found = guarded.sounds([place for place, is_there in zip(wanted, there, strict=True) if is_there])
    decoded = [
        _pcm(next(found), split_long) if is_there else (None, _why_missing(place.audio))
        for place, is_there in zip(wanted, there, strict=True)
    ]
    next(found, None)  # to the end, where the process that decodes is kept for the next unit
    sounds, reasons = zip(*decoded, strict=True)
    columns = [*rows.columns, pa.array(sounds, pa.large_binary()), pa.array(reasons, pa.string())]
    return pa.table(columns, schema=DECODED)


def _pcm(sound: Sound, split_long: bool) -> tuple[bytes | None, str | None]:
    if isinstance(sound.problem, Unreachable):
        raise sound.problem
    if sound.problem:
        return None, str(sound.problem)
    if sound.num_samples > audio.MAX_SAMPLES and not split_long:
        seconds = sound.num_samples / audio.SAMPLE_RATE
        return None, f"too long: {seconds:.1f} s, more than 30 s (see --embed.split-long)"
    return sound.pcm, None


def _why_missing(place: str) -> str:
    """What is at a place where no file was when the job started; it may be something else, such as a pipe."""
    try:
        places.find(place)
    except RejectedRow as reason:
        return str(reason)
    except Unreachable:
        pass
    return f"missing: no file {place}"


class EncodeUnit:
    """An actor that holds the encoder: units of DECODED rows in, a shard of each on disk, rows of counts out."""

    def __init__(self, artifact: Artifact, model: str, config: EmbedConfig, device: str) -> None:
        # Imported here: the driver and the tasks that decode need no torch (3 s and 200 MB).
        import torch

        from xlt_ray.embed.encoder import SpeechEncoder

        # One thread an actor: with both cores shared, two threads ran 10 to 20 times slower than two actors.
        torch.set_num_threads(1)
        workers.note(artifact.uri, device)
        self._artifact, self._config, self._turn = artifact, config, threading.Lock()
        self._schema = embedding_schema(config.layers)
        self._encoder = SpeechEncoder(
            whisper.resolve_model(model),
            encoding=config.encoding,
            context_margin=config.context_margin,
            keep_margin=None if config.keep_margin == "all" else config.keep_margin,
            layers=config.layers,
            device=device,
        )

    def __call__(self, units: pa.Table) -> Iterator[pa.Table]:
        """Encode the unit in a batch of one, and tell of recordings as they are encoded.

        Its part of the index is written, then its shard: then it is done.
        """
        (unit,) = units["unit"].to_pylist()
        rows = from_ipc(units["table"][0].as_buffer())
        is_good = pc.is_null(rows["reason"])
        good = rows.filter(is_good)
        sounds = [np.frombuffer(pcm.as_buffer(), np.float32) for pcm in good["pcm"]]
        pieces = [audio.split_long(sound) for sound in sounds]
        encoded: dict[int, Encoded] = {}
        with self._turn:  # one unit at a time is on the device, while another one may be read or written
            for batch, num_rows in self._batches(pieces):
                encoded |= batch
                yield pa.table({"num_rows": [num_rows]})
        shard = self._shard(good, sounds, _joined(pieces, encoded))
        del encoded, pieces, sounds  # the shard has a copy, and is copied once more as it is written
        self._artifact.write_table(f"parts/{unit}.parquet", _part(rows, is_good, shard))
        # Frames do not compress (0.92 at best, for 4 to 10 times the time), and a dictionary of them is never hit.
        # One row a row group, so that training can read one recording of a shard without the others.
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "row_group_size": 1}
        self._artifact.write_table(f"data/{unit}.parquet", shard, **options)
        if num_rejected := rows.num_rows - good.num_rows:
            yield pa.table({"num_rows": [num_rejected]})

    def _batches(self, pieces: Sequence[Sequence[Waveform]]) -> Iterator[tuple[dict[int, Encoded], int]]:
        """What is encoded of all pieces, batch by batch, and how many recordings are whole with it."""
        owners = [row for row, parts in enumerate(pieces) for _ in parts]
        left = Counter(owners)
        for batch in self._encoder.batches([piece for parts in pieces for piece in parts]):
            left.subtract(owners[place] for place in batch)
            whole = {owners[place] for place in batch if not left[owners[place]]}
            yield batch, len(whole)

    def _shard(self, rows: pa.Table, sounds: Sequence[Waveform], joined: Sequence[Encoded]) -> pa.Table:
        counts = {
            "num_samples": [len(sound) for sound in sounds],
            "num_valid": [frames.num_valid for frames in joined],
            "num_frames": [len(frames.final) for frames in joined],
            "dim": [frames.final.shape[1] for frames in joined],
            "frames": shards.as_bytes([frames.final for frames in joined]),
        }
        layers = {
            layer_column(k): shards.as_bytes([frames.layers[k] for frames in joined]) for k in self._config.layers
        }
        new = counts | layers
        columns = [new[field.name] if field.name in new else rows[field.name] for field in self._schema]
        return pa.table(columns, schema=self._schema)


def _part(rows: pa.Table, is_good: pa.Array, shard: pa.Table) -> pa.Table:
    """The unit's rows of PART: those in the shard with their row and lengths, the others with their reason."""
    at = pc.if_else(is_good, pc.subtract(pc.cumulative_sum(pc.cast(is_good, pa.int32())), 1), None)
    new = {name: shard[name].take(at) for name in ("num_samples", "num_valid", "num_frames")} | {"row": at}
    columns = [new.get(field.name, rows[field.name]).cast(field.type) for field in PART]
    return pa.table(columns, schema=PART)


def _joined(pieces: Sequence[Sequence[Waveform]], encoded: Mapping[int, Encoded]) -> list[Encoded]:
    """The frames of each recording, from those of all pieces by their place."""
    places = itertools.count()
    return [_join([encoded[next(places)] for _ in parts]) for parts in pieces]


def _join(pieces: list[Encoded]) -> Encoded:
    """The frames of a recording from those of its pieces; only the last piece keeps the silence behind it."""
    if len(pieces) == 1:
        return pieces[0]
    from xlt_ray.embed.encoder import Encoded

    *heads, last = pieces
    layers = {
        k: _concatenate([(piece.layers[k], piece.num_valid) for piece in heads], last.layers[k]) for k in last.layers
    }
    final = _concatenate([(piece.final, piece.num_valid) for piece in heads], last.final)
    return Encoded(final, sum(piece.num_valid for piece in pieces), layers)


def _concatenate(heads: list[tuple[FrameArray, int]], last: FrameArray) -> FrameArray:
    return np.concatenate([*(frames[:num_valid] for frames, num_valid in heads), last])


def _commit(artifact: Artifact, work: Work, cut: index.Cut, seconds: float) -> dict[str, Any]:
    """Join the units of this run to what the artifact has, and commit it; its metrics.

    Raises:
        TooManyRejected: if more of all recordings are rejected with this run than the user allows.
    """
    parts = _read_parts(artifact, list(cut.units))
    there, taken = plan.read_index(artifact), plan.committed_units(artifact)
    results.require_few_rejected(parts, there, work.config.max_rejected)
    table, rejected = results.joined(there, results.read_rejected(artifact, there), parts)
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
        working=["parts", _BEGUN, plan.COMMITTED],
    )
    if not there.num_rows:  # the index was lost, so nobody knows any more what is in the shards before
        for unit in taken - units.keys():
            artifact.remove_file(f"data/{unit}.parquet")
    return metrics


def _read_parts(artifact: Artifact, units: Sequence[str]) -> pa.Table:
    files = (artifact.path("parts", f"{unit}.parquet") for unit in units)
    return pa.concat_tables([PART.empty_table(), *(artifacts.read_table(file) for file in files)])
