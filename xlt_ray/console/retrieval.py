r"""Retrieve the spoken translation of speech: R@1, R@5, R@10 and MRR for every ordered pair of languages.

  on this machine    python jobs/retrieval.py                                  (the demo: speech in five languages)
  your own speech    python jobs/retrieval.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  the paper's pairs  python jobs/retrieval.py --preset fleurs_large_v2 --dry-run         (estimated cost)
                     python jobs/retrieval.py --preset mass_large_v2 --corpus mass:PATH
  on a cluster       ray job submit --working-dir . -- python jobs/retrieval.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --retrieval.num-gpus 1

Reads the embeddings of this corpus, model and encoding under ROOT/embed, under any name, and encodes missing rows.
Writes ROOT/retrieval/NAME: data/*.parquet (rankings), metrics.json, plots/, rejected.parquet, manifest.json. After a
crash, run it again: it resumes. To show another --retrieval.mode or --retrieval.protocol, run it again with that
value: the rankings contain all of them, and nothing is scored again. `xlt_ray.retrieval.rankings` reads them.
"""

from xlt_ray.retrieval.config import RetrievalJob

BASIC = (
    "embed.num-sentences",
    "embed.encoding",
    "embed.num-gpus",
    "retrieval.split",
    "retrieval.mode",
    "retrieval.baselines",
    "retrieval.candidates",
    "retrieval.num-gpus",
)
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: RetrievalJob) -> None:
    """Encode missing recordings, then score and rank."""
    from xlt_ray.embed.cost import public_speech, show_costs
    from xlt_ray.embed.reader import on_embeddings
    from xlt_ray.job import progress
    from xlt_ray.job.commands import report_command
    from xlt_ray.retrieval import pipeline, results
    from xlt_ray.retrieval.cost import costs
    from xlt_ray.retrieval.plan import prepare

    if job.dry_run:
        public = public_speech(job, job.embed, [job.retrieval.split], job.retrieval.embeddings)
        show_costs(job, costs, public, lambda: prepare(job).embeddings)
        return
    plan = prepare(job)
    artifact = on_embeddings(job, plan.embeddings, lambda: pipeline.retrieve(plan))
    progress.show(results.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, report_command(job.root, job.name))
