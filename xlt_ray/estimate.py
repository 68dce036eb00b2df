"""What a run would cost, before it is started: arithmetic on the sizes of the model and of the corpus.

Operations follow from the shapes of Whisper (arXiv 2212.04356). Hours follow from operations by assumed rates
(`RATES`), so they say which stage is large, and whether a run takes minutes or days; they are no measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table

from xlt_ray import artifacts, ctranslate2, storage, whisper
from xlt_ray.artifacts import Artifact
from xlt_ray.config import (
    EmbedConfig,
    EmbedJob,
    FinetuneConfig,
    FinetuneJob,
    RetrievalConfig,
    RetrievalJob,
    StudyJob,
    TranslateConfig,
    TranslateJob,
    TuneJob,
)
from xlt_ray.corpora import audio, covost2, fleurs, mass
from xlt_ray.corpora.tables import canonical_split, check_languages
from xlt_ray.errors import RejectedRow, UserError
from xlt_ray.schema import Direction

MAX_FRAMES = whisper.MAX_FRAMES
FRAMES_PER_SECOND = whisper.SAMPLE_RATE // whisper.SAMPLES_PER_FRAME

TOKENS_PER_SECOND = 4.0
"""Tokens of text for a second of speech; assumed. English has 2.5 to 3 words a second, of 1.3 tokens each."""
NUM_PROMPT = 4
"""Tokens of a prompt."""
BYTES_PER_TEXT = 500
"""Of a row of hypotheses: ids, source, reference, hypothesis; assumed."""
NUM_SAMPLED = 8
"""Recordings of each language whose length stands for that of all, where the corpus does not say it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """Operations a second, of one GPU and of one core of a CPU."""

    gpu: float
    cpu: float


_A100_BF16, _A100_FP32 = 312e12, 19.5e12  # peaks without sparsity: NVIDIA A100 data sheet
_CORE_FP32 = 80e9  # torch.mm on one core with AVX2, measured: 74 to 90

RATES = {
    "encode": Rate(0.40 * _A100_BF16, 0.95 * _CORE_FP32),
    "score": Rate(0.70 * _A100_FP32, 0.90 * _CORE_FP32),  # SeqSim is computed in float32
    "train": Rate(0.20 * _A100_BF16, 0.50 * _CORE_FP32),
    # Token by token, weights are read for few operations each. On the Open ASR leaderboard (A100) large-v3 in
    # transformers hears 145 s of speech a second: about 1 of 312 TFLOP/s.
    "write": Rate(0.003 * _A100_BF16, 0.10 * _CORE_FP32),
}
"""Assumed rate of each kind of work, on an A100 and on a core. Those of the CPU's encoder and SeqSim were measured."""

ASSUMED = (
    f"GPU hours: one A100 at {RATES['encode'].gpu / 1e12:.0f} TFLOP/s encoding, {RATES['score'].gpu / 1e12:.0f} "
    f"scoring, {RATES['train'].gpu / 1e12:.0f} training, {RATES['write'].gpu / 1e12:.1f} writing text. CPU hours: of "
    f"one core, instead of the GPU. Assumed {TOKENS_PER_SECOND:g} tokens of text a second of speech. Not counted: "
    "reading and decoding sound, starting Ray, copies of the model, dtw, COMET."
)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSize:
    """The sizes of a Whisper that decide its operations, named as in its config.json."""

    encoder_layers: int
    decoder_layers: int
    d_model: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    num_mel_bins: int
    vocab_size: int

    @classmethod
    def read(cls, model_dir: Path) -> ModelSize:
        """The sizes of the model in a Hugging Face directory."""
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})

    @property
    def decoder_parameters(self) -> int:
        """Weights of the decoder with its token embeddings, without biases and norms."""
        layer = 8 * self.d_model**2 + 2 * self.d_model * self.decoder_ffn_dim
        return self.decoder_layers * layer + (self.vocab_size + 448) * self.d_model

    @property
    def parameters(self) -> int:
        """Weights of the whole model, without biases and norms."""
        layer = 4 * self.d_model**2 + 2 * self.d_model * self.encoder_ffn_dim
        front = 3 * self.num_mel_bins * self.d_model + 3 * self.d_model**2 + MAX_FRAMES * self.d_model
        return self.decoder_parameters + self.encoder_layers * layer + front

    def encoder_flops(self, num_frames: float) -> float:
        """Operations (a multiply-add is two) for one window of encoder frames of 20 ms; a padded one has 1500."""
        dim, layers = self.d_model, self.encoder_layers
        front = 2 * (2 * num_frames) * 3 * self.num_mel_bins * dim + 2 * num_frames * 3 * dim**2
        layer = 8 * num_frames * dim**2 + 4 * num_frames**2 * dim + 4 * num_frames * dim * self.encoder_ffn_dim
        return front + layers * layer

    def decoder_flops(self, num_tokens: float, num_frames: float) -> float:
        """Operations for one text, all of its tokens at once, over that many frames; with the output layer."""
        dim = self.d_model
        heard = 4 * num_frames * dim**2  # keys and values of cross-attention
        spoken = 12 * num_tokens * dim**2 + 4 * num_tokens**2 * dim + 4 * num_tokens * num_frames * dim
        layer = heard + spoken + 4 * num_tokens * dim * self.decoder_ffn_dim
        return self.decoder_layers * layer + 2 * num_tokens * dim * self.vocab_size


def _published_size(layers: int, d_model: int, num_mel_bins: int = 80, vocab_size: int = 51_865) -> ModelSize:
    return ModelSize(layers, layers, d_model, 4 * d_model, 4 * d_model, num_mel_bins, vocab_size)


MODELS = {
    "openai/whisper-tiny": _published_size(4, 384),
    "openai/whisper-base": _published_size(6, 512),
    "openai/whisper-small": _published_size(12, 768),
    "openai/whisper-medium": _published_size(24, 1024),
    "openai/whisper-large-v2": _published_size(32, 1280),
    "openai/whisper-large-v3": _published_size(32, 1280, 128, 51_866),
    ctranslate2.WHEELS: _published_size(6, 512),
}
"""Published sizes (arXiv 2212.04356, table 1): these models need not be at hand."""


def model_size(spec: str) -> ModelSize:
    """The sizes of the model that `--model` names.

    Raises:
        UserError: where it is neither a published one nor at hand.
    """
    return MODELS.get(spec) or ModelSize.read(whisper.resolve_model(spec))


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """The size of one language in one split of a public corpus, as published."""

    num_recordings: int
    num_sentences: int
    mean_seconds: float


PUBLISHED: dict[tuple[str, str | None], Published] = {
    # FLEURS: 10 hours of training a language, 12 in all (data set card, arXiv 2205.12446); 77,809 test recordings in
    # 102 languages; 1509, 150 and 350 sentences. A recording is 12 s long by the sizes of the Hub's files.
    ("fleurs", "train"): Published(3000, 1509, 12.0),
    ("fleurs", "dev"): Published(330, 150, 12.0),
    ("fleurs", "test"): Published(763, 350, 12.0),
    # CoVoST 2, English into 15 languages (arXiv 2007.10310, table 2): 430 hours of training.
    ("covost2", "train"): Published(289_000, 289_000, 5.4),
    ("covost2", "dev"): Published(15_500, 15_500, 5.4),
    ("covost2", "test"): Published(15_500, 15_500, 5.4),
    # MaSS (arXiv 1907.12895): 8160 verses stand in all eight languages, about 20 hours each.
    ("mass", None): Published(8160, 8160, 8.8),
}
"""Corpora that need not be at hand, by name and split: any language of FLEURS and MaSS, English of CoVoST 2."""


@dataclasses.dataclass(frozen=True, slots=True)
class Speech:
    """How much speech there is.

    Attributes:
        num_recordings: by language and split.
        mean_seconds: by language.
        source: how that is known.
    """

    num_recordings: Mapping[tuple[str, str | None], int]
    mean_seconds: Mapping[str, float]
    source: str

    def count(self, language: str, split: str | None = None) -> int:
        """Recordings of a language in a split; None: in all."""
        return sum(num for (code, of), num in self.num_recordings.items() if code == language and split in (None, of))


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What work takes; costs can be added, and `sum(costs, Cost())` is that of all.

    Attributes:
        num_rows: recordings or texts that are worked on, every time counted.
        audio_hours: of speech in them.
        gpu_hours: of one A100.
        cpu_hours: of one core, where there is no GPU.
        num_bytes: written.
    """

    num_rows: int = 0
    audio_hours: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    num_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Field by field."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(mine + theirs for mine, theirs in pairs))


def _cost(kind: str, flops: float, num_rows: int, seconds: float, num_bytes: float) -> Cost:
    rate = RATES[kind]
    return Cost(num_rows, seconds / 3600, flops / rate.gpu / 3600, flops / rate.cpu / 3600, round(num_bytes))


def encoded_frames(mean_seconds: float, config: EmbedConfig) -> float:
    """Frames that the encoder computes for a recording."""
    spoken = min(mean_seconds * FRAMES_PER_SECOND, MAX_FRAMES)
    return MAX_FRAMES if config.encoding == "exact" else min(spoken + config.context_margin, MAX_FRAMES)


def kept_frames(mean_seconds: float, config: EmbedConfig) -> float:
    """Frames of a recording that a shard keeps, and a decoder reads."""
    encoded = encoded_frames(mean_seconds, config)
    if config.keep_margin == "all":
        return encoded
    return min(mean_seconds * FRAMES_PER_SECOND + config.keep_margin, encoded)


def embed(size: ModelSize, num_recordings: int, mean_seconds: float, config: EmbedConfig) -> Cost:
    """Encoding so many recordings; frames are kept as float16."""
    flops = num_recordings * size.encoder_flops(encoded_frames(mean_seconds, config))
    num_values = kept_frames(mean_seconds, config) * size.d_model * (1 + len(config.layers))
    return _cost("encode", flops, num_recordings, num_recordings * mean_seconds, 2 * num_recordings * num_values)


def retrieval(size: ModelSize, recordings: Sequence[tuple[int, float]], config: RetrievalConfig) -> Cost:
    """Scoring every recording of each language with every one of each other: 2 m n d for m with n frames.

    Args:
        size: of the model.
        recordings: number and mean seconds of the recordings of each language.
        config: of the retrieval.
    """
    frames, pairs = 0.0, 0
    for (first, first_s), (second, second_s) in itertools.combinations(recordings, 2):
        frames += first * first_s * second * second_s * FRAMES_PER_SECOND**2
        pairs += first * second
    num_layers = 1 + len(config.layers)
    num_scores = 2 * num_layers + len(set(config.baselines) - {"random"})
    seconds = sum(num * mean for num, mean in recordings)
    num_rows = sum(num for num, _ in recordings)
    return _cost("score", 2 * frames * size.d_model * num_layers, num_rows, seconds, 4 * pairs * num_scores)


def finetune(
    size: ModelSize,
    num_examples: int,
    mean_seconds: float,
    embed: EmbedConfig,
    config: FinetuneConfig,
    num_dev: int = 0,
) -> Cost:
    """Training the decoder: forward and backward, three times a forward, for every example in every epoch.

    Replay makes batches of other examples beside; a Fisher takes a forward and a backward of each of its examples. What
    is written is the model in float32, and a checkpoint of what trains with AdamW's two moments.

    Args:
        size: of the model.
        num_examples: to learn.
        mean_seconds: of a recording.
        embed: how the frames were kept.
        config: of the training.
        num_dev: examples of each measurement of dev BLEU.
    """
    num_replayed = round(config.replay_fraction * config.batch_size)
    num_seen = config.epochs * num_examples * config.batch_size / (config.batch_size - num_replayed)
    num_fisher = config.fisher_examples * len(config.keep) if config.ewc_lambda and not config.fisher else 0
    flops = 3 * (num_seen + num_fisher) * _text_flops(size, mean_seconds, embed)
    num_bytes = 4 * size.parameters + 12 * size.decoder_parameters
    trained = _cost("train", flops, round(num_seen), num_seen * mean_seconds, num_bytes)
    if not config.evaluate_every:
        return trained
    num_measured = round(num_seen / config.batch_size / config.evaluate_every) * num_dev
    evaluated = _cost("write", num_measured * _text_flops(size, mean_seconds, embed), 0, 0.0, 0)
    return trained + evaluated


def translate(
    size: ModelSize, num_texts: int, mean_seconds: float, embed: EmbedConfig, config: TranslateConfig
) -> Cost:
    """Writing so many texts, token by token; every beam costs as much as a text."""
    flops = num_texts * config.num_beams * _text_flops(size, mean_seconds, embed)
    return _cost("write", flops, num_texts, num_texts * mean_seconds, num_texts * BYTES_PER_TEXT)


def _text_flops(size: ModelSize, mean_seconds: float, embed: EmbedConfig) -> float:
    """Operations of the decoder, forward, for a recording of that length."""
    return size.decoder_flops(NUM_PROMPT + TOKENS_PER_SECOND * mean_seconds, kept_frames(mean_seconds, embed))


PlainJob = EmbedJob | RetrievalJob | FinetuneJob | TranslateJob


def published(job: PlainJob, embeddings: str | None = None) -> Speech | None:
    """The corpus of a job by its published sizes, which needs neither network nor corpus.

    Args:
        job: with its --corpus, --languages and --embed.
        embeddings: name of the embed artifact that the job reads, where it names one.

    Returns:
        None where the job names a place of its corpus or finished embeddings, so that there is something to count; and
        where nothing is published of the corpus.

    Raises:
        UserError: for a language or split that the corpus does not have.
    """
    languages = {"fleurs": fleurs.CODES.values(), "covost2": covost2.TARGETS, "mass": mass.FOLDERS}
    if job.corpus not in languages or embeddings is not None:
        return None
    check_languages(job.corpus, job.languages, set(languages[job.corpus]))
    if job.corpus == "covost2" and job.languages != ("en",):
        return None
    if job.corpus == "mass" and job.embed.split is not None:
        raise UserError(f"MaSS has no splits, so split {job.embed.split!r} cannot be read; leave it out")
    split = None if job.corpus == "mass" else canonical_split(job.embed.split)
    of = PUBLISHED[job.corpus, split]
    _require_texts(job)
    share = min(1.0, (job.embed.num_sentences or of.num_sentences) / of.num_sentences)
    return Speech(
        {(code, split): round(share * of.num_recordings) for code in job.languages},
        dict.fromkeys(job.languages, of.mean_seconds),
        "from published sizes",
    )


def _require_texts(job: PlainJob) -> None:
    """Refuse a direction into a language in which a public corpus has no text for these --languages."""
    asked = (*job.finetune.directions, *job.finetune.keep) if isinstance(job, FinetuneJob) else ()
    for direction in map(Direction.parse, asked):
        known = covost2.TARGETS[direction.source] if job.corpus == "covost2" else job.languages
        if direction.target not in (*known, direction.source):
            raise UserError(
                f"direction {direction}: {job.corpus} has no {direction.target} text for --languages "
                f"{','.join(job.languages)}, only {', '.join(known)}; add the language, or choose another direction"
            )


def counted(rows: pa.Table) -> Speech:
    """The corpus by its rows of UTTERANCE; its length by that of the first recordings of each language.

    Raises:
        UserError: where none of them can be decoded.
    """
    table = rows.select(["language", "split", *audio.Place._fields]).to_pylist()
    num = Counter((row["language"], row["split"]) for row in table)
    heard = {code: [row for row in table if row["language"] == code][:NUM_SAMPLED] for code, _ in num}
    seconds = {code: _mean_seconds(first) for code, first in heard.items()}
    if none := [code for code, mean in seconds.items() if mean is None]:
        raise UserError(f"none of the first {NUM_SAMPLED} recordings in {none[0]} can be decoded; see embed.py --check")
    known = {code: mean for code, mean in seconds.items() if mean is not None}
    return Speech(num, known, f"counted; length by {NUM_SAMPLED} recordings a language")


def _mean_seconds(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean length of the recordings that can be decoded, None for none."""
    lengths = []
    places = [audio.Place(*(row[field] for field in audio.Place._fields)) for row in rows]
    for place, recording in zip(places, audio.try_recordings(places), strict=True):
        with contextlib.suppress(RejectedRow):
            if not isinstance(recording, Exception):
                lengths.append(len(audio.decode(recording, place.name)) / audio.SAMPLE_RATE)
    return sum(lengths) / len(lengths) if lengths else None


@contextlib.contextmanager
def rehearsal(root: str, reads: Iterable[tuple[str, str | None]] = ()) -> Iterator[str]:
    """A root for the checks of a run, which is thrown away: under `root` nothing is written.

    What was begun in it is compared at the end with what stands under `root` in the same name.

    Args:
        root: the root of the run.
        reads: stage and name of what the run reads under its root, names that are None left out.

    Raises:
        UserError: if what is read is not finished, or a name is taken by a run with other settings.
    """
    with tempfile.TemporaryDirectory() as scratch:
        finished = [artifacts.find(root, stage, name) for stage, name in reads if name is not None]
        for artifact in finished:
            copy = Artifact.at(scratch, artifact.stage, artifact.name)
            for name in ("config.json", "manifest.json", "metrics.json"):
                if storage.exists(artifact.path(name)):
                    copy.write_json(name, artifact.read_json(name))
        yield scratch
        taken = {(artifact.stage, artifact.name) for artifact in finished}
        for path in sorted(Path(scratch).glob("*/*/config.json")):
            stage, name = path.parent.parent.name, path.parent.name
            if (stage, name) not in taken:
                _require_free(root, Artifact.at(scratch, stage, name))


def _require_free(root: str, begun: Artifact) -> None:
    there = Artifact.at(root, begun.stage, begun.name)
    if storage.exists(there.path("config.json")):  # so `start` only compares
        artifacts.start(root, begun.stage, begun.name, begun.identity, begun.settings)


def costs(job: PlainJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that a job runs, in their order."""
    size = model_size(job.model)
    found = {}
    if _embeddings_of(job) is None:
        parts = [embed(size, speech.count(code), speech.mean_seconds[code], job.embed) for code in job.languages]
        found["embed"] = sum(parts, Cost())
    if isinstance(job, RetrievalJob):
        recordings = [(speech.count(code), speech.mean_seconds[code]) for code in job.languages]
        found["retrieval"] = retrieval(size, recordings, job.retrieval)
    elif isinstance(job, TuneJob):
        found["tune"] = _tune(job, size, speech)
    elif isinstance(job, StudyJob):
        found["study"] = _study(job, size, speech)
    elif isinstance(job, FinetuneJob):
        found["finetune"] = _finetune(job, size, speech)
    elif isinstance(job, TranslateJob):
        found["translate"] = _translate(job, size, speech)
    return found


def _embeddings_of(job: PlainJob) -> str | None:
    """Name of the embed artifact that a job reads rather than makes."""
    if isinstance(job, RetrievalJob):
        return job.retrieval.embeddings
    if isinstance(job, FinetuneJob):
        return job.finetune.embeddings
    return job.translate.embeddings if isinstance(job, TranslateJob) else None


def _finetune(job: FinetuneJob, size: ModelSize, speech: Speech) -> Cost:
    config = job.finetune
    sources = [Direction.parse(text).source for text in config.directions]
    measured = sources + [Direction.parse(text).source for text in config.evaluate]
    num_learnt = _examples(speech, sources, config.split)
    num_dev = _examples(speech, measured, config.dev_split) if config.evaluate_every else 0
    seconds = sum(speech.count(code, config.split) * speech.mean_seconds[code] for code in sources)
    return finetune(size, num_learnt, seconds / num_learnt, job.embed, config, num_dev)


def _tune(job: TuneJob, size: ModelSize, speech: Speech) -> Cost:
    """Every trial to its end, which halving makes cheaper, as the middle of the searched values would be."""
    config = dataclasses.replace(job.finetune, evaluate=job.kept)
    epochs = job.tune.epochs.bounds or job.tune.epochs.values
    if epochs:
        config = dataclasses.replace(config, epochs=round(sum(epochs) / len(epochs)))
    one = _finetune(dataclasses.replace(job, finetune=config), size, speech)
    return sum([one] * job.tune.size, Cost())


def _study(job: StudyJob, size: ModelSize, speech: Speech) -> Cost:
    """A run on each source, its Fisher, and the translations of the test split; retrieval is not counted."""
    found = Cost()
    for source in job.sources:
        config = dataclasses.replace(job.finetune, directions=(f"{source}-{job.study.target}",))
        found += _finetune(dataclasses.replace(job, finetune=config), size, speech)
        num_fisher = min(config.fisher_examples, _examples(speech, [source], config.split))
        seconds = speech.mean_seconds[source]
        flops = 3 * num_fisher * _text_flops(size, seconds, job.embed)
        found += _cost("train", flops, num_fisher, num_fisher * seconds, 4 * size.decoder_parameters)
        num_texts = (len(job.sources) + 1) * speech.count(source, "test")
        found += translate(size, num_texts, seconds, job.embed, TranslateConfig())
    return found


def _examples(speech: Speech, languages: Sequence[str], split: str | None) -> int:
    counts = {code: speech.count(code, split) for code in languages}
    if none := [code for code, count in counts.items() if not count]:
        raise UserError(f"no {none[0]} recording is of split {split!r}; choose another --embed.split, or none")
    return sum(counts[code] for code in languages)


def _translate(job: TranslateJob, size: ModelSize, speech: Speech) -> Cost:
    config, found = job.translate, Cost()
    num_runs = max(1, len(job.source_prompts))
    for code in job.languages:
        num_texts = sum(target != code for target in config.targets or ("en",)) + config.transcribe
        num_rows = num_runs * num_texts * speech.count(code, config.split)
        found += translate(size, num_rows, speech.mean_seconds[code], job.embed, config)
    return found


def dry_run(job: PlainJob, rows: Callable[[str], pa.Table], reads: Iterable[tuple[str, str | None]] = ()) -> Table:
    """The table of what a job would cost, after all checks that can be made; nothing is started or left behind.

    Where the corpus is a public one without a place, the checks are those of languages and split alone.

    Args:
        job: settings.
        rows: checks the job, beginning its artifacts under the root that it is given, and gives its rows of UTTERANCE.
        reads: stage and name of what the job reads besides embeddings.

    Raises:
        UserError: as the job itself.
    """
    speech = published(job, _embeddings_of(job))
    if speech is None:
        with rehearsal(job.root, reads) as scratch:
            speech = counted(rows(scratch))
    return as_table(job.name, costs(job, speech), speech.source)


def as_table(name: str, found: Mapping[str, Cost], source: str) -> Table:
    """Costs stage by stage, and in all.

    Args:
        name: of the run.
        found: cost of each stage.
        source: how the size of the corpus is known.
    """
    table = Table(title=f"dry run of {name}: nothing was started or written", title_justify="left")
    table.caption, table.caption_justify = f"recordings {source}. {ASSUMED}", "left"
    table.add_column("stage")
    for column in ("recordings or texts", "hours of audio", "GPU hours", "CPU hours", "written"):
        table.add_column(column, justify="right")
    for stage, cost in found.items():
        table.add_row(stage, f"{cost.num_rows:,}", f"{cost.audio_hours:,.1f}", *_hours(cost))
    table.add_row("in all", "", "", *_hours(sum(found.values(), Cost())), style="bold")
    return table


def _hours(cost: Cost) -> tuple[str, str, str]:
    return _number(cost.gpu_hours), _number(cost.cpu_hours), _amount(cost.num_bytes)


def _number(value: float) -> str:
    """Two digits, more only before the point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _amount(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if round(num_bytes) < 1000:
            return f"{_number(num_bytes)} {unit}"
        num_bytes /= 1000
    return f"{_number(num_bytes)} TB"
