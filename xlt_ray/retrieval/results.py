"""The results of a retrieval run: metrics.json, plots, an MLflow run and the table at the end of the job."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from rich.table import Table

from xlt_ray.charts.style import to_png
from xlt_ray.job import pools
from xlt_ray.job.tracking import Tracker
from xlt_ray.retrieval import cost, keys, matrices, plots, scores, seqsim, work
from xlt_ray.retrieval.config import RetrievalConfig
from xlt_ray.retrieval.plan import RetrievalPlan
from xlt_ray.retrieval.units import read_strip
from xlt_ray.retrieval.work import Scoring
from xlt_ray.store.artifact import Artifact

Figures = dict[str, Any]

_MEAN_OF = ("r1", "r5", "r10", "mrr", "chance_r1")


def shows(artifact: Artifact, config: RetrievalConfig) -> bool:
    """Whether the figures of a finished artifact match the requested settings."""
    metrics = artifact.read_json("metrics.json")
    return all(metrics[name] == getattr(config, name) for name in RetrievalConfig.SHOWN)


def finish(plan: RetrievalPlan, scoring: Scoring, tracker: Tracker, started: float) -> None:
    """Summarise the rankings, plot, log, and commit the artifact. The rankings are not changed.

    Args:
        plan: of the run.
        scoring: the input of the workers.
        tracker: of the run.
        started: when it started, by the monotonic clock.
    """
    artifact, job, embeddings = plan.artifact, plan.job, plan.embeddings.artifact
    if artifact.is_complete:
        shown = (f"{name} {getattr(job.retrieval, name)}" for name in RetrievalConfig.SHOWN)
        print(f"retrieval: {artifact.uri} has new metrics for {', '.join(shown)}")
        artifact.reopen()  # first: figures of two kinds must never be read as one
    units = [f"{query}-{candidate}" for query in job.languages for candidate in job.languages if query != candidate]
    summaries = _summaries(scoring, units, job.retrieval)
    metrics = summarise(summaries, job.retrieval, embeddings.settings["num_layers"])
    pairs = ["-".join(pair) for pair in itertools.combinations(sorted(job.languages), 2)]
    recalls = [f"recall/{pair}.json" for pair in pairs if artifact.has(f"recall/{pair}.json")]
    if job.retrieval.candidates:
        found = {way: share for recall in recalls for way, share in artifact.read_json(recall).items()}
        metrics["candidates"] = {"num": job.retrieval.candidates, "recall": found}
    artifact.write_json("metrics.json", metrics)
    keys.log(tracker, metrics)
    tracker.describe(f"{sentence(metrics)}\n\nArtifact: `{artifact.uri}`")
    _draw(scoring, summaries, metrics, tracker)
    artifact.merge_rejected()
    # Every recording asks in every other language.
    num_in = sum(rows.num_rows for rows in scoring.recordings.values()) * (len(job.languages) - 1)
    artifact.commit(
        units={unit: summary["num_queries"] for unit, summary in summaries.items()},
        num_rows_in=num_in,
        inputs={"embed": embeddings.named},
        seconds=time.monotonic() - started,
        others=[*recalls, *(matrices.files(artifact) if scoring.config.keep_scores else ())],
        working=["best", "counted", "found"],
    )


def _summaries(scoring: Scoring, units: Sequence[str], config: RetrievalConfig) -> dict[str, Figures]:
    """The summary of each direction; a task reads its rankings."""
    needed = cost.merging_memory(scoring.config, scoring.extents.values())
    task = ray.remote(num_cpus=1, memory=pools.memory(needed) or None)(work.summarise)
    known = ray.put(scoring)
    waiting = {unit: task.remote(known, unit, config) for unit in units}
    return {unit: ray.get(reference) for unit, reference in waiting.items()}


def summarise(summaries: Mapping[str, Figures], config: RetrievalConfig, num_layers: int) -> Figures:
    """The content of metrics.json.

    Args:
        summaries: results of `work.summarise`, by direction (`en-fr`).
        config: the settings of the run.
        num_layers: number of encoder blocks; the output is layer `num_layers` of the curve over layers.
    """
    lead, *others = scores.shown(config)
    by_score = {
        score: with_mean({pair: summary["figures"][score] for pair, summary in summaries.items()})
        for score in (lead, *others)
    }
    layers = {score.removeprefix("layer-"): by_score.pop(score) for score in others if score.startswith("layer-")}
    figures = {
        "score": "seqsim",
        **{name: getattr(config, name) for name in RetrievalConfig.SHOWN},
        "seed": config.seed,
        **by_score.pop(lead),
        "baselines": by_score,
    }
    if layers:
        final = {"pairs": figures["pairs"], "mean": figures["mean"]}
        figures["layers"] = {**layers, str(num_layers): final}
    return figures


def with_mean(by_pair: dict[str, Figures]) -> Figures:
    """Figures by pair, and their unweighted mean over pairs."""
    mean = {key: float(np.mean([figures[key] for figures in by_pair.values()])) for key in _MEAN_OF}
    return {"pairs": by_pair, "mean": mean}


def _draw(scoring: Scoring, summaries: Mapping[str, Figures], metrics: Figures, tracker: Tracker) -> None:
    chance = metrics["mean"]["chance_r1"]
    drawn = {
        "r1_heatmap": (plots.r1_heatmap(metrics["pairs"]), ""),
        "r1_bars": (plots.r1_bars(metrics["pairs"], metrics["baselines"]), ""),
    }
    if "layers" in metrics:
        drawn["r1_by_layer"] = (plots.r1_by_layer(metrics["layers"], chance), "")
    if match := _best_match(scoring, summaries):
        drawn["frame_match"] = match
    for name, (figure, caption) in drawn.items():
        scoring.artifact.write_bytes(f"plots/{name}.png", to_png(figure, caption))
        tracker.figure(figure, f"{name}.png")


def _best_match(scoring: Scoring, summaries: Mapping[str, Figures]) -> tuple[Any, str] | None:
    """The frame matches of the highest scoring hit, over all pairs, of a query with at least four words."""
    hits = [summary["best_hit"] for summary in summaries.values() if summary["best_hit"]]
    if not hits:
        return None
    query = max(hits, key=lambda hit: (hit["is_long"], hit["positive_score"]))
    (candidate,) = query["top"]
    rows = [
        recordings.filter(pc.equal(recordings["utterance_id"], entry["utterance_id"]))
        for entry, code in zip((query, candidate), query["pair"].split("-", 1), strict=True)
        for recordings in [scoring.recordings[code]]
    ]
    matches = ray.get(ray.remote(num_cpus=0.1)(_match_map).remote(scoring.uri, *rows))
    title = f"{query['utterance_id']} against {candidate['utterance_id']}"
    return plots.frame_match(matches, title), f"{query['text'] or ''} / {candidate['text'] or ''}"


def _match_map(uri: str, query: pa.Table, candidate: pa.Table) -> np.ndarray[Any, Any]:
    return seqsim.match_map(*(read_strip(uri, rows, None).frames for rows in (query, candidate))).numpy()


def sentence(metrics: Figures) -> str:
    """The outcome in one sentence."""
    mean, pooled = metrics["mean"], metrics["baselines"].get("mean_pool")
    how = f"{metrics['score']} {metrics['mode']}, {metrics['protocol']}"
    beside = f"chance {_percent(mean['chance_r1'])} %"
    if pooled:
        beside += f", mean pooling {_percent(pooled['mean']['r1'])} %"
    return f"R@1 {_percent(mean['r1'])} % over {len(metrics['pairs'])} pairs ({beside}), {how}."


def as_table(metrics: Figures) -> Table:
    """R@1 of every pair with its interval, chance and the baselines."""
    names = [name for name in metrics["baselines"] if not name.startswith("seqsim")]
    head = f"R@1 in percent, {metrics['score']} {metrics['mode']}, {metrics['protocol']}"
    recall = metrics.get("candidates", {}).get("recall", {})
    table = Table(title=head, title_justify="left")
    if recall:
        num = metrics["candidates"]["num"]
        table.caption = f"held: percent of the exact nearest neighbours found among the {num} candidates (sampled)"
        table.caption_justify = "left"
    table.add_column("pair")
    for column in (
        "R@1",
        "95% interval",
        "chance",
        "R@5",
        "R@10",
        "MRR",
        *names,
        *(["held"] if recall else []),
        "queries",
    ):
        table.add_column(column, justify="right")
    for pair, figures in metrics["pairs"].items():
        low, high = figures["r1_ci95"]
        cells = [_percent(figures["r1"]), f"{_percent(low)} to {_percent(high)}"]
        table.add_row(
            pair, *cells, *_others(figures, metrics, names, pair), *_held(recall, pair), str(figures["num_queries"])
        )
    table.add_section()
    table.add_row(
        "mean",
        _percent(metrics["mean"]["r1"]),
        "",
        *_others(metrics["mean"], metrics, names, None),
        *_held(recall, None),
        "",
    )
    return table


def _held(recall: Mapping[str, Any], pair: str | None) -> list[str]:
    """The cell for the recall of candidates; empty for the mean, and `all` if a language is small."""
    found = recall.get(pair) if pair else None
    return [] if not recall else [_percent(found["first"]) if found else "all" if pair else ""]


def _others(figures: Figures, metrics: Figures, names: Sequence[str], pair: str | None) -> list[str]:
    beside = [metrics["baselines"][name] for name in names]
    baselines = [(scored["pairs"][pair] if pair else scored["mean"])["r1"] for scored in beside]
    return [_percent(value) for value in (*(figures[key] for key in ("chance_r1", "r5", "r10", "mrr")), *baselines)]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"
