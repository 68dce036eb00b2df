r"""Teach the decoder a new direction from one language: en-zh alone also improves the other languages into zh.

  on this machine    python jobs/finetune.py                                   (the demo's sentences, en-zh)
  keep the rest      python jobs/finetune.py --finetune.keep es-en,fr-en --finetune.ewc-lambda 1e4 --name kept
  the paper's        python jobs/finetune.py --preset transfer_large_v2 --dry-run  (what it will cost)
                     python jobs/finetune.py --preset ja_zh_large_v2
  on a cluster       ray job submit --working-dir . -- python jobs/finetune.py \
                         --preset transfer_large_v2 --corpus covost2:PATH --root s3://bucket/runs \
                         --embed.num-gpus 1 --finetune.num-gpus 1 --finetune.num-workers 8

Reads ROOT/embed/NAME, and makes it first where it is missing; with EWC also ROOT/fisher/NAME. Writes
ROOT/finetune/NAME: model/ (for transformers), log.json, data/examples.parquet, rejected.parquet, metrics.json,
manifest.json. Run it again after a crash: it goes on from the last checkpoint.
"""

import dataclasses

import pyarrow as pa

from xlt_ray import estimate, runtime, shards
from xlt_ray.config import FinetuneJob
from xlt_ray.embed import pipeline as embed
from xlt_ray.finetune import pipeline
from xlt_ray.finetune.plan import Plan, find_embeddings, prepare


def main(job: FinetuneJob) -> None:
    """Encode what is not encoded yet, then train."""
    if job.dry_run:
        reads = [("fisher", job.finetune.fisher)]
        runtime.show(estimate.dry_run(job, lambda root: recordings(*check(job, root)), reads))
        return
    encoding, plan = check(job, job.root)
    with runtime.cluster():
        if encoding:
            embed.embed(encoding, job.root)
        artifact = pipeline.finetune(plan)
    runtime.show(pipeline.as_table(artifact.read_json("metrics.json")))
    runtime.where_next(artifact, job.root, pipeline.next_command(job))


def check(job: FinetuneJob, root: str) -> tuple[embed.Plan | None, Plan]:
    """Everything that can be wrong, before any work; what the job makes is begun under `root`."""
    begun = dataclasses.replace(job, root=root)
    encoding = None if job.finetune.embeddings else embed.prepare(begun)
    embeddings = encoding.artifact if encoding else find_embeddings(job)
    return encoding, prepare(begun, embeddings, encoding.index if encoding else None)


def recordings(encoding: embed.Plan | None, plan: Plan) -> pa.Table:
    """What was said in every recording."""
    return encoding.index if encoding else shards.utterances(plan.embeddings)


if __name__ == "__main__":
    runtime.run(main)
