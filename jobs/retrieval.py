r"""How well does speech find its spoken translation? R@1, R@5, R@10 and MRR for every ordered pair of languages.

  on this machine    python jobs/retrieval.py                                  (the demo: real speech, five languages)
  your own speech    python jobs/retrieval.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  the paper's pairs  python jobs/retrieval.py --preset fleurs_large_v2 --dry-run         (what it will cost)
                     python jobs/retrieval.py --preset mass_large_v2 --corpus mass:PATH
  on a cluster       ray job submit --working-dir . -- python jobs/retrieval.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --retrieval.num-gpus 1

Reads ROOT/embed/NAME, and makes it first where it is missing. Writes ROOT/retrieval/NAME: data/*.parquet (rankings),
metrics.json, plots/, rejected.parquet, manifest.json. Run it again after a crash: it goes on from what is there.
"""

import dataclasses

import pyarrow as pa

from xlt_ray import estimate, runtime, shards
from xlt_ray.artifacts import Artifact
from xlt_ray.config import RetrievalJob
from xlt_ray.embed import pipeline as embed
from xlt_ray.retrieval import pipeline, results


def main(job: RetrievalJob) -> None:
    """Encode what is not encoded yet, then score and rank."""
    if job.dry_run:
        runtime.show(estimate.dry_run(job, lambda root: recordings(*check(job, root))))
        return
    plan, embeddings = check(job, job.root)
    with runtime.cluster():
        if plan:
            embed.embed(plan, job.root)
        artifact = pipeline.retrieve(job, embeddings)
    runtime.show(results.as_table(artifact.read_json("metrics.json")))
    runtime.where_next(artifact, job.root, f"python jobs/report.py --root {job.root} --name {job.name}")


def check(job: RetrievalJob, root: str) -> tuple[embed.Plan | None, Artifact]:
    """Everything that can be wrong, before any work; what the job makes is begun under `root`."""
    if job.retrieval.embeddings:
        return None, pipeline.find_embeddings(job)
    plan = embed.prepare(dataclasses.replace(job, root=root))
    return plan, plan.artifact


def recordings(plan: embed.Plan | None, embeddings: Artifact) -> pa.Table:
    """What was said in every recording."""
    return plan.index if plan else shards.utterances(embeddings)


if __name__ == "__main__":
    runtime.run(main)
