r"""Fine-tune the decoder on a new direction: training on en-zh alone also improves other languages into zh.

  on this machine    python jobs/finetune.py                                   (the demo's speech, en-zh)
  preserve X-en      python jobs/finetune.py --finetune.keep es-en,fr-en --finetune.ewc-lambda 10 --name kept
  the paper's        python jobs/finetune.py --preset transfer_large_v2 --dry-run  (estimated cost)
                     python jobs/finetune.py --preset ja_zh_large_v2
  on a cluster       ray job submit --working-dir . -- python jobs/finetune.py \
                         --preset transfer_large_v2 --corpus covost2:PATH --root s3://bucket/runs \
                         --embed.num-gpus 1 --finetune.num-gpus 1 --finetune.num-workers 8

Reads the embeddings of this corpus, model and encoding under ROOT/embed, under any name, and encodes missing rows;
with EWC also ROOT/fisher/NAME. Writes ROOT/finetune/NAME: model/ (for transformers), log.json, data/examples.parquet,
rejected.parquet, metrics.json, manifest.json. After a crash, run it again: it resumes from the last checkpoint.
"""

from xlt_ray.finetune.config import FinetuneJob

BASIC = (
    "embed.num-sentences",
    "embed.num-gpus",
    "finetune.directions",
    "finetune.prompt",
    "finetune.learning-rate",
    "finetune.batch-size",
    "finetune.epochs",
    "finetune.lora-rank",
    "finetune.keep",
    "finetune.replay-fraction",
    "finetune.ewc-lambda",
    "finetune.evaluate-every",
    "finetune.num-workers",
    "finetune.num-gpus",
    "finetune.export",
)
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: FinetuneJob) -> None:
    """Encode missing recordings, then train."""
    from xlt_ray.embed.cost import public_speech, show_costs
    from xlt_ray.embed.reader import on_embeddings
    from xlt_ray.finetune import pipeline, results
    from xlt_ray.finetune.cost import costs, learned
    from xlt_ray.finetune.plan import prepare
    from xlt_ray.job import progress

    if job.dry_run:
        public = public_speech(job, job.embed, job.finetune.splits, job.finetune.embeddings, learned(job))
        show_costs(job, costs, public, lambda: prepare(job).embeddings)
        return
    plan = prepare(job)
    artifact = on_embeddings(job, plan.embeddings, lambda: pipeline.finetune(plan))
    progress.show(results.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, results.next_command(job))
