"""Processes one unit of work: a task decodes its recordings, then an actor encodes them and writes the shard.

Frames never pass through the object store (up to 1.5 MB per recording with Whisper base, 3.8 MB with large) or reach
the driver. With each shard, the actor writes the unit's rows of the index, so nobody has to open a shard to know its
recordings.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from xlt_ray import corpora
from xlt_ray.corpora import audio, guarded, places
from xlt_ray.corpora.guarded import Sound
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import RejectedRow, Unreachable
from xlt_ray.models import whisper
from xlt_ray.store import shards, workers
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import INDEX, embedding_schema, from_ipc, layer_column, to_ipc

if TYPE_CHECKING:
    from xlt_ray.embed.encoder import Encoded, FrameArray, Waveform

REASON = pa.field("reason", pa.string())
DECODED = INDEX.append(pa.field("pcm", pa.large_binary())).append(REASON)
"""An index row with its audio (float32, 16 kHz mono), or the reason why there is none."""
PART = INDEX.append(REASON)
"""An index row of an encoded unit; `reason` says why a rejected row has no frames."""

MOST_LOSSES = 4
"""How many workers may die while decoding the same unit. By default Ray retries forever, without a message."""


class WorkersLost(RuntimeError):  # noqa: N818 - what happened
    """The workers that decode a unit died, again and again."""


def decode_unit(unit: dict[str, Any], corpus: str, split_long: bool) -> dict[str, Any]:
    """Read and decode the recordings of one unit: a table of INDEX in, one of DECODED out."""
    require_few_losses(unit["unit"])
    corpora.fetch(corpus)
    return {"unit": unit["unit"], "table": to_ipc(decode(from_ipc(unit["table"]), split_long))}


def require_few_losses(unit: str) -> None:
    """Give up a unit whose workers die again and again. Ray's own error after the last retry does not name the unit.

    Raises:
        WorkersLost: if this task was tried too often.
    """
    if ray.is_initialized() and _attempt() >= MOST_LOSSES:
        raise WorkersLost(
            f"unit {unit} could not be decoded: {MOST_LOSSES} workers died on it, or their nodes did; if memory ran "
            "out, use nodes with more; to resume, run the same command again"
        )


def _attempt() -> int:
    """How often this task was started before. Ray has no public API for this; its version is pinned."""
    return int(ray._private.worker.global_worker.core_worker.get_current_task_attempt_number())


def decode(rows: pa.Table, split_long: bool) -> pa.Table:
    """Decode rows of INDEX into rows of DECODED; each output row has audio, or the reason why there is none.

    The file of a row without `bytes` did not exist when the job started, and is not looked for again.

    Raises:
        Unreachable: if a file that existed cannot be read from here.
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
    """Why there was no file at a place when the job started; there may be something else, such as a pipe."""
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
        """Encode the unit in a batch of one, and yield the number of recordings as they are encoded.

        The unit's part of the index is written first, then its shard.
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
        """The encoded pieces batch by batch, with the number of recordings that each batch completes."""
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
    """The unit's rows of PART: rows in the shard with position and lengths, rejected rows with the reason."""
    at = pc.if_else(is_good, pc.subtract(pc.cumulative_sum(pc.cast(is_good, pa.int32())), 1), None)
    new = {name: shard[name].take(at) for name in ("num_samples", "num_valid", "num_frames")} | {"row": at}
    columns = [new.get(field.name, rows[field.name]).cast(field.type) for field in PART]
    return pa.table(columns, schema=PART)


def _joined(pieces: Sequence[Sequence[Waveform]], encoded: Mapping[int, Encoded]) -> list[Encoded]:
    """The frames of each recording, joined from its pieces."""
    places = itertools.count()
    return [_join([encoded[next(places)] for _ in parts]) for parts in pieces]


def _join(pieces: list[Encoded]) -> Encoded:
    """The frames of a recording from those of its pieces; only the last piece keeps the silence after it."""
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
