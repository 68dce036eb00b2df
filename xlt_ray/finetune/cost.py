"""The cost of fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.cost import FRAMES_PER_SECOND, kept_frames
from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.finetune.parameters import GROUP_WEIGHTS
from xlt_ray.job import cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.languages import Direction
from xlt_ray.models.size import ModelSize, model_size

NUM_PROMPT = 4
"""Number of tokens of a prompt."""
FILES_BYTES = 100_000_000
"""Memory of the libraries for reading and writing artifacts, besides torch and transformers; measured."""

_BACKWARD_BYTES = 150e6
_LIBRARIES_BYTES = 46e6  # what training loads beside torch and transformers


def finetune_cost(
    size: ModelSize,
    num_examples: int,
    mean_seconds: float,
    embed: EmbedConfig,
    config: FinetuneConfig,
    num_dev: int = 0,
) -> Cost:
    """The cost of training the decoder: three times a forward pass for every example in every epoch.

    Replay adds examples to the batches. A Fisher takes a forward and a backward pass of each of its examples. A run
    writes the model in float32, and a checkpoint of the trained weights with AdamW's two moments.

    Args:
        size: of the model.
        num_examples: number of examples to learn.
        mean_seconds: mean length of a recording.
        embed: settings of the frames.
        config: of the training.
        num_dev: number of examples of each evaluation of dev BLEU.
    """
    num_replayed = round(config.replay_fraction * config.batch_size)
    num_seen = config.epochs * num_examples * config.batch_size / (config.batch_size - num_replayed)
    num_fisher = config.fisher_examples * len(config.keep) if config.ewc_lambda and not config.fisher else 0
    flops = 3 * (num_seen + num_fisher) * text_flops(size, mean_seconds, embed)
    num_bytes = 4 * size.parameters + 12 * size.decoder_parameters
    trained = cost.estimate("train", flops, round(num_seen), num_seen * mean_seconds, num_bytes)
    if not config.evaluate_every:
        return trained
    num_measured = round(num_seen / config.batch_size / config.evaluate_every) * num_dev
    evaluated = cost.estimate("write", num_measured * text_flops(size, mean_seconds, embed), 0, 0.0, 0)
    return trained + evaluated


def training_memory(size: ModelSize, config: FinetuneConfig, num_trained: int, num_frames: int, device: str) -> int:
    """Bytes of memory that a worker needs for batches of the longest recording.

    It holds the decoder in fp32; the gradient and AdamW's two moments of the trained weights; with dev BLEU, the best
    weights; with EWC, the anchor, the Fisher and the intermediate results of one group; and the activations of a batch
    for the backward pass. Measured on a CPU, for batches of 1 to 16 recordings of 2 to 30 s. On a GPU, everything but
    the best weights is in GPU memory, and a checkpoint passes through the node's memory; this was not measured.

    Args:
        size: of the model.
        config: of the training.
        num_trained: number of trained weights.
        num_frames: frames of the longest recording.
        device: `cpu` or `cuda`.
    """
    best = 4 * num_trained if config.evaluate_every else 0
    if device != "cpu":
        return round(cost.PROCESS_BYTES + _LIBRARIES_BYTES + best + 2 * 12 * num_trained)
    held = 8 * num_trained + 8 * min(num_trained, GROUP_WEIGHTS) if config.ewc_lambda else 0
    batch = (config.micro_batch_size or config.batch_size) * _activations(size, num_frames)
    weights = 4 * size.decoder_parameters + 12 * num_trained
    return round(cost.PROCESS_BYTES + _LIBRARIES_BYTES + weights + best + held + batch)


def _activations(size: ModelSize, num_frames: int) -> float:
    """Bytes of fp32 activations that the backward pass of one example needs: keys and values, blocks, logits."""
    tokens = NUM_PROMPT + cost.TOKENS_PER_SECOND * num_frames / FRAMES_PER_SECOND
    block = tokens * (14 * size.d_model + 6 * size.decoder_ffn_dim) + num_frames * 2 * size.d_model
    return 4 * (size.decoder_layers * block + tokens * 3 * size.vocab_size)


def fisher_memory(size: ModelSize) -> int:
    """Bytes of memory that an actor needs to estimate the Fisher, for examples of 30 s; less on a GPU.

    It holds the decoder in fp32, its gradients, the sums of their squares, and a copy of the sums while they are
    written. The activations of one example are small in comparison.
    """
    return round(cost.PROCESS_BYTES + 4 * 4 * size.decoder_parameters + _BACKWARD_BYTES)


def averaging_memory(size: ModelSize) -> int:
    """Bytes of memory that a task needs to average the files of the Fisher.

    It holds the sum, and a file twice while it is read; then the mean, and twice the data to write. Freed memory of the
    size of the sum is not returned to the system (measured).
    """
    return round(cost.PROCESS_BYTES + FILES_BYTES + 4 * 4 * size.decoder_parameters)


def saving_memory(size: ModelSize) -> int:
    """Bytes of memory that a task needs to write the model after training; less with LoRA.

    It holds the decoder and the trained weights in fp32, and maps the encoder from the file of the model (measured).
    """
    return round(cost.PROCESS_BYTES + FILES_BYTES + 4 * size.parameters + 4 * size.decoder_parameters)


def converting_memory(size: ModelSize) -> int:
    """Bytes of memory that a task needs to convert the model to CTranslate2: in fp32 and in float16 (measured)."""
    return round(cost.PROCESS_BYTES + 6 * size.parameters)


def text_flops(size: ModelSize, mean_seconds: float, embed: EmbedConfig) -> float:
    """Operations of a forward pass of the decoder, for a recording of this length."""
    return size.decoder_flops(NUM_PROMPT + cost.TOKENS_PER_SECOND * mean_seconds, kept_frames(mean_seconds, embed))


def run_cost(job: FinetuneJob, size: ModelSize, speech: Speech) -> Cost:
    """The cost of one run."""
    config = job.finetune
    sources = [Direction.parse(text).source for text in config.directions]
    measured = sources + [Direction.parse(text).source for text in config.evaluate]
    num_learnt = num_examples(speech, sources, config.split)
    num_dev = num_examples(speech, measured, config.dev_split) if config.evaluate_every else 0
    seconds = sum(speech.count(code, config.split) * speech.mean_seconds[code] for code in sources)
    return finetune_cost(size, num_learnt, seconds / num_learnt, job.embed, config, num_dev)


def num_examples(speech: Speech, languages: Sequence[str], split: str) -> int:
    """Number of recordings of some languages in a split.

    Raises:
        UserError: if a language has none.
    """
    counts = {code: speech.count(code, split) for code in languages}
    if none := [code for code, count in counts.items() if not count]:
        raise UserError(f"no {none[0]} recording is of split {split!r}; choose another split")
    return sum(counts[code] for code in languages)


def learned(job: FinetuneJob) -> list[Direction]:
    """The directions whose texts a job needs: those to learn and those to preserve."""
    return [Direction.parse(text) for text in (*job.learned, *job.finetune.keep)]


def costs(job: FinetuneJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    made = embed_costs(job, job.embed, speech)
    return {**made, "finetune": run_cost(job, model_size(job.model), speech)}
