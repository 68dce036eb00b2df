r"""Mine translation pairs from speech that is not parallel, and write them as a corpus.

  on this machine    python jobs/mine.py                        (the demo; its sentence_ids are not used)
  your own speech    python jobs/mine.py --corpus manifest:corpus.tsv --languages en,fr --root runs --name mine \
                         --mine.threshold 1.02
  exact search       python jobs/mine.py --corpus manifest:corpus.tsv --languages en,fr --mine.candidates all
  on a cluster       ray job submit --working-dir . -- python jobs/mine.py \
                         --preset mine_large_v2 --root s3://bucket/runs --embed.num-gpus 1 --mine.num-gpus 1

Reads the embeddings of this corpus, model and encoding under ROOT/embed, under any name, and encodes missing rows.
Every recording is compared with every recording of the other language: first by frames pooled in time, then the best
--mine.candidates by all frames (SeqSim). The margin of a pair is its score divided by the mean score of the nearest
neighbours of both recordings. Writes ROOT/mine/NAME: data/*.parquet (nearest neighbours), mined/*.parquet and mined.tsv
(the mined pairs: `--corpus manifest:ROOT/mine/NAME/mined.tsv`), metrics.json, manifest.json. After a crash, run it
again: it resumes. To select other pairs, run it again with another --mine.margin, --mine.threshold, --mine.top-n or
--mine.no-one-to-one: nothing is scored again. If both languages share sentence_ids, metrics.json has precision, recall
and F1 by threshold. Use them to choose a threshold for speech without labels.
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
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: MineJob) -> None:
    """Encode missing recordings, then mine."""
    from xlt_ray.embed.cost import public_speech, show_costs
    from xlt_ray.embed.reader import on_embeddings
    from xlt_ray.job import progress
    from xlt_ray.mine import pipeline, results
    from xlt_ray.mine.cost import costs
    from xlt_ray.mine.plan import prepare

    if job.dry_run:
        public = public_speech(job, job.embed, [job.mine.split], job.mine.embeddings)
        show_costs(job, costs, public, lambda: prepare(job).embeddings)
        return
    plan = prepare(job)
    artifact = on_embeddings(job, plan.embeddings, lambda: pipeline.mine(plan))
    progress.show(results.as_table(artifact.read_json("metrics.json")))
    progress.where_next(artifact, job.root, results.next_command(job, artifact))
