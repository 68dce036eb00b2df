"""Shows the figures of a translate run: the tables at the end of the job, and the MLflow run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from rich.table import Table

from xlt_ray.job.tracking import Tracker
from xlt_ray.languages import Direction, by_distance
from xlt_ray.translate.keys import columns, keys, model_keys
from xlt_ray.translate.scores import Figures

_LOGGED_ROWS = 200


def log(
    tracker: Tracker, figures: Figures, hypotheses: Mapping[str, pa.Table], split: str, learned: Sequence[str]
) -> None:
    """Log means with the same keys before and after tuning, every direction, and the first hypotheses of each.

    Args:
        tracker: of the run.
        figures: content of metrics.json.
        hypotheses: rows of HYPOTHESIS by direction.
        split: the translated split.
        learned: directions that the checkpoint was trained on; none without a checkpoint.
    """
    tracker.metrics(keys(figures))
    tracker.of_model(model_keys(figures, split, learned))
    tracker.table(columns(figures), "scores.json")
    each = max(1, _LOGGED_ROWS // len(hypotheses))
    rows = pa.concat_tables([table.slice(0, each) for table in hypotheses.values()])
    shown = ["direction", "utterance_id", "text", "reference", "hypothesis"]
    tracker.table(rows.select(shown).slice(0, _LOGGED_ROWS).to_pydict(), "hypotheses.json")


def sentence(figures: Figures) -> str:
    """The outcome in one sentence."""
    parts = [
        f"BLEU {mean['bleu']:.1f} into {target} over {mean['num_directions']} directions"
        for target, mean in figures["means"].items()
        if target != "transcription"
    ]
    rates = figures["means"].get("transcription", {})
    parts += [f"{key.upper()} {100 * rates[key]:.1f} %" for key in ("wer", "cer") if key in rates]
    who = f"checkpoint {figures['checkpoint']['name']}" if figures["checkpoint"] else "the untouched model"
    return f"{', '.join(parts)}: {who}, {_prompt(figures)}."


def _prompt(figures: Figures) -> str:
    source_prompt = figures["source_prompt"]
    return f"prompt {figures['prompt']}" + (f", source prompt {source_prompt}" if source_prompt else "")


def closing(runs: Sequence[Figures]) -> list[Table]:
    """The tables that end a job: scores and comparison of one run, or several runs side by side."""
    distances = [distance_table(runs)] if by_distance(runs[0]["directions"]) else []
    if len(runs) > 1:
        return [prompts_table(runs), *distances]
    (figures,) = runs
    return [as_table(figures), *([kept_table(figures)] if figures["kept"] else []), *distances]


def as_table(figures: Figures) -> Table:
    """Scores of every direction with the interval of BLEU; error rates and empty hypotheses in percent."""
    has_comet = any(score.get("comet") is not None for score in figures["directions"].values())
    table = Table(title=f"translations by direction, {_prompt(figures)}", title_justify="left")
    table.add_column("direction")
    for column in ("BLEU", "95% interval", "chrF", *["COMET"] * has_comet, "WER or CER %", "empty %", "texts"):
        table.add_column(column, justify="right")
    target = None
    for name, score in figures["directions"].items():
        group = "transcription" if "measure" in score else Direction.parse(name).target
        if target not in (None, group):
            table.add_section()
        target = group
        table.add_row(name, *_cells(score, has_comet), f"{100 * score['empty_rate']:.1f}", str(score["num"]))
    return table


def _cells(score: Figures, has_comet: bool) -> list[str]:
    if "measure" in score:
        rate = score[score["measure"]]
        shown = "" if rate is None else f"{score['measure'].upper()} {100 * rate:.1f}"
        return ["", "", "", *[""] * has_comet, shown]
    comet = ["" if score["comet"] is None else f"{score['comet']:.3f}"] if has_comet else []
    return [f"{score['bleu']:.1f}", _interval(score), f"{score['chrf']:.1f}", *comet, ""]


def _interval(score: Figures) -> str:
    """The interval of BLEU, if it is meaningful."""
    low, high = score["bleu_ci95"]
    return f"{low:.1f} to {high:.1f}" if _can_vary(score) else ""


def _can_vary(score: Figures) -> bool:
    """Whether a bootstrap is meaningful: every draw from one text is the same, so its interval has zero width."""
    return bool(score["num"] > 1)


def kept_table(figures: Figures) -> Table:
    """Every direction before and after: BLEU with interval and p value of the difference; error rates in percent."""
    kept, means = figures["kept"], []
    if kept["backward_transfer"] is not None:
        means.append(f"backward transfer {kept['backward_transfer']:+.2f} BLEU into en")
    if kept["gain"] is not None:
        means.append(f"gain {kept['gain']:+.2f} BLEU elsewhere")
    title = f"against {figures['baseline']['name']}"
    table = Table(title=title, title_justify="left", caption=", ".join(means) or None, caption_justify="left")
    table.add_column("direction")
    for column in ("score", "before", "after", "difference", "95% interval", "p", "kept %", "texts"):
        table.add_column(column, justify="right")
    for name, score in kept["directions"].items():
        table.add_row(name, score["measure"].upper(), *_compared_cells(score), str(score["num"]))
    return table


def _compared_cells(score: Figures) -> list[str]:
    if score["measure"] != "bleu":
        rates = [score[key] for key in ("before", "after", "difference")]
        return [*("" if rate is None else f"{100 * rate:.1f}" for rate in rates), "", "", ""]
    low, high = score["difference_ci95"]
    kept = "" if score["retained"] is None else f"{100 * score['retained']:.0f}"
    scores = [f"{score['before']:.1f}", f"{score['after']:.1f}", f"{score['difference']:+.1f}"]
    test = [f"{low:+.1f} to {high:+.1f}", f"{score['p_value']:.3f}"] if _can_vary(score) else ["", ""]
    return [*scores, *test, kept]


def prompts_table(runs: Sequence[Figures]) -> Table:
    """Directions into English by source prompt: BLEU with its interval, and the error rate of the transcripts.

    Args:
        runs: of the same directions, each with a source prompt of its own.
    """
    table = Table(title="into English by source prompt", title_justify="left")
    table.add_column("direction")
    for figures in runs:
        table.add_column(f"{figures['source_prompt']}\nBLEU (95%)", justify="right")
        table.add_column("\nWER %", justify="right")
    directions = [name for name, score in runs[0]["directions"].items() if "measure" not in score]
    for name in directions:
        if Direction.parse(name).is_native:
            table.add_row(name, *(cell for figures in runs for cell in _prompt_cells(figures["directions"], name)))
    return table


def _prompt_cells(directions: Mapping[str, Figures], name: str) -> list[str]:
    source, score = Direction.parse(name).source, directions[name]
    interval = f" ({_interval(score)})" if _can_vary(score) else ""
    transcribed = directions.get(f"{source}-{source}")
    return [f"{score['bleu']:.1f}{interval}", _rate_cell(transcribed) if transcribed else ""]


def _rate_cell(transcribed: Figures) -> str:
    """WER or CER in percent, short enough for four prompts in a table."""
    rate = transcribed[transcribed["measure"]]
    shown = "" if rate is None else f"{100 * rate:.1f}"
    return f"CER {shown}" if shown and transcribed["measure"] == "cer" else shown


def distance_table(runs: Sequence[Figures]) -> Table:
    """BLEU into English of languages without a token, by distance to the nearest one with a token.

    Args:
        runs: of the same directions, each with a source prompt of its own.
    """
    table = Table(title="into English by distance to the nearest seen language", title_justify="left")
    table.add_column("direction")
    for column in ("nearest", "distance", "features", *(figures["source_prompt"] or "BLEU" for figures in runs)):
        table.add_column(column, justify="right")
    for name, distance in by_distance(runs[0]["directions"]).items():
        scores = [figures["directions"][name]["bleu"] for figures in runs]
        about = [distance.nearest, f"{distance.distance:.3f}", f"{distance.observed} of 289"]
        table.add_row(name, *about, *(f"{bleu:.1f}" for bleu in scores))
    return table
