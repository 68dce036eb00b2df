r"""Which recordings of two languages translate each other, in speech that is not parallel? Pairs, and a corpus of them.

  on this machine    python jobs/mine.py                        (the demo, as if its sentence_ids were not known)
  your own speech    python jobs/mine.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine \
                         --mine.threshold 1.02
  exact, no stages   python jobs/mine.py --corpus manifest:corpus.tsv --languages en,fr --mine.candidates all
  on a cluster       ray job submit --working-dir . -- python jobs/mine.py \
                         --preset mine_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --mine.num-gpus 1

Reads the embeddings of this corpus, model and encoding under ROOT/embed, whatever their name, and encodes what they
lack. Every recording of one language is compared with every one of the other: by frames pooled in time, then the best
--mine.candidates of each side on all frames (SeqSim). The margin of a pair is its score over the mean of the nearest of
both. Writes ROOT/mine/NAME: data/*.parquet (who is among the nearest of whom), mined/*.parquet and mined.tsv (the pairs
that are taken: `--corpus manifest:ROOT/mine/NAME/mined.tsv`), metrics.json, manifest.json. Run it again after a crash:
it goes on from what is there. Run it again with another --mine.margin, --mine.threshold, --mine.top-n or
--mine.no-one-to-one: only the choice is made anew. Where both languages share sentence_ids, metrics.json has precision,
recall and F1 by threshold, from which a threshold can be chosen for speech of which nothing is known.
"""

from xlt_ray.mine.config import MineJob

BASIC = (
    "embed.num-sentences",
    "embed.encoding",
    "embed.num-gpus",
    "mine.split",
    "mine.candidates",
    "mine.margin",
    "mine.threshold",
    "mine.top-n",
    "mine.num-gpus",
)
"""Settings of its groups that `--help` shows; `--help-all` shows every one."""


def main(job: MineJob) -> None:
    """Encode what is not encoded yet, then mine."""
    from xlt_ray.embed.cost import public_speech, show_costs
    from xlt_ray.embed.pipeline import embed
    from xlt_ray.job import cluster, pools, progress
    from xlt_ray.mine import pipeline, results
    from xlt_ray.mine.cost import costs
    from xlt_ray.mine.plan import prepare

    if job.dry_run:
        public = public_speech(job, job.embed, [job.mine.split], job.mine.embeddings)
        show_costs(job, costs, public, lambda: prepare(job).embeddings)
        return
    plan = prepare(job)
    with cluster.cluster():
        pools.require(job)
        embed(plan.embeddings)
        artifact = pipeline.mine(plan)
    progress.show(results.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, results.next_command(job, artifact))
