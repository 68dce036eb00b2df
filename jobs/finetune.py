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
from functools import partial

from xlt_ray.embed import pipeline as embed
from xlt_ray.embed.cost import counted, public_speech
from xlt_ray.finetune import pipeline
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.finetune.cost import costs, learned
from xlt_ray.finetune.plan import Plan, prepare
from xlt_ray.job import cli, cluster, cost, progress
from xlt_ray.presets import PRESETS


def main(job: FinetuneJob) -> None:
    """Encode what is not encoded yet, then train."""
    if job.dry_run:
        reads = [("fisher", job.finetune.fisher)]
        known = public_speech(job, job.embed, job.finetune.embeddings, learned(job))
        progress.show(
            cost.dry_run(job, known, lambda root: counted(check(job, root)[0].rows), partial(costs, job), reads)
        )
        return
    embeddings, plan = check(job, job.root)
    with cluster.cluster():
        embeddings.make(job.root)
        artifact = pipeline.finetune(plan)
    progress.show(pipeline.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, pipeline.next_command(job))


def check(job: FinetuneJob, root: str) -> tuple[embed.Embeddings, Plan]:
    """Everything that can be wrong, before any work; what the job makes is begun under `root`."""
    embeddings = embed.embeddings(job, job.finetune.embeddings, root)
    return embeddings, prepare(dataclasses.replace(job, root=root), embeddings.artifact, embeddings.index)


if __name__ == "__main__":
    cli.run(main, PRESETS)
