"""The results of an embed run: the index, rejected rows, metrics.json, an MLflow run, the table at the end."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from xlt_ray.corpora import audio
from xlt_ray.embed import committed
from xlt_ray.embed.config import EmbedJob
from xlt_ray.errors import TooManyRejected
from xlt_ray.job.commands import command
from xlt_ray.job.tracking import Tracker
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import INDEX, REJECTED


def require_few_rejected(parts: pa.Table, committed: pa.Table, most: float) -> None:
    """Refuse a run after which more than the fraction `most` of an artifact's recordings are rejected.

    A run that does not increase the fraction is accepted, because an earlier run was allowed to commit it.

    Args:
        parts: rows of the run, with their reasons.
        committed: INDEX before the run.
        most: maximum fraction of the rows.

    Raises:
        TooManyRejected: with the most frequent reasons in this run.
    """
    new = parts["utterance_id"].combine_chunks()
    kept = committed.select(["row"]).filter(pc.invert(pc.is_in(committed["utterance_id"], new)))
    bad = parts.filter(pc.is_valid(parts["reason"]))
    num, num_rows = kept["row"].null_count + bad.num_rows, kept.num_rows + parts.num_rows
    if _share(num, num_rows) <= max(most, _share(committed["row"].null_count, committed.num_rows)):
        return
    reasons = Counter(kind_of(reason) for reason in bad["reason"].to_pylist())
    listed = ", ".join(f"{kind} {count}" for kind, count in reasons.most_common(5))
    first = bad.slice(0, 1).to_pylist()[0]
    in_run = f", {bad.num_rows} of them in this run" if num > bad.num_rows else ""
    raise TooManyRejected(
        f"{num} of {num_rows} recordings are rejected{in_run} ({listed}), such as {first['utterance_id']}: "
        f"{first['reason']}; nothing is committed; mend the corpus (embed.py --check lists all), or allow more: "
        f"--embed.max-rejected {math.ceil(100 * num / num_rows) / 100:.2f}"
    )


def _share(num: int, num_rows: int) -> float:
    return num / num_rows if num_rows else 0.0


def kind_of(reason: str) -> str:
    """The kind of a reason: the part before its colon."""
    return reason.split(":", 1)[0]


def joined(committed: pa.Table, rejected: pa.Table, parts: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The index and the rejected rows of an artifact after a run.

    Args:
        committed: INDEX before the run.
        rejected: REJECTED before the run.
        parts: rows of the run (PART); they replace rows with the same utterance_id.

    Returns:
        INDEX sorted by unit, and REJECTED sorted by utterance_id, with every row of the index without frames.
    """
    new = parts["utterance_id"].combine_chunks()
    kept, old = (table.filter(pc.invert(pc.is_in(table["utterance_id"], new))) for table in (committed, rejected))
    table = pa.concat_tables([kept, parts.select(INDEX.names)])
    bad = parts.filter(pc.is_valid(parts["reason"])).select(REJECTED.names).cast(REJECTED)
    return (
        table.sort_by([("unit", "ascending"), ("utterance_id", "ascending")]),
        pa.concat_tables([old, bad]).sort_by("utterance_id"),
    )


def read_rejected(artifact: Artifact, index: pa.Table) -> pa.Table:
    """The rejected rows of an artifact that its index still has (`committed.read_index`)."""
    bad = index.filter(pc.is_null(index["row"]))["utterance_id"].combine_chunks()
    table = committed.table(artifact, "rejected.parquet") if len(bad) else None
    if table is None:
        return REJECTED.empty_table()
    return table.filter(pc.is_in(table["utterance_id"], bad))


def summarise(table: pa.Table, rejected: pa.Table) -> dict[str, Any]:
    """The content of metrics.json: utterances, seconds of speech and rejected rows by language, and the reasons.

    Args:
        table: INDEX of the artifact.
        rejected: its REJECTED.
    """
    # Only these columns: the filter copies, and the text and paths of 289,000 rows are 84 MB.
    kept = table.select(["language", "split", "num_samples"]).filter(pc.is_valid(table["row"]))
    totals = kept.group_by("language").aggregate([("num_samples", "count"), ("num_samples", "sum")])
    num_kept, num_samples = (
        dict(zip(totals["language"].to_pylist(), totals[f"num_samples_{what}"].to_pylist(), strict=True))
        for what in ("count", "sum")
    )
    num_rejected = Counter(rejected["language"].to_pylist())
    return {
        "languages": {
            language: {
                "num_utterances": num_kept.get(language, 0),
                "seconds": round(num_samples.get(language, 0) / audio.SAMPLE_RATE, 2),
                "num_rejected": num_rejected[language],
                "splits": _splits(kept, language),
            }
            for language in sorted(num_kept.keys() | num_rejected.keys())
        },
        "reasons": dict(Counter(kind_of(reason) for reason in rejected["reason"].to_pylist())),
    }


def _splits(kept: pa.Table, language: str) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for pair in kept.filter(pc.equal(kept["language"], language))["split"].value_counts().to_pylist():
        counts[pair["values"] or "none"] += pair["counts"]
    return dict(sorted(counts.items()))


def log(tracker: Tracker, metrics: dict[str, Any], artifact: Artifact, seconds: float) -> None:
    """Log the metrics of a committed artifact to MLflow."""
    totals = {
        key: sum(scores[key] for scores in metrics["languages"].values())
        for key in ("seconds", "num_utterances", "num_rejected")
    }
    tracker.metrics({f"embed/{key}": total for key, total in totals.items()} | {"embed/wall_time_s": seconds})
    tracker.table(table_columns(metrics), "languages.json")
    if corpus := artifact.read_json("manifest.json")["inputs"].get("corpus"):
        rows = {"all": {key: corpus[key] for key in ("num_rows", "sha256")}}
        tracker.datasets(corpus["name"], rows, artifact.path("index.parquet"))
    tracker.describe(f"{totals['num_utterances']} recordings encoded.\n\nArtifact: `{artifact.uri}`")


def table_columns(metrics: dict[str, Any]) -> dict[str, list[Any]]:
    """The figures of every language as columns."""
    languages = metrics["languages"]
    names = ("seconds", "num_utterances", "num_rejected")
    return {"language": list(languages), **{name: [scores[name] for scores in languages.values()] for name in names}}


def as_table(metrics: dict[str, Any]) -> Table:
    """Utterances, seconds and rejected rows by language."""
    table = Table(title="encoded", title_justify="left")
    table.add_column("language")
    for column in ("utterances", "minutes of speech", "rejected"):
        table.add_column(column, justify="right")
    table.add_column("splits")
    for code, scores in metrics["languages"].items():
        splits = ", ".join(f"{name} {count}" for name, count in scores["splits"].items())
        table.add_row(
            code, str(scores["num_utterances"]), f"{scores['seconds'] / 60:.1f}", str(scores["num_rejected"]), splits
        )
    return table


def next_command(job: EmbedJob) -> str:
    """The next command for a user: retrieval, or transcription if there is only one language."""
    script = "retrieval" if len(job.languages) > 1 else "translate"
    splits = job.splits if len(job.splits) == 1 else ("all",)
    return command(script, job, **{f"{script}__split": splits[0]})
