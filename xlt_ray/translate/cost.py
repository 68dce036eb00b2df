"""The cost of translation."""

from __future__ import annotations

from collections.abc import Sequence

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.finetune.cost import text_flops
from xlt_ray.job import cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.store.artifact import Artifact
from xlt_ray.translate.config import TranslateConfig, TranslateJob
from xlt_ray.translate.plan import directions_of

BYTES_PER_TEXT = 500
"""Bytes of a row of hypotheses (ids, source, reference, hypothesis); assumed."""


def translate_cost(
    size: ModelSize, num_texts: int, mean_seconds: float, embed: EmbedConfig, config: TranslateConfig
) -> Cost:
    """The cost of generating this many texts, token by token; every beam costs as much as a text."""
    flops = num_texts * config.num_beams * text_flops(size, mean_seconds, embed)
    return cost.estimate("write", flops, num_texts, num_texts * mean_seconds, num_texts * BYTES_PER_TEXT)


def writing_memory(size: ModelSize, num_frames: int, config: TranslateConfig, device: str) -> int:
    """Bytes of memory that an actor needs for a batch of the longest recordings.

    It holds the weights of the decoder in fp32, the frames of the batch in fp16 and fp32, and, for every beam, keys and
    values of each frame and token in each layer. 60 MB and the factors for copies (when a text grows, and when beams
    are reordered) are measured. On a GPU, keys and values are in GPU memory; this was not measured.

    Args:
        size: of the model.
        num_frames: frames of the longest recording.
        config: of the translation.
        device: `cpu` or `cuda`.
    """
    keys_and_values = 2 * size.decoder_layers * size.d_model * 4 * config.num_beams * (num_frames + config.max_tokens)
    if device != "cpu":
        keys_and_values = 0
    batch = config.batch_size * (keys_and_values + 6 * num_frames * size.d_model)
    copies = 1.25 if config.num_beams == 1 else 2.3
    return round(cost.PROCESS_BYTES + 4 * size.decoder_parameters + 60e6 + copies * batch)


def _runs(job: TranslateJob, size: ModelSize, speech: Speech) -> Cost:
    config, found = job.translate, Cost()
    num_runs = max(1, len(job.source_prompts))
    for direction in directions_of(job, _learned(job)):
        num_rows = num_runs * speech.count(direction.source, config.split)
        found += translate_cost(size, num_rows, speech.mean_seconds[direction.source], job.embed, config)
    return found


def _learned(job: TranslateJob) -> Sequence[str]:
    """The directions of the checkpoint, which a dry run need not have yet."""
    if not job.translate.checkpoint:
        return []
    checkpoint = Artifact.at(job.root, "finetune", job.translate.checkpoint)
    directions: list[str] = checkpoint.settings["finetune"]["directions"] if checkpoint.is_committed else []
    return directions


def costs(job: TranslateJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    made = embed_costs(job, job.embed, speech)
    return {**made, "translate": _runs(job, model_size(job.model), speech)}
