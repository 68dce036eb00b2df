"""The cost of a study."""

from __future__ import annotations

import dataclasses

from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.cost import FILES_BYTES, num_examples, run_cost, text_flops
from xlt_ray.job import cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.study.config import StudyJob
from xlt_ray.study.plan import TEST
from xlt_ray.translate.config import TranslateConfig
from xlt_ray.translate.cost import translate_cost


def study_cost(job: StudyJob, size: ModelSize, speech: Speech) -> Cost:
    """The cost of a run on each source, its Fisher, and the translations of the test split, without retrieval."""
    found = Cost()
    for source in job.sources:
        config = dataclasses.replace(job.finetune, directions=(f"{source}-{job.study.target}",))
        found += run_cost(dataclasses.replace(job, finetune=config), size, speech)
        num_fisher = min(config.fisher_examples, num_examples(speech, [source], config.split))
        seconds = speech.mean_seconds[source]
        flops = 3 * num_fisher * text_flops(size, seconds, job.embed)
        found += cost.estimate("train", flops, num_fisher, num_fisher * seconds, 4 * size.decoder_parameters)
        num_texts = (len(job.sources) + 1) * speech.count(source, TEST)
        found += translate_cost(size, num_texts, seconds, job.embed, TranslateConfig())
    return found


def distance_memory(size: ModelSize, config: FinetuneConfig) -> int:
    """Bytes of memory that a task needs to compute the distance of two Fishers.

    It holds the trained weights of the first while it reads the second completely, twice; then the trained weights of
    both, and the largest weight three times in fp64.
    """
    embeddings = size.vocab_size * size.d_model
    trained = size.decoder_parameters - (0 if config.train_embeddings else embeddings)
    largest = embeddings if config.train_embeddings else size.d_model * size.decoder_ffn_dim
    held = max(4 * trained + 2 * 4 * size.decoder_parameters, 2 * 4 * trained + 3 * 8 * largest)
    return round(cost.PROCESS_BYTES + FILES_BYTES + held)


def costs(job: StudyJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    made = embed_costs(job, job.embed, speech)
    return {**made, "study": study_cost(job, model_size(job.model), speech)}
