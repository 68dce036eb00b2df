r"""What does speech become in writing? Translations and transcripts with BLEU, chrF, WER and, where asked for, COMET.

  on this machine    python jobs/translate.py                                  (the demo: real speech, five languages)
  a tuned decoder    python jobs/translate.py --name zh --translate.checkpoint zh --translate.baseline demo
  between the two    python jobs/translate.py --name half --translate.checkpoint zh --translate.alpha 0.5
  your own speech    python jobs/translate.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  on a cluster       ray job submit --working-dir . -- python jobs/translate.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --translate.num-gpus 1

Reads ROOT/embed/NAME, and makes it first where it is missing; ROOT/finetune of the checkpoint. Writes
ROOT/translate/NAME: data/*.parquet (hypotheses), metrics.json, rejected.parquet (what has no reference), manifest.json.
Run it again after a crash: it goes on from what is there. Run it again with --translate.comet or --translate.baseline:
the texts are scored, not translated again.
"""

from xlt_ray import runtime
from xlt_ray.config import TranslateJob
from xlt_ray.embed import pipeline as embed
from xlt_ray.translate import pipeline, tables
from xlt_ray.translate.plan import find_embeddings, prepare


def main(job: TranslateJob) -> None:
    """Encode what is not encoded yet, then translate and score."""
    encoding = None if job.translate.embeddings else embed.prepare(job)
    embeddings = encoding.artifact if encoding else find_embeddings(job)
    plan = prepare(job, embeddings, encoding.index if encoding else None)
    with runtime.cluster():
        if encoding:
            embed.embed(encoding, job.root)
        artifact = pipeline.translate(plan)
    figures = artifact.read_json("metrics.json")
    runtime.show(tables.as_table(figures))
    if figures["kept"]:
        runtime.show(tables.kept_table(figures))
    runtime.where_next(artifact, job.root, f"python jobs/report.py --root {job.root} --name {job.name}")


if __name__ == "__main__":
    runtime.run(main)
