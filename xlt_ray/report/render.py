"""Renders the results as one self-contained HTML file, with styles, plots and figures.

`page.html.jinja` includes a section for every stage with a finished artifact, from the stage's folder.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from xlt_ray.charts.plane import symbol
from xlt_ray.charts.style import DARK, LIGHT
from xlt_ray.charts.svg import to_svg
from xlt_ray.finetune.section import highest_dev, highest_loss
from xlt_ray.report import clips
from xlt_ray.report.collect import STAGES, Artifact, Results, not_shown
from xlt_ray.report.culprits import without_culprits
from xlt_ray.study.section import predictor_name, predictor_scatter
from xlt_ray.translate.distance import distance_correlation, distance_scatter, has_unseen, unseen_languages
from xlt_ray.translate.pareto import pareto
from xlt_ray.translate.recipe import general
from xlt_ray.translate.samples import MAX_SCORED
from xlt_ray.tune.section import objective_name, setting_name, setting_value, trial_plane

SECTIONS = {stage: f"{stage}/section.html.jinja" for stage in STAGES} | {"fisher": "finetune/section_fisher.html.jinja"}
"""The template of each stage's section."""

NOT_KNOWN = "–"
SCORE_NAMES = {"seqsim": "SeqSim", "f1": "F1", "mean_pool": "mean pooling", "max_pool": "max pooling", "dtw": "DTW"}

PLOT_CAPTIONS = {
    "r1_heatmap": "R@1 by query language (row) and candidate language (column); chance is dashed in the colour bar.",
    "r1_bars": "R@1 of each pair with its 95% interval; markers are baselines, the tick near 0 is chance.",
    "r1_by_layer": "R@1 at each encoder layer: thin lines are language pairs, the thick line is their mean, the "
    "dashed line is chance.",
    "frame_match": "Cosine of every frame of the query (down) with every frame of a candidate (across). A diagonal of "
    "dots means the same content in the same order.",
}
"""Captions of plots without a caption of their own, by the start of the file name."""


def render(results: Results) -> str:
    """The page as HTML text, to be written as UTF-8."""
    return shown(results)[1]


def shown(results: Results) -> tuple[Results, str]:
    """The results and the page. An artifact whose figures can't be shown is listed as damaged instead."""
    template = _environment().get_template("report/page.html.jinja")

    def page(some: Results) -> str:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of the plots; the browser has other fonts
            text = template.render(results=some, stages=STAGES, sections=SECTIONS)
        return text.encode("utf-8", "replace").decode()  # JSON can write half a character

    def page_of(artifacts: Sequence[Artifact]) -> str:
        is_all = len(artifacts) == len(results.artifacts)
        return page(results if is_all else results.only([artifact.label for artifact in artifacts]))

    text, wrong = without_culprits(results.artifacts, page_of)
    if not wrong:
        return results, text
    problems = {artifact.label: not_shown(results.root, artifact.label, error) for artifact, error in wrong}
    left = [artifact.label for artifact in results.artifacts if artifact.label not in problems]
    rest = dataclasses.replace(results.only(left), damaged=results.damaged | problems)
    return rest, page(rest)


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in percent, without the sign: 0.8864 is 88.6."""
    return NOT_KNOWN if fraction is None else f"{100 * fraction:.{digits}f}"


def points(fraction: float | None) -> str:
    """A difference of fractions in percentage points, always signed: -0.021 is −2.1."""
    return NOT_KNOWN if fraction is None else f"{100 * fraction:+.1f}".replace("-", "−")


def signed(number: float | None, digits: int = 1) -> str:
    """A difference on the scale of BLEU, always signed: -0.214 is −0.2."""
    return NOT_KNOWN if number is None else f"{number:+.{digits}f}".replace("-", "−")


def decimal(number: float | None, digits: int = 1) -> str:
    """A number with this many decimals."""
    return NOT_KNOWN if number is None else f"{number:.{digits}f}".replace("-", "−")


def times(factor: float | None) -> str:
    """A factor with two or three digits: 191.3 is 191×, 3.44 is 3.4×."""
    return NOT_KNOWN if factor is None else f"{factor:.0f}×" if factor >= 10 else f"{factor:.1f}×"


def count(number: int | None) -> str:
    """A whole number with a thousands separator."""
    return NOT_KNOWN if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """A duration in suitable units: 8.4 s, 12 min 5 s, 3 h 20 min."""
    if seconds is None:
        return NOT_KNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def score_name(score: str) -> str:
    """Display name of a score: `seqsim-f1` is SeqSim F1."""
    return " ".join(SCORE_NAMES.get(part, part) for part in score.split("-"))


def plot_caption(name: str) -> str:
    """The default caption of a figure, by its file name; empty if there is none."""
    return next((caption for start, caption in PLOT_CAPTIONS.items() if name.startswith(start)), "")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `a.b: value`, in their order; a list becomes its items, comma-separated."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def data_uri(png: bytes) -> str:
    """The image as a `data:` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@functools.cache
def _environment() -> jinja2.Environment:
    """Templates of this package. Escaping is always on, because transcripts and file names are not trusted."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("xlt_ray", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        percent,
        points,
        signed,
        decimal,
        times,
        count,
        duration,
        score_name,
        plot_caption,
        flatten,
        data_uri,
    )
    drawn = (to_svg, pareto, trial_plane, predictor_scatter, highest_loss, highest_dev, distance_scatter)
    named = (general, objective_name, setting_name, setting_value, predictor_name)
    unseen = (unseen_languages, distance_correlation)
    environment.filters |= {function.__name__: function for function in (*filters, *drawn, *named, *unseen)}
    environment.tests["unseen"] = has_unseen
    environment.globals |= {"light": LIGHT, "dark": DARK, "symbol": symbol}
    environment.globals |= {
        "seconds_of_clips": clips.MAX_SECONDS,
        "clips_limit": clips.MAX_CLIPS,
        "bytes_of_clips": clips.MAX_BYTES,
        "texts_of_samples": MAX_SCORED,
    }
    return environment
