r"""What does speech become in writing? Translations and transcripts with BLEU, chrF, WER and, where asked for, COMET.

  on this machine    python jobs/translate.py                                  (the demo: real speech, five languages)
  a tuned decoder    python jobs/translate.py --name zh --translate.checkpoint zh --translate.baseline demo
  between the two    python jobs/translate.py --name half --translate.checkpoint zh --translate.alpha 0.5
  your own speech    python jobs/translate.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  languages that     python jobs/translate.py --preset unseen             (FLEURS: one run for each of four prompts,
  Whisper never saw                                                        compared in one table; unseen_wide: all 19)
  the paper's        python jobs/translate.py --preset transfer_test_large_v2 --dry-run    (what it will cost; then
                     without --dry-run, after jobs/finetune.py --preset transfer_large_v2; ja_zh_test_large_v2 and
                     transfer_test_wide_large_v2 alike)
  on a cluster       ray job submit --working-dir . -- python jobs/translate.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --translate.num-gpus 1

Reads ROOT/embed/NAME, and makes it first where it is missing; ROOT/finetune of the checkpoint. Writes
ROOT/translate/NAME: data/*.parquet (hypotheses), metrics.json, rejected.parquet (what has no reference), manifest.json.
With --source-prompts there is one such artifact for each prompt, NAME-PROMPT, and one table for all.
Run it again after a crash: it goes on from what is there. Run it again with --translate.comet or --translate.baseline:
the texts are scored, not translated again.
"""

import dataclasses

from xlt_ray import estimate, runtime
from xlt_ray.config import TranslateJob
from xlt_ray.embed import pipeline as embed
from xlt_ray.translate import pipeline, tables
from xlt_ray.translate.plan import Plan, prepare, runs


def main(job: TranslateJob) -> None:
    """Encode what is not encoded yet, then translate and score, once for each source prompt."""
    if job.dry_run:
        reads = [("finetune", job.translate.checkpoint), ("translate", job.translate.baseline)]
        runtime.show(estimate.dry_run(job, lambda root: check(job, root)[0].rows, reads))
        return
    embeddings, plans = check(job, job.root)
    with runtime.cluster():
        embeddings.make(job.root)
        made = [pipeline.translate(plan) for plan in plans]
    for table in tables.closing([artifact.read_json("metrics.json") for artifact in made]):
        runtime.show(table)
    for artifact in made[:-1]:
        print(f"results  {artifact.uri}")
    runtime.where_next(made[-1], job.root, f"python jobs/report.py --root {job.root} --name {job.name}")


def check(job: TranslateJob, root: str) -> tuple[embed.Embeddings, list[Plan]]:
    """Everything that can be wrong, before any work; what the job makes is begun under `root`."""
    embeddings = embed.embeddings(job, job.translate.embeddings, root)
    begun = runs(dataclasses.replace(job, root=root))
    return embeddings, [prepare(run, embeddings.artifact, embeddings.index) for run in begun]


if __name__ == "__main__":
    runtime.run(main)
