"""`jobs/embed.py --check`: the corpus doctor, spread over the cluster. Decodes everything, encodes nothing."""

from __future__ import annotations

import ray

from xlt_ray import corpora
from xlt_ray.corpora.doctor import CorpusCheck, Finding, check_batch, summarise
from xlt_ray.embed.config import EmbedJob
from xlt_ray.job import progress
from xlt_ray.store.schema import Utterance

_BATCH_SIZE = 64


def check_corpus(job: EmbedJob) -> CorpusCheck:
    """Report missing, undecodable, silent, too long, duplicate and mis-paired recordings. Needs a running Ray."""
    rows = list(
        corpora.read_splits_as_written(job.corpus, job.languages, job.splits, corpora.parse_columns(job.columns))
    )
    check = ray.remote(_fetch_and_check)
    waiting = [
        check.remote(job.corpus, rows[first : first + _BATCH_SIZE]) for first in range(0, len(rows), _BATCH_SIZE)
    ]
    findings: list[Finding] = []
    with progress.Bar("check", len(rows), 0) as bar:
        while waiting:
            (ready,), waiting = ray.wait(waiting)
            found = ray.get(ready)
            findings += found
            bar.advance(len(found))
    return summarise(findings)


def _fetch_and_check(corpus: str, rows: list[Utterance]) -> list[Finding]:
    corpora.fetch(corpus)
    return check_batch(rows)
