"""What a retrieval run leaves behind: metrics.json, plots, an MLflow run and the table at the end of the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from rich.table import Table

from xlt_ray.charts.style import to_png
from xlt_ray.job.tracking import Tracker
from xlt_ray.retrieval import pairs, plots, ranking, seqsim, tiles
from xlt_ray.retrieval.config import RetrievalConfig
from xlt_ray.retrieval.keys import keys, table_columns
from xlt_ray.retrieval.plan import RetrievalPlan
from xlt_ray.store import artifacts
from xlt_ray.store.artifacts import Artifact

Figures = dict[str, Any]

_MEAN_OF = ("r1", "r5", "r10", "mrr", "chance_r1")


def finish(plan: RetrievalPlan, recordings: Mapping[str, pa.Table], tracker: Tracker, seconds: float) -> None:
    """Summarise the rankings, draw, log, and commit the artifact.

    Args:
        plan: of the run.
        recordings: rows of INDEX by language.
        tracker: of the run.
        seconds: that it took.
    """
    artifact, job, embeddings = plan.artifact, plan.job, plan.embeddings.artifact
    units = [f"{query}-{candidate}" for query in job.languages for candidate in job.languages if query != candidate]
    ranked = {unit: artifacts.read_table(artifact.path("data", f"{unit}.parquet")) for unit in units}
    metrics = summarise(ranked, job.retrieval, embeddings.settings["num_layers"])
    artifact.write_json("metrics.json", metrics)
    tracker.metrics(keys(metrics))
    tracker.table(table_columns(metrics), "retrieval.json")
    tracker.describe(f"{sentence(metrics)}\n\nArtifact: `{artifact.uri}`")
    _draw(artifact, embeddings.uri, recordings, ranked, metrics, tracker)
    artifact.merge_rejected()
    # Every recording asks in every other language.
    num_in = sum(rows.num_rows for rows in recordings.values()) * (len(job.languages) - 1)
    inputs = {"embed": embeddings.named}
    counts = {unit: table.num_rows for unit, table in ranked.items()}
    artifact.commit(units=counts, num_rows_in=num_in, inputs=inputs, seconds=seconds)


def summarise(ranked: Mapping[str, pa.Table], config: RetrievalConfig, num_layers: int) -> Figures:
    """The content of metrics.json.

    Args:
        ranked: rankings by direction (`en-fr`), with the schema RANKING.
        config: the settings of the run.
        num_layers: blocks of the encoder; its output is layer `num_layers` of the curve over layers.
    """
    lead, *others = pairs.score_names(config)
    by_score = {
        score: with_mean({pair: _pair_figures(table, score, config.seed) for pair, table in ranked.items()})
        for score in (lead, *others)
    }
    layers = {score.removeprefix("layer-"): by_score.pop(score) for score in others if score.startswith("layer-")}
    figures = {
        "score": "seqsim",
        "mode": config.mode,
        "protocol": config.protocol,
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


def _pair_figures(table: pa.Table, score: str, seed: int) -> Figures:
    entries = table["ranks"].combine_chunks()
    of_score = pc.equal(entries.keys, score)
    ranks = entries.items.filter(of_score).to_numpy()
    return ranking.summarise(
        ranks,
        table["sentence_id"].to_pylist(),
        num_candidates=table["num_candidates"][0].as_py(),
        num_positives=table["num_positives"].to_numpy(),
        seed=seed,
    )


def _draw(
    artifact: Artifact,
    uri: str,
    recordings: Mapping[str, pa.Table],
    ranked: Mapping[str, pa.Table],
    metrics: Figures,
    tracker: Tracker,
) -> None:
    chance = metrics["mean"]["chance_r1"]
    figures = {
        "r1_heatmap": (plots.r1_heatmap(metrics["pairs"]), ""),
        "r1_bars": (plots.r1_bars(metrics["pairs"], metrics["baselines"]), ""),
    }
    if "layers" in metrics:
        figures["r1_by_layer"] = (plots.r1_by_layer(metrics["layers"], chance), "")
    if match := _best_match(uri, recordings, ranked):
        figures["frame_match"] = match
    for name, (figure, caption) in figures.items():
        artifact.write_bytes(f"plots/{name}.png", to_png(figure, caption))
        tracker.figure(figure, f"{name}.png")


def _best_match(uri: str, recordings: Mapping[str, pa.Table], ranked: Mapping[str, pa.Table]) -> tuple[Any, str] | None:
    """The frame matches of the highest scoring hit, over all pairs, of a query with at least four words."""
    hits = pa.concat_tables(ranked.values())
    hits = hits.filter(pc.equal(hits["rank"], 1))
    long = hits.filter(pc.greater_equal(pc.count_substring(pc.coalesce(hits["text"], pa.scalar("")), " "), 3))
    hits = long if long.num_rows else hits
    if not hits.num_rows:
        return None
    query = hits.sort_by([("positive_score", "descending")]).slice(0, 1).to_pylist()[0]
    candidate = next(entry for entry in query["top"] if entry["correct"])
    languages = query["pair"].split("-", 1)
    strips = [
        _strip_of(uri, recordings[code], entry["utterance_id"])
        for code, entry in zip(languages, (query, candidate), strict=True)
    ]
    matches = ray.get(ray.remote(num_cpus=0.1)(_match_map).remote(*strips))
    title = f"{query['utterance_id']} against {candidate['utterance_id']}"
    return plots.frame_match(matches, title), f"{query['text'] or ''} / {candidate['text'] or ''}"


def _strip_of(uri: str, recordings: pa.Table, utterance_id: str) -> tiles.Strip:
    return tiles.strips_of(uri, recordings.filter(pc.equal(recordings["utterance_id"], utterance_id)), 1)[0]


def _match_map(query: tiles.Strip, candidate: tiles.Strip) -> np.ndarray[Any, Any]:
    frames = (tiles.read_strip(strip, None) for strip in (query, candidate))
    return seqsim.match_map(*frames).numpy()


def sentence(metrics: Figures) -> str:
    """The outcome in one sentence."""
    mean, pooled = metrics["mean"], metrics["baselines"].get("mean_pool")
    how = f"{metrics['score']} {metrics['mode']}, {metrics['protocol']}"
    beside = f"chance {_percent(mean['chance_r1'])} %"
    if pooled:
        beside += f", mean pooling {_percent(pooled['mean']['r1'])} %"
    return f"R@1 {_percent(mean['r1'])} % over {len(metrics['pairs'])} pairs ({beside}), {how}."


def as_table(metrics: Figures) -> Table:
    """R@1 of every pair, beside chance, its interval and the baselines."""
    names = [name for name in metrics["baselines"] if not name.startswith("seqsim")]
    head = f"R@1 in percent, {metrics['score']} {metrics['mode']}, {metrics['protocol']}"
    table = Table(title=head, title_justify="left")
    table.add_column("pair")
    for column in ("R@1", "95% interval", "chance", "R@5", "R@10", "MRR", *names, "queries"):
        table.add_column(column, justify="right")
    for pair, figures in metrics["pairs"].items():
        low, high = figures["r1_ci95"]
        cells = [_percent(figures["r1"]), f"{_percent(low)} to {_percent(high)}"]
        table.add_row(pair, *cells, *_others(figures, metrics, names, pair), str(figures["num_queries"]))
    table.add_section()
    table.add_row("mean", _percent(metrics["mean"]["r1"]), "", *_others(metrics["mean"], metrics, names, None), "")
    return table


def _others(figures: Figures, metrics: Figures, names: Sequence[str], pair: str | None) -> list[str]:
    beside = [metrics["baselines"][name] for name in names]
    baselines = [(scored["pairs"][pair] if pair else scored["mean"])["r1"] for scored in beside]
    return [_percent(value) for value in (*(figures[key] for key in ("chance_r1", "r5", "r10", "mrr")), *baselines)]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"
