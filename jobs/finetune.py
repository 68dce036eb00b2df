r"""Teach the decoder a new direction from one language: en-zh alone also improves the other languages into zh.

  on this machine    python jobs/finetune.py                                   (the demo's sentences, en-zh)
  keep the rest      python jobs/finetune.py --finetune.keep es-en,fr-en --finetune.ewc-lambda 1e4 --name kept
  on a cluster       ray job submit --working-dir . -- python jobs/finetune.py --corpus covost2:PATH --languages en,zh \
                         --model openai/whisper-large-v2 --root s3://bucket/runs --name en-zh \
                         --embed.num-gpus 1 --finetune.num-gpus 1 --finetune.num-workers 8

Reads ROOT/embed/NAME, and makes it first where it is missing; with EWC also ROOT/fisher/NAME. Writes
ROOT/finetune/NAME: model/ (for transformers), log.json, data/examples.parquet, rejected.parquet, metrics.json,
manifest.json. Run it again after a crash: it goes on from the last checkpoint.
"""

from xlt_ray import runtime
from xlt_ray.config import FinetuneJob
from xlt_ray.embed import pipeline as embed
from xlt_ray.finetune import pipeline
from xlt_ray.finetune.plan import find_embeddings, prepare


def main(job: FinetuneJob) -> None:
    """Encode what is not encoded yet, then train."""
    encoding = None if job.finetune.embeddings else embed.prepare(job)
    embeddings = encoding.artifact if encoding else find_embeddings(job)
    plan = prepare(job, embeddings, encoding.index if encoding else None)
    with runtime.cluster():
        if encoding:
            embed.embed(encoding, job.root)
        artifact = pipeline.finetune(plan)
    runtime.show(pipeline.as_table(artifact.read_json("metrics.json")))
    runtime.where_next(artifact, job.root, pipeline.next_command(job))


if __name__ == "__main__":
    runtime.run(main)
