r"""How well does speech find its spoken translation? R@1, R@5, R@10 and MRR for every ordered pair of languages.

  on this machine    python jobs/retrieval.py                                  (the demo: real speech, five languages)
  your own speech    python jobs/retrieval.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  on a cluster       ray job submit --working-dir . -- python jobs/retrieval.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --retrieval.num-gpus 1

Reads ROOT/embed/NAME, and makes it first where it is missing. Writes ROOT/retrieval/NAME: data/*.parquet (rankings),
metrics.json, plots/, rejected.parquet, manifest.json. Run it again after a crash: it goes on from what is there.
"""

from xlt_ray import runtime
from xlt_ray.config import RetrievalJob
from xlt_ray.embed import pipeline as embed
from xlt_ray.retrieval import pipeline, results


def main(job: RetrievalJob) -> None:
    """Encode what is not encoded yet, then score and rank."""
    plan = None if job.retrieval.embeddings else embed.prepare(job)
    embeddings = plan.artifact if plan else pipeline.find_embeddings(job)
    with runtime.cluster():
        if plan:
            embed.embed(plan, job.root)
        artifact = pipeline.retrieve(job, embeddings)
    runtime.show(results.as_table(artifact.read_json("metrics.json")))
    runtime.where_next(artifact, job.root, f"python jobs/report.py --root {job.root} --name {job.name}")


if __name__ == "__main__":
    runtime.run(main)
