r"""Encode a corpus once: speech in, shards of encoder frames out.

  on this machine    python jobs/embed.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  look first         python jobs/embed.py --corpus manifest:corpus.tsv --languages en,fr --check
  what it will cost  python jobs/embed.py --preset fleurs_large_v2 --dry-run
  on a cluster       ray job submit --working-dir . -- python jobs/embed.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1

Reads the corpus. Writes ROOT/embed/NAME: data/*.parquet (frames), rejected.parquet (what could not be used, and why),
metrics.json, manifest.json. Run it again after a crash: it goes on from what is there.
"""

import dataclasses

from xlt_ray import estimate, runtime
from xlt_ray.config import EmbedJob
from xlt_ray.embed import pipeline
from xlt_ray.embed.check import check_corpus


def main(job: EmbedJob) -> None:
    """Check the settings, then encode."""
    if job.check:
        with runtime.cluster():
            print(check_corpus(job).render())
        return
    if job.dry_run:
        runtime.show(estimate.dry_run(job, lambda root: check(job, root).index))
        return
    plan = check(job, job.root)
    with runtime.cluster():
        artifact = pipeline.embed(plan, job.root)
    runtime.show(pipeline.as_table(artifact.read_json("metrics.json")))
    runtime.where_next(artifact, job.root, f"python jobs/retrieval.py --root {job.root} --name {job.name}")


def check(job: EmbedJob, root: str) -> pipeline.Plan:
    """Everything that can be wrong, before any work; the artifact is begun under `root`."""
    return pipeline.prepare(dataclasses.replace(job, root=root))


if __name__ == "__main__":
    runtime.run(main)
