"""The cost of embedding, and the amount of speech to embed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xlt_ray.corpora import audio, published
from xlt_ray.corpora.guarded import sounds
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.errors import UserError
from xlt_ray.job import cost, progress
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.job.settings import Job
from xlt_ray.languages import Direction
from xlt_ray.models import whisper
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.models.whisper import MAX_FRAMES

FRAMES_PER_SECOND = whisper.SAMPLE_RATE // whisper.SAMPLES_PER_FRAME

_LONGEST_S = 30.0
_HEAD_DIM = 64  # of every Whisper
_FIRST_BYTES = 90e6  # of libraries that the first operation loads; measured

NUM_SAMPLED = 8
"""Recordings per language from which the mean length is estimated, if the corpus does not give lengths."""


def encoded_frames(mean_seconds: float, config: EmbedConfig) -> float:
    """Frames that the encoder computes for a recording."""
    spoken = min(mean_seconds * FRAMES_PER_SECOND, MAX_FRAMES)
    return MAX_FRAMES if config.encoding == "exact" else min(spoken + config.context_margin, MAX_FRAMES)


def kept_frames(mean_seconds: float, config: EmbedConfig) -> float:
    """Frames of a recording that a shard keeps and a decoder reads."""
    encoded = encoded_frames(mean_seconds, config)
    if config.keep_margin == "all":
        return encoded
    return min(mean_seconds * FRAMES_PER_SECOND + config.keep_margin, encoded)


def embed_cost(size: ModelSize, num_recordings: int, mean_seconds: float, config: EmbedConfig) -> Cost:
    """The cost of encoding this many recordings; frames are stored as float16."""
    flops = num_recordings * size.encoder_flops(encoded_frames(mean_seconds, config))
    num_values = kept_frames(mean_seconds, config) * size.d_model * (1 + len(config.layers))
    return cost.estimate(
        "encode", flops, num_recordings, num_recordings * mean_seconds, 2 * num_recordings * num_values
    )


def encoding_memory(size: ModelSize, config: EmbedConfig, device: str) -> int:
    """Bytes of memory that an actor needs for a unit of recordings of 30 s.

    It holds the weights in fp32; the audio of the unit 9.4 times (received, cut and padded); its frames 3.2 times
    (encoded, joined and written; both factors measured); and, for one recording, the attention scores and the
    activations of a block. On a GPU the last part is in GPU memory, and a second unit is read or written at the same
    time; this was not measured on a GPU.

    Args:
        size: of the model.
        config: determines the number of recordings of a unit, and the frames kept of each.
        device: `cpu` or `cuda`.
    """
    frames = encoded_frames(_LONGEST_S, config)
    sound = _LONGEST_S * whisper.SAMPLE_RATE * 4
    kept = kept_frames(_LONGEST_S, config) * size.d_model * 2 * (1 + len(config.layers))
    inside = 4 * frames * (frames * size.d_model / _HEAD_DIM + 2 * size.encoder_ffn_dim) if device == "cpu" else 0
    unit = (1 if device == "cpu" else 2) * config.rows_per_shard * (9.4 * sound + 3.2 * kept)
    return round(cost.PROCESS_BYTES + _FIRST_BYTES + 4 * size.encoder_parameters + unit + inside)


def counted(embeddings: Embeddings) -> Speech:
    """The speech of a job, counted from its rows; lengths are estimated from the first recordings of each language.

    Raises:
        UserError: if none of these recordings can be decoded.
    """
    rows = embeddings.all_rows.select(["language", *audio.Place._fields]).to_pylist()
    num = {
        (code, split): count
        for split in embeddings.splits
        for code, count in Counter(embeddings.rows(split)["language"].to_pylist()).items()
    }
    first = {code: [row for row in rows if row["language"] == code][:NUM_SAMPLED] for code, _ in num}
    seconds = {code: _mean_seconds(sampled) for code, sampled in first.items()}
    if none := [code for code, mean in seconds.items() if mean is None]:
        raise UserError(f"none of the first {NUM_SAMPLED} recordings in {none[0]} can be decoded; see embed.py --check")
    known = {code: mean for code, mean in seconds.items() if mean is not None}
    missing = Counter(embeddings.work.missing["language"].to_pylist() if embeddings.work else ())
    return Speech(num, missing, known, f"counted; length from {NUM_SAMPLED} recordings per language")


def _mean_seconds(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean length of the recordings that can be decoded; None if none can."""
    places = [audio.Place(*(row[field] for field in audio.Place._fields)) for row in rows]
    lengths = [sound.num_samples / audio.SAMPLE_RATE for sound in sounds(places) if sound.problem is None]
    return sum(lengths) / len(lengths) if lengths else None


def costs(job: Job, config: EmbedConfig, speech: Speech) -> dict[str, Cost]:
    """The cost of encoding what is not encoded yet."""
    size = model_size(job.model)
    parts = [embed_cost(size, num, speech.mean_seconds[code], config) for code, num in speech.num_missing.items()]
    return {"embed": sum(parts, Cost())} if sum(speech.num_missing.values()) else {}


def show_costs(
    job: Job,
    costs: Callable[[Any, Speech], Mapping[str, Cost]],
    public: Speech | None,
    planned: Callable[[], Embeddings],
) -> None:
    """Print the estimated cost of a run, from the published sizes of its corpus, or else from the corpus itself.

    Args:
        job: the job to estimate.
        costs: computes the cost of its stages.
        public: from `public_speech`.
        planned: returns the embeddings that the job would read, if no sizes are published.
    """
    speech = public or counted(planned())
    progress.show(cost.as_table(job.name, costs(job, speech), speech.source))


def public_speech(
    job: Job,
    config: EmbedConfig,
    splits: Sequence[str],
    name: str | None = None,
    directions: Sequence[Direction] = (),
) -> Speech | None:
    """The speech of a job from the published sizes of its corpus. This needs neither the network nor the corpus.

    Args:
        job: with its --corpus and --languages.
        config: with the number of sentences.
        splits: splits that the job reads; none: the whole corpus.
        name: the embed artifact that the job names, if any.
        directions: directions that the job learns or preserves; none if it does not train.

    Returns:
        None if the job names a path of its corpus or finished embeddings, which can be counted, or if no sizes of the
        corpus are published.

    Raises:
        UserError: for a language, split or direction that the corpus does not have.
    """
    if name is not None or not published.is_known(job.corpus, job.languages):
        return None
    published.require_texts(job.corpus, job.languages, directions)
    divide = bool(directions)
    asked = splits or published.splits_of(job.corpus)
    sizes = {split: published.find(job.corpus, split, divide=divide) for split in asked}
    num = {
        (code, split): round(_share(size, config.num_sentences) * size.num_recordings)
        for code in job.languages
        for split, size in sizes.items()
    }
    totals = {code: sum(count for (language, _), count in num.items() if language == code) for code in job.languages}
    mean = next(iter(sizes.values())).mean_seconds
    return Speech(num, totals, dict.fromkeys(job.languages, mean), "from published sizes")


def _share(size: published.Published, num_sentences: int | None) -> float:
    return min(1.0, (num_sentences or size.num_sentences) / size.num_sentences)
