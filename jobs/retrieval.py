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

from xlt_ray import estimate, runtime
from xlt_ray.config import RetrievalJob
from xlt_ray.embed import pipeline as embed
from xlt_ray.retrieval import pipeline, results


def main(job: RetrievalJob) -> None:
    """Encode what is not encoded yet, then score and rank."""
    if job.dry_run:
        runtime.show(estimate.dry_run(job, lambda root: check(job, root).rows))
        return
    embeddings = check(job, job.root)
    with runtime.cluster():
        embeddings.make(job.root)
        artifact = pipeline.retrieve(job, embeddings.artifact)
    runtime.show(results.as_table(artifact.read_json("metrics.json")))
    runtime.where_next(artifact, job.root, f"python jobs/report.py --root {job.root} --name {job.name}")


def check(job: RetrievalJob, root: str) -> embed.Embeddings:
    """Everything that can be wrong, before any work; what the job makes is begun under `root`."""
    embeddings = embed.embeddings(job, job.retrieval.embeddings, root)
    pipeline.require_layers(job, embeddings.artifact)
    return embeddings


if __name__ == "__main__":
    runtime.run(main)
