"""The embed stage: recordings in, shards of encoder frames out.

    index rows -> decode_unit (CPU tasks) -> EncodeUnit (actors, on GPUs where there are any) -> one shard a unit

One row of Ray Data is one unit of work from end to end. The actor that encodes a unit writes its shard, so frames
never cross the object store (up to 1.5 MB a recording with Whisper base, 3.8 MB with large) or reach the driver.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import torch
from rich.table import Table

from xlt_ray import artifacts, corpora, runtime, shards, whisper
from xlt_ray.artifacts import Artifact
from xlt_ray.config import EmbedConfig, EmbedJob, FinetuneJob, RetrievalJob, StudyJob, TranslateJob, identity
from xlt_ray.corpora import audio
from xlt_ray.embed import index
from xlt_ray.embed.encoder import Encoded, Frames, SpeechEncoder
from xlt_ray.errors import RejectedRow, UserError
from xlt_ray.schema import REJECTED, embedding_schema, from_ipc, layer_column, to_ipc
from xlt_ray.tracking import Tracker, track

DECODED = index.INDEX.append(pa.field("pcm", pa.large_binary())).append(pa.field("reason", pa.string()))
"""An index row with its sound (float32, 16 kHz mono), or the reason why there is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """An embed run that has been checked and can start."""

    artifact: Artifact
    index: pa.Table
    model: str
    inputs: dict[str, Any]
    config: EmbedConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Embeddings:
    """What a job reads: an embed artifact that is finished, or is made first.

    Attributes:
        artifact: finished or begun.
        making: how it is made; None where it is finished.
    """

    artifact: Artifact
    making: Plan | None

    @property
    def index(self) -> pa.Table | None:
        """The rows of the corpus (UTTERANCE), where there are no shards to read them from yet."""
        return self.making.index if self.making else None

    @property
    def rows(self) -> pa.Table:
        """The rows of the corpus (UTTERANCE)."""
        return self.making.index if self.making else shards.utterances(self.artifact)

    def make(self, root: str) -> None:
        """Encode what is not encoded yet. Needs a running Ray."""
        if self.making:
            embed(self.making, root)


def embeddings(job: RetrievalJob | FinetuneJob | TranslateJob, name: str | None, root: str) -> Embeddings:
    """What a job reads, checked.

    Args:
        job: settings.
        name: of the finished embed artifact under the job's root; None: the job makes its own.
        root: where it is begun then.

    Raises:
        UserError: as `prepare`, or if the named one is not there or lacks a language.
    """
    if name:
        return Embeddings(shards.find(job.root, name, job.languages), None)
    plan = prepare(dataclasses.replace(job, root=root))
    return Embeddings(plan.artifact, plan)


def prepare(job: EmbedJob | RetrievalJob | FinetuneJob | TranslateJob) -> Plan:
    """Everything that can go wrong by the user's hand, before any work: corpus, languages, model, name, root.

    Raises:
        UserError: with what is wrong and what to do.
    """
    model_dir = whisper.resolve_model(job.model)
    num_layers = whisper.num_encoder_layers(model_dir)
    if beyond := [layer for layer in job.embed.layers if layer >= num_layers]:
        raise UserError(f"--embed.layers {beyond}: {job.model} has blocks 0 to {num_layers - 1}")
    rows = index.collect(corpora.read(job.corpus, job.languages, job.embed.split), job.languages)
    if isinstance(job, RetrievalJob | StudyJob):
        index.require_parallel(rows, job.languages)
    if job.embed.num_sentences is not None:
        rows = index.first_sentences(rows, job.embed.num_sentences)
    corpus = {"num_rows": rows.num_rows, "sha256": index.sha256(rows)}
    model = {"sha256": whisper.weights_sha256(model_dir)}
    what = {
        "languages": sorted(job.languages),
        "corpus": corpus,
        "model": model,
        "embed": identity(job.embed),
    }
    inputs = {
        "corpus": {"name": job.corpus, **corpus},
        "model": {"name": job.model, **model, "num_layers": num_layers},
    }
    artifact = artifacts.start(job.root, "embed", job.name, what, dataclasses.asdict(job))
    # The cut of the run that began it: another one would give the units' names to other rows.
    cut = index.cut(rows, artifact.settings["embed"]["rows_per_shard"])
    return Plan(artifact, cut, job.model, inputs, job.embed)


def embed(plan: Plan, root: str) -> Artifact:
    """Encode what is missing and commit the artifact; nothing is done if it is complete. Needs a running Ray."""
    if plan.artifact.is_complete:
        print(f"embed: {plan.artifact.uri} is complete, nothing to encode")
        return plan.artifact
    runtime.require_shared(plan.artifact.path("config.json"))
    names = {key: plan.inputs[key]["name"] for key in ("corpus", "model")}
    with track(root, "embed", plan.artifact.name, plan.artifact.identity, names) as tracker:
        started = time.monotonic()
        encode_missing(plan)
        _finish(plan, tracker, time.monotonic() - started)
    return plan.artifact


def encode_missing(plan: Plan) -> None:
    """Write the shard of every unit that has none."""
    tables = index.by_unit(plan.index)
    done = plan.artifact.done()
    missing = [unit for unit in tables if unit not in done]
    num_done = plan.index.num_rows - sum(tables[unit].num_rows for unit in missing)
    if num_done:
        print(f"embed: {num_done} of {plan.index.num_rows} recordings are done, going on with the rest")
    if not missing:
        return
    encoded = _encoded(plan, {unit: tables[unit] for unit in missing})
    with runtime.Bar("embed", total=plan.index.num_rows, done=num_done) as bar:
        for row in encoded.iter_rows():
            bar.advance(row["num_rows"])


def _encoded(plan: Plan, units: dict[str, pa.Table]) -> ray.data.Dataset:
    """One row a unit, with the number of its recordings, once its shard is written."""
    pool = runtime.pool("embed", plan.config.num_gpus, plan.config.max_actors, len(units))
    rows = [{"unit": unit, "table": to_ipc(table)} for unit, table in units.items()]
    decode = {"corpus": plan.inputs["corpus"]["name"], "split_long": plan.config.split_long}
    encode = {"artifact": plan.artifact, "model": plan.model, "config": plan.config}
    return (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(decode_unit, fn_kwargs=decode, num_cpus=pool.feed_cpus)
        .map_batches(EncodeUnit, fn_constructor_kwargs=encode, batch_size=1, batch_format="pyarrow", **pool.options)
    )


def decode_unit(unit: dict[str, Any], corpus: str, split_long: bool) -> dict[str, Any]:
    """Read and decode the recordings of one unit: a table of INDEX in, one of DECODED out."""
    corpora.fetch(corpus)
    return {"unit": unit["unit"], "table": to_ipc(decode(from_ipc(unit["table"]), split_long))}


def decode(rows: pa.Table, split_long: bool) -> pa.Table:
    """Rows of INDEX in, rows of DECODED out, none lost: each with its sound, or the reason why there is none.

    Raises:
        Unreachable: a file cannot be read from here.
    """
    places = audio.places_of(rows)
    sounds: list[bytes | None] = []
    reasons: list[str | None] = []
    for place, recording in zip(places, audio.read_recordings(places), strict=True):
        sound, reason = _decode(recording, place.name, split_long)
        sounds.append(sound)
        reasons.append(reason)
    columns = [*rows.columns, pa.array(sounds, pa.large_binary()), pa.array(reasons, pa.string())]
    return pa.table(columns, schema=DECODED)


def _decode(recording: audio.Recording, name: str, split_long: bool) -> tuple[bytes | None, str | None]:
    try:
        if isinstance(recording, RejectedRow):
            raise recording
        pcm = audio.decode(recording, name)
        if len(pcm) > audio.MAX_SAMPLES and not split_long:
            raise RejectedRow(
                f"too long: {len(pcm) / audio.SAMPLE_RATE:.1f} s, more than 30 s (see --embed.split-long)"
            )
    except RejectedRow as rejection:
        return None, str(rejection)
    return pcm.tobytes(), None


class EncodeUnit:
    """An actor that holds the encoder: units of DECODED rows in, a shard of each on disk, a row of counts out."""

    def __init__(self, artifact: Artifact, model: str, config: EmbedConfig) -> None:
        # One thread an actor: with both cores shared, two threads ran 10 to 20 times slower than two actors.
        torch.set_num_threads(1)
        self._artifact, self._config = artifact, config
        self._schema = embedding_schema(config.layers)
        self._encoder = SpeechEncoder(
            whisper.resolve_model(model),
            encoding=config.encoding,
            context_margin=config.context_margin,
            keep_margin=None if config.keep_margin == "all" else config.keep_margin,
            layers=config.layers,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )

    def __call__(self, units: pa.Table) -> pa.Table:
        """Encode the unit in a batch of one; write its rejected rows, then its shard, which says that it is done."""
        (unit,) = units["unit"].to_pylist()
        rows = from_ipc(units["table"][0].as_buffer())
        good = rows.filter(pc.is_null(rows["reason"]))
        bad = rows.filter(pc.is_valid(rows["reason"])).select(REJECTED.names)
        self._artifact.write_table(f"rejected/{unit}.parquet", bad.cast(REJECTED))
        # Frames do not compress (0.92 at best, for 4 to 10 times the time), and a dictionary of them is never hit.
        # One row a row group, so that training can read one recording of a shard without the others.
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "row_group_size": 1}
        self._artifact.write_table(f"data/{unit}.parquet", self._encode(good), **options)
        return pa.table({"unit": [unit], "num_rows": [rows.num_rows]})

    def _encode(self, rows: pa.Table) -> pa.Table:
        sounds = [np.frombuffer(pcm.as_buffer(), np.float32) for pcm in rows["pcm"]]
        pieces = [audio.split_long(sound) for sound in sounds]
        encoded = iter(self._encoder.encode([piece for parts in pieces for piece in parts]))
        joined = [_join([next(encoded) for _ in parts]) for parts in pieces]
        counts = {
            "num_samples": [len(sound) for sound in sounds],
            "num_valid": [frames.num_valid for frames in joined],
            "num_frames": [len(frames.final) for frames in joined],
            "dim": [frames.final.shape[1] for frames in joined],
            "frames": [frames.final.tobytes() for frames in joined],
        }
        layers = {layer_column(k): [frames.layers[k].tobytes() for frames in joined] for k in self._config.layers}
        new = counts | layers
        columns = [new[field.name] if field.name in new else rows[field.name] for field in self._schema]
        return pa.table(columns, schema=self._schema)


def _join(pieces: list[Encoded]) -> Encoded:
    """The frames of a recording from those of its pieces; only the last piece keeps the silence behind it."""
    if len(pieces) == 1:
        return pieces[0]
    *heads, last = pieces
    layers = {
        k: _concatenate([(piece.layers[k], piece.num_valid) for piece in heads], last.layers[k]) for k in last.layers
    }
    final = _concatenate([(piece.final, piece.num_valid) for piece in heads], last.final)
    return Encoded(final, sum(piece.num_valid for piece in pieces), layers)


def _concatenate(heads: list[tuple[Frames, int]], last: Frames) -> Frames:
    return np.concatenate([*(frames[:num_valid] for frames, num_valid in heads), last])


def _finish(plan: Plan, tracker: Tracker, seconds: float) -> None:
    """Count what is there, log it, and commit the artifact."""
    num_rejected = plan.artifact.merge_rejected()
    units = list(index.by_unit(plan.index))
    metrics = summarise(plan.artifact, units)
    plan.artifact.write_json("metrics.json", metrics)
    tracker.metrics({f"embed/seconds/{code}": of["seconds"] for code, of in metrics["languages"].items()})
    tracker.metrics({"embed/num_rejected": num_rejected, "embed/wall_time_s": seconds})
    tracker.describe(f"{plan.index.num_rows - num_rejected} recordings encoded.\n\nArtifact: `{plan.artifact.uri}`")
    plan.artifact.commit(units=units, num_rows_in=plan.index.num_rows, inputs=plan.inputs, seconds=seconds)


def summarise(artifact: Artifact, units: Sequence[str]) -> dict[str, Any]:
    """The content of metrics.json: utterances, seconds of speech and rejected rows by language, and the reasons."""
    columns = ["language", "num_samples"]
    shards = [artifacts.read_table(artifact.path("data", f"{unit}.parquet"), columns=columns) for unit in units]
    rejected = artifacts.read_table(artifact.path("rejected.parquet"))
    kept = pa.concat_tables(shards).group_by("language").aggregate([("num_samples", "count"), ("num_samples", "sum")])
    num_kept, num_samples = (
        dict(zip(kept["language"].to_pylist(), kept[f"num_samples_{of}"].to_pylist(), strict=True))
        for of in ("count", "sum")
    )
    num_rejected = Counter(rejected["language"].to_pylist())
    return {
        "languages": {
            language: {
                "num_utterances": num_kept.get(language, 0),
                "seconds": round(num_samples.get(language, 0) / audio.SAMPLE_RATE, 2),
                "num_rejected": num_rejected[language],
            }
            for language in sorted(num_kept.keys() | num_rejected.keys())
        },
        "reasons": dict(Counter(reason.split(":", 1)[0] for reason in rejected["reason"].to_pylist())),
    }


def as_table(metrics: dict[str, Any]) -> Table:
    """Utterances, seconds and rejected rows by language."""
    table = Table(title="encoded", title_justify="left")
    table.add_column("language")
    for column in ("utterances", "minutes of speech", "rejected"):
        table.add_column(column, justify="right")
    for code, of in metrics["languages"].items():
        table.add_row(code, str(of["num_utterances"]), f"{of['seconds'] / 60:.1f}", str(of["num_rejected"]))
    return table
