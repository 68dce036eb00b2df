r"""Translate and transcribe speech, scored by BLEU, chrF, WER and optionally COMET.

  on this machine    python jobs/translate.py                                  (the demo: speech in five languages)
  a checkpoint       python jobs/translate.py --name zh --translate.checkpoint zh --translate.baseline demo
  interpolation      python jobs/translate.py --name half --translate.checkpoint zh --translate.alpha 0.5
  your own speech    python jobs/translate.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  unseen languages   python jobs/translate.py --preset unseen             (FLEURS: one run for each of four prompts,
                                                                           compared in one table; unseen_wide: all 19)
  the paper's        python jobs/translate.py --preset transfer_test_large_v2 --dry-run    (estimated cost; then
                     without --dry-run, after jobs/finetune.py --preset transfer_large_v2; likewise
                     ja_zh_test_large_v2 and transfer_test_wide_large_v2)
  on a cluster       ray job submit --working-dir . -- python jobs/translate.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --translate.num-gpus 1

Reads the embeddings of this corpus, model and encoding under ROOT/embed, under any name, and encodes missing rows;
also ROOT/finetune of the checkpoint. Writes ROOT/translate/NAME: data/*.parquet (hypotheses), metrics.json,
rejected.parquet (recordings without a reference), manifest.json. --source-prompts writes one artifact for each prompt,
NAME-PROMPT, and prints one table. After a crash, run it again: it resumes. To add --translate.comet or
--translate.baseline, run it again with the flag: nothing is translated again.
"""

from xlt_ray.translate.config import TranslateJob

BASIC = (
    "embed.num-sentences",
    "embed.num-gpus",
    "translate.checkpoint",
    "translate.alpha",
    "translate.targets",
    "translate.transcribe",
    "translate.split",
    "translate.baseline",
    "translate.comet",
    "translate.num-gpus",
)
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: TranslateJob) -> None:
    """Encode missing recordings, then translate and score, once for each source prompt."""
    import shlex

    from xlt_ray.embed.cost import public_speech, show_costs
    from xlt_ray.embed.reader import on_embeddings
    from xlt_ray.job import progress
    from xlt_ray.job.commands import report_command
    from xlt_ray.translate import pipeline, results
    from xlt_ray.translate.cost import costs
    from xlt_ray.translate.plan import prepare

    if job.dry_run:
        public = public_speech(job, job.embed, [job.translate.split], job.translate.embeddings)
        show_costs(job, costs, public, lambda: prepare(job)[0].embeddings)
        return
    plans = prepare(job)
    made = on_embeddings(job, plans[0].embeddings, lambda: [pipeline.translate(plan) for plan in plans])
    for table in results.closing([artifact.read_json("metrics.json") for artifact in made]):
        progress.show(table)
    for artifact in made[:-1]:
        print(f"results  {shlex.quote(artifact.uri)}")
    progress.where_next(made[-1], job.root, report_command(job.root, job.name))
