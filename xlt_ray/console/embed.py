r"""Encode a corpus once: from speech to shards of encoder frames.

  on this machine    python jobs/embed.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  check it first     python jobs/embed.py --corpus manifest:corpus.tsv --languages en,fr --check
  estimated cost     python jobs/embed.py --preset fleurs_large_v2 --dry-run
  on a cluster       ray job submit --working-dir . -- python jobs/embed.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1

Reads the corpus. Writes ROOT/embed/NAME: data/*.parquet (frames), index.parquet (recordings and their shards),
rejected.parquet (rejected recordings with reasons), metrics.json, manifest.json. If embeddings of the same corpus,
model and encoding exist under another name, missing recordings are added to them. After a crash, run it again: it
resumes from the finished shards.
"""

from xlt_ray.embed.config import EmbedJob

BASIC = (
    "embed.num-sentences",
    "embed.encoding",
    "embed.layers",
    "embed.split-long",
    "embed.num-gpus",
    "embed.max-actors",
)
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: EmbedJob) -> None:
    """Check the settings, then encode."""
    from xlt_ray.embed import pipeline, results
    from xlt_ray.embed.check import check_corpus
    from xlt_ray.embed.cost import costs, public_speech, show_costs
    from xlt_ray.embed.plan import prepare
    from xlt_ray.job import cluster, pools, progress

    if job.check:
        with cluster.cluster():
            print(check_corpus(job).render())
        return
    if job.dry_run:
        public = public_speech(job, job.embed, job.splits)
        show_costs(
            job,
            lambda job, speech: costs(job, job.embed, speech),
            public,
            lambda: prepare(job, job.embed, job.splits),
        )
        return
    embeddings = prepare(job, job.embed, job.splits)
    with cluster.cluster():
        pools.require(job)
        artifact = pipeline.embed(embeddings)
    progress.show(results.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, results.next_command(job))
