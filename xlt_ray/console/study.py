r"""Compare source languages for fine-tuning: one run for each, tested on all, as a transfer matrix.

  on this machine    python jobs/study.py                                      (the demo: five languages into zh)
  all its speech     python jobs/study.py --preset asterisk --name study \
                         --finetune.epochs 6 --study.sources en,es,fr
  on a cluster       ray job submit --working-dir . -- python jobs/study.py --corpus fleurs --languages en,fr,de,ja,zh \
                         --model openai/whisper-large-v2 --root s3://bucket/runs --name study \
                         --embed.num-gpus 1 --finetune.num-gpus 1 --finetune.num-workers 8

Reads the embeddings of this corpus, model and encoding under ROOT/embed, under any name, and encodes missing rows.
Also makes ROOT/retrieval/NAME-test and, for each source, NAME-SOURCE-TARGET under ROOT/fisher, ROOT/finetune and
ROOT/translate. Writes ROOT/study/NAME: data/cells.parquet, metrics.json (the matrix with intervals; R@1 and Fisher
distance; their rank correlation with the transfer), plots/, manifest.json. After a crash, run it again: finished
artifacts are reused.
"""

from xlt_ray.study.config import StudyJob

BASIC = (
    "embed.num-sentences",
    "embed.num-gpus",
    "finetune.learning-rate",
    "finetune.epochs",
    "finetune.num-gpus",
    "study.target",
    "study.sources",
)
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: StudyJob) -> None:
    """Encode missing recordings, then fine-tune on each source and compare."""
    from xlt_ray.embed.cost import public_speech, show_costs
    from xlt_ray.embed.reader import on_embeddings
    from xlt_ray.finetune.cost import learned
    from xlt_ray.job import progress
    from xlt_ray.job.commands import report_command
    from xlt_ray.study import pipeline, results
    from xlt_ray.study.cost import costs
    from xlt_ray.study.plan import prepare, splits_of

    if job.dry_run:
        public = public_speech(job, job.embed, splits_of(job), job.finetune.embeddings, learned(job))
        show_costs(job, costs, public, lambda: prepare(job).embeddings)
        return
    plan = prepare(job)
    artifact = on_embeddings(job, plan.embeddings, lambda: pipeline.study(plan))
    progress.show(results.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, report_command(job.root, job.name))
