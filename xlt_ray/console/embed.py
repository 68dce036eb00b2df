r"""Encode a corpus once: speech in, shards of encoder frames out.

  on this machine    python jobs/embed.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine
  look first         python jobs/embed.py --corpus manifest:corpus.tsv --languages en,fr --check
  what it will cost  python jobs/embed.py --preset fleurs_large_v2 --dry-run
  on a cluster       ray job submit --working-dir . -- python jobs/embed.py \
                         --preset fleurs_large_v2 --root s3://bucket/runs --embed.num-gpus 1

Reads the corpus. Writes ROOT/embed/NAME: data/*.parquet (frames), index.parquet (which recordings, and where),
rejected.parquet (what could not be used, and why), metrics.json, manifest.json. Where embeddings of the same corpus,
model and encoding are there under another name, it adds to them what they lack. Run it again after a crash: it goes on
from what is there.
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
"""Settings of its groups that `--help` shows; `--help-all` shows every one."""


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
