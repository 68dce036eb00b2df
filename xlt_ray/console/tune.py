r"""Search for the fine-tuning settings with the best gain and retention; poor trials are stopped early.

  on this machine    python jobs/tune.py                            (the demo: 12 trials, learning rate x EWC lambda)
  your search space  python jobs/tune.py --preset asterisk --name search \
                         --tune.learning-rate 1e-5..1e-4 --tune.ewc-lambda 0,1,10,100 --tune.num-trials 24
  one objective      python jobs/tune.py --name mixed --tune.objective mix --tune.gain-weight 0.7
  on a cluster       ray job submit --working-dir . -- python jobs/tune.py --corpus covost2:PATH --languages en,fr \
                         --model openai/whisper-large-v2 --root s3://bucket/runs --name search \
                         --embed.num-gpus 1 --finetune.num-gpus 1 --tune.max-concurrent 8

Reads the embeddings of this corpus, model and encoding under ROOT/embed, under any name, and encodes missing rows.
All trials share the frames and one Fisher (ROOT/fisher/NAME). They are compared on the dev split only. The best become
ROOT/finetune/NAME-000 and so on, and are scored once on the test split. Writes ROOT/tune/NAME: data/*.parquet (one file
per trial), metrics.json, plots/pareto.png, rejected.parquet (failed trials with reasons), manifest.json. After a crash,
run it again: finished trials are not repeated.
"""

from xlt_ray.tune.config import TuneJob

BASIC = (
    "embed.num-sentences",
    "embed.num-gpus",
    "finetune.directions",
    "finetune.keep",
    "finetune.epochs",
    "finetune.num-gpus",
    "tune.learning-rate",
    "tune.ewc-lambda",
    "tune.num-trials",
    "tune.objective",
    "tune.num-chosen",
    "tune.max-concurrent",
)
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: TuneJob) -> None:
    """Encode missing recordings, then search."""
    from xlt_ray.embed.cost import public_speech, show_costs
    from xlt_ray.embed.reader import on_embeddings
    from xlt_ray.finetune.cost import learned
    from xlt_ray.job import progress
    from xlt_ray.job.commands import report_command
    from xlt_ray.tune import pipeline, results
    from xlt_ray.tune.cost import costs
    from xlt_ray.tune.plan import prepare, splits_of

    if job.dry_run:
        public = public_speech(job, job.embed, splits_of(job), job.finetune.embeddings, learned(job))
        show_costs(job, costs, public, lambda: prepare(job).embeddings)
        return
    plan = prepare(job)
    searches = not plan.artifact.is_complete
    artifact = on_embeddings(job, plan.embeddings, lambda: pipeline.search(plan), with_state_api=searches)
    progress.show(results.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, report_command(job.root, job.name))
