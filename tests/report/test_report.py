"""The report over a root that is made here: a small one, with figures and texts like those of a real run."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from drawn import Drawn
from rendered import Page
from tuned_runs import (
    BEFORE,
    SWEEPS,
    figures_of,
    moved,
    write_baseline,
    write_finetune,
    write_translate,
    write_tuned_runs,
)

from xlt_ray.charts.style import to_png
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.report import render as formats
from xlt_ray.report.collect import Results, collect
from xlt_ray.report.render import render
from xlt_ray.retrieval import plots
from xlt_ray.retrieval.config import MODES, PROTOCOLS
from xlt_ray.retrieval.section import MAX_EXAMPLES
from xlt_ray.store import artifacts, storage
from xlt_ray.store.schema import HYPOTHESIS, REJECTED, ranking_schema, versions_of
from xlt_ray.translate import scores as translated

LANGUAGES = ("en", "es", "fr", "it", "ru")
PAIRS = [f"{query}-{candidate}" for query, candidate in itertools.permutations(LANGUAGES, 2)]
SORT = (Path(formats.__file__).parent / "sort.js.jinja").read_text().rstrip("\n")
HOSTILE = "<script>alert('boo')</script> & \"friends\""
TEXTS = {
    "agent-loggedoff": {
        "en": "Agent logged off.",
        "es": "Agente desconectado.",
        "fr": "L'agent est déconnecté.",
        "it": "Agente disconnesso.",
        "ru": "Агент отключен.",
    },
    "conf-onlyperson": {
        "en": "You are currently the only person in this conference.",
        "es": "Ahora usted es la única persona en esta conferencia.",
        "fr": "Vous êtes actuellement le seul participant à cette conférence.",
        "it": "Ora lei è l'unica persona in questa conferenza.",
        "ru": "В настоящее время вы единственный участник конференции.",
    },
    "vm-intro": {
        "en": "Please leave your message after the tone. When done, hang up or press the pound key.",
        "es": "Por favor, deje su mensaje después del tono. Al terminar, cuelgue o presione la tecla numeral.",
        "fr": "Veuillez laisser votre message après la tonalité. Ensuite, raccrochez ou appuyez sur dièse.",
        "it": "Lasciate un messaggio dopo il segnale acustico. Poi riagganciate o premete cancelletto.",
        "ru": "Пожалуйста, оставьте сообщение после сигнала. Затем повесьте трубку или нажмите решётку.",
    },
    "hostile": dict.fromkeys(LANGUAGES, HOSTILE),
    "pbx-transfer": {
        "en": "Please hold while I try that extension.",
        "es": "Por favor, espere mientras intento esa extensión.",
        "fr": "Veuillez patienter pendant que je compose ce poste.",
        "it": "Attendere prego mentre provo quell'interno.",
        "ru": "Пожалуйста, подождите, я набираю этот номер.",
    },
}
SENTENCES = list(TEXTS)
NUM_CANDIDATES = 215
RANKING = ranking_schema(PROTOCOLS, MODES, [f"seqsim-{mode}" for mode in MODES])


def ranking_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of `ranking_row` as a run keeps them, in one mode and by one protocol; a candidate is a row of SENTENCES."""
    kept = []
    for row in rows:
        top = [
            {"candidate": SENTENCES.index(found["sentence_id"]), **{key: found[key] for key in ("score", "correct")}}
            for found in row["top"]
        ]
        by_mode = {
            "ranks": {"seqsim-f1": row["rank"]},
            "hit_scores": {"f1": row["positive_score"]},
            "top": {"f1": top},
        }
        names = {key: row[key] for key in ("pair", "utterance_id", "sentence_id", "text")}
        counts = {"num_positives": 1, "num_candidates": row["num_candidates"]}
        kept.append(names | {"multi_positive": counts | by_mode, "one_per_sentence": None})
    return pa.Table.from_pylist(kept, schema=RANKING)


def scored(rng: np.random.Generator, level: float) -> dict[str, Any]:
    """Figures of every pair around `level`, and their mean; each R@1 is a different number, so that it can be found."""
    pairs = {}
    for pair in PAIRS:
        r1 = float(np.clip(level + rng.uniform(-0.18, 0.11) - 0.08 * level * ("ru" in pair), 0.001, 0.999))
        pairs[pair] = {
            "r1": r1,
            "r5": min(1.0, r1 * 1.12),
            "r10": min(1.0, r1 * 1.16),
            "mrr": min(1.0, r1 * 1.06),
            "chance_r1": 1 / NUM_CANDIDATES,
            "num_queries": NUM_CANDIDATES,
            "num_candidates": NUM_CANDIDATES,
            "r1_ci95": [max(0.0, r1 - 0.045), min(1.0, r1 + 0.04)],
        }
    mean = {
        key: float(np.mean([row[key] for row in pairs.values()])) for key in ("r1", "r5", "r10", "mrr", "chance_r1")
    }
    return {"pairs": pairs, "mean": mean}


def retrieval_metrics() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    levels = {"mean_pool": 0.46, "max_pool": 0.37, "random": 0.005, "seqsim-recall": 0.78, "seqsim-precision": 0.79}
    return {
        "score": "seqsim",
        "mode": "f1",
        "protocol": "multi_positive",
        "top_k": 10,
        "seed": 0,
        **scored(rng, 0.86),
        "baselines": {name: scored(rng, level) for name, level in levels.items()},
        "layers": {
            str(layer): scored(rng, level) for layer, level in enumerate([0.02, 0.06, 0.21, 0.52, 0.79, 0.86, 0.84])
        },
    }


def ranking_row(pair: str, sentence: str, rank: int, rng: np.random.Generator) -> dict[str, Any]:
    """A row whose wrong candidates score 0.7, 0.69, ... and whose right one scores by its rank."""
    query, candidate = pair.split("-")
    others = [other for other in SENTENCES if other != sentence]
    positive = 0.72 + float(rng.uniform(0, 0.2)) if rank == 1 else 0.7 - 0.01 * rank + 0.005
    top = [(other, 0.7 - 0.01 * index, False) for index, other in enumerate(others)] + [(sentence, positive, True)]
    return {
        "pair": pair,
        "utterance_id": f"{query}/{sentence}",
        "sentence_id": sentence,
        "text": TEXTS[sentence][query],
        "rank": rank,
        "positive_score": positive,
        "num_candidates": NUM_CANDIDATES,
        "top": [
            {
                "utterance_id": f"{candidate}/{name}",
                "sentence_id": name,
                "text": TEXTS[name][candidate],
                "score": score,
                "correct": correct,
            }
            for name, score, correct in sorted(top, key=lambda found: -found[1])[:3]
        ],
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_artifact(
    root: Path, stage: str, name: str, metrics: dict[str, Any], files: list[str], rejected: int = 0
) -> None:
    directory = root / stage / name
    write_json(directory / "config.json", {"corpus": "asterisk", "model": {"id": "whisper-base", "layers": [4, 6]}})
    write_json(directory / "metrics.json", metrics)
    rows = [
        {
            "utterance_id": f"ru/beep-{i}",
            "language": "ru",
            "audio": f"ru/beep-{i}.g722",
            "reason": "silent" if i else "too short",
        }
        for i in range(rejected)
    ]
    columns = ("utterance_id", "language", "audio", "reason")
    pq.write_table(
        pa.Table.from_pylist(rows, schema=pa.schema([(column, pa.string()) for column in columns])),
        directory / "rejected.parquet",
    )
    manifest = {
        "stage": stage,
        "name": name,
        "schema": versions_of(stage),
        "fingerprint": "9f86d081884c7d65",
        "created": "2026-01-17T09:30:12+00:00",
        "wall_time_s": 312.4,
        "git": {"sha": "4b825dc642cb6eb9a060", "dirty": stage == "retrieval"},
        "versions": {"torch": "2.13.0", "ray": "2.60.0", "transformers": "5.23.0"},
        "hardware": {"cpu": "Xeon 8375C", "num_cpus": 16, "memory_gb": 124.6, "gpus": ["H100"]},
        "inputs": {"corpus": "asterisk@1.6.1"},
        "files": [{"path": path, "rows": 5, "bytes": (directory / path).stat().st_size} for path in files],
        "rows_in": 1075,
        "rows_out": 1075 - rejected,
        "rows_rejected": rejected,
    }
    write_json(directory / "manifest.json", manifest)


def ranking_rows() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    rng = np.random.default_rng(1)
    for index, pair in enumerate(PAIRS):
        ranks = [1, 1, 1, 2, 5 + 7 * index] if index % 2 else [1, 1, 1, 1, 1]
        yield pair, [ranking_row(pair, sentence, rank, rng) for sentence, rank in zip(SENTENCES, ranks, strict=True)]


def write_rankings(root: Path, name: str) -> list[str]:
    data = root / "retrieval" / name / "data"
    data.mkdir(parents=True, exist_ok=True)
    for pair, rows in ranking_rows():
        pq.write_table(ranking_table(rows), data / f"{pair}.parquet")
    return [f"data/{pair}.parquet" for pair in PAIRS]


def write_plots(root: Path, name: str, metrics: dict[str, Any]) -> None:
    directory = root / "retrieval" / name / "plots"
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    path = np.abs(np.linspace(0, 1, 160)[:, None] - np.linspace(0, 1, 190)[None, :])
    match = 0.35 + 0.5 * np.exp(-((path / 0.04) ** 2)) + rng.normal(0, 0.05, path.shape)
    figures = {
        "r1_heatmap": (plots.r1_heatmap(metrics["pairs"]), ""),
        "r1_by_layer": (plots.r1_by_layer(metrics["layers"], metrics["mean"]["chance_r1"]), ""),
        "r1_bars": (plots.r1_bars(metrics["pairs"], metrics["baselines"]), ""),
        "frame_match": (plots.frame_match(match, "en → ru, vm-intro"), "“Please hold.” beside «Подождите», 请稍候."),
    }
    for stem, (figure, caption) in figures.items():
        (directory / f"{stem}.png").write_bytes(to_png(figure, caption))


def write_root(root: Path) -> None:
    languages = {
        language: {"num_utterances": 215, "seconds": 903.2, "num_rejected": 3 * (language == "ru")}
        for language in LANGUAGES
    }
    write_artifact(root, "embed", "demo", {"languages": languages, "seconds_per_s": 14.2}, [], rejected=3)
    metrics = retrieval_metrics()
    write_artifact(root, "retrieval", "demo", metrics, write_rankings(root, "demo"))
    write_plots(root, "demo", metrics)
    write_json(root / "embed" / "large-v2" / "config.json", {"model": "large-v2"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_root(root)
    return root


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return collect(str(root))


@pytest.fixture(scope="module")
def source(results: Results) -> str:
    return render(results)


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_every_pair_stands_beside_chance_and_mean_pooling(page: Page) -> None:
    metrics = retrieval_metrics()
    for pair in PAIRS:
        r1, pooled = metrics["pairs"][pair]["r1"], metrics["baselines"]["mean_pool"]["pairs"][pair]["r1"]
        row = page.row(pair.replace("-", " → "), f"{100 * r1:.1f}")
        assert row[4] == f"{100 / NUM_CANDIDATES:.2f}"
        assert row[5] == f"{NUM_CANDIDATES * r1:.0f}×"
        assert row[6] == f"{100 * pooled:.1f}"
        assert row[7].replace("−", "-") == f"{100 * (r1 - pooled):+.1f}"


def test_pairs_are_sorted_and_the_extremes_are_named(page: Page, results: Results) -> None:
    r1 = {pair: figures["r1"] for pair, figures in retrieval_metrics()["pairs"].items()}
    assert [f"{row.query}-{row.candidate}" for row in results.retrieval["demo"].pairs] == sorted(
        r1, key=lambda pair: -r1[pair]
    )
    best, weakest = max(r1, key=lambda pair: r1[pair]), min(r1, key=lambda pair: r1[pair])
    for title, pair in (("Best pair", best), ("Weakest pair", weakest)):
        assert f"{title}{pair.replace('-', ' → ')}" in page.text.replace("\n", "")


def test_the_first_sentence_is_the_answer(page: Page) -> None:
    metrics = retrieval_metrics()
    text = " ".join(page.text.split())
    assert f"first for {100 * metrics['mean']['r1']:.1f}% of queries" in text
    assert f"mean pooling does so for {100 * metrics['baselines']['mean_pool']['mean']['r1']:.1f}%" in text
    assert f"chance for {100 / NUM_CANDIDATES:.2f}%" in text


def test_a_run_with_candidates_says_what_each_score_ranks(tmp_path: Path, page: Page) -> None:
    metrics = retrieval_metrics() | {
        "candidates": {"num": 20, "recall": {"en-fr": {"first": 0.9}, "fr-en": {"first": 0.8}}}
    }
    write_artifact(tmp_path, "retrieval", "two", metrics, [])
    text = " ".join(Page(render(collect(str(tmp_path)))).text.split())
    assert "Only 20 candidates per recording were scored" in text
    assert "contain 85.0% of the nearest recordings" in text
    assert "Baselines rank all recordings." in text
    assert "SeqSim ranks its candidates, a baseline ranks all recordings." in text
    same = "Every score ranks the same candidates."
    assert same not in text
    assert same in " ".join(page.text.split())


def test_gain_and_chance_are_judged_by_the_interval(tmp_path: Path) -> None:
    """A gain by that of the paired difference: en-fr is clear, though the intervals of the two scores overlap."""
    metrics = retrieval_metrics()
    shift = {"en-es": 0.2, "en-fr": 0.05, "en-it": -0.2, "en-ru": 0.02}
    for pair, figures in metrics["pairs"].items():
        figures.update(r1=0.6, r1_ci95=[0.56, 0.64])
        gain = shift.get(pair, 0.0)
        metrics["baselines"]["mean_pool"]["pairs"][pair].update(
            r1=0.6 - gain, r1_ci95=[0.56 - gain, 0.64 - gain], lead_ci95=[gain - 0.03, gain + 0.03]
        )
    metrics["pairs"]["fr-en"].update(r1_ci95=[0.001, 0.64])
    write_artifact(tmp_path, "retrieval", "close", metrics, [])
    run = collect(str(tmp_path)).retrieval["close"]
    assert {f"{row.query}-{row.candidate}" for row in run.pairs if row.gain_is_clear} == {"en-es", "en-fr", "en-it"}
    page = Page(render(collect(str(tmp_path))))
    text = " ".join(page.text.split())
    assert "clear gain in 2, clear loss in 1 of 20" in text
    assert [page.row(f"en → {code}", "60.0")[8] for code in ("es", "fr", "ru")] == [
        "+17.0 to +23.0",
        "+2.0 to +8.0",
        "−1.0 to +5.0",
    ]
    assert "19 of 20 pairs above it" in text


def test_matrix_has_the_query_language_in_the_row(page: Page) -> None:
    metrics = retrieval_metrics()
    r1, pooled = metrics["pairs"], metrics["baselines"]["mean_pool"]["pairs"]
    row = page.row("it", *(f"{100 * r1['it-en']['r1']:.1f}{100 * (r1['it-en']['r1'] - pooled['it-en']['r1']):+.1f}",))
    assert [cell[:4] for cell in row[1:6]] == [
        "" if language == "it" else f"{100 * r1[f'it-{language}']['r1']:.1f}" for language in LANGUAGES
    ]
    mean = np.mean([figures["r1"] for pair, figures in r1.items() if pair.startswith("it-")])
    assert row[6] == f"{100 * mean:.1f}"
    column_means = [
        np.mean([figures["r1"] for pair, figures in r1.items() if pair.endswith(f"-{language}")])
        for language in LANGUAGES
    ]
    assert page.row("mean")[1:6] == [f"{100 * mean:.1f}" for mean in column_means]


def test_eighty_languages_take_seconds(tmp_path: Path) -> None:
    figures = next(iter(retrieval_metrics()["pairs"].values()))
    pairs = {f"l{a}-l{b}": figures for a, b in itertools.permutations(range(80), 2)}
    run = retrieval_metrics() | {"pairs": pairs, "baselines": {}, "layers": {}}
    write_artifact(tmp_path, "retrieval", "many", run, [])
    results = collect(str(tmp_path))
    started = time.process_time()
    source = render(results)
    assert time.process_time() - started < 15
    assert source.count('<td class="none">') == 80
    assert source.count("l7 → l8") == 2  # a cell and a row


def test_scores_are_compared_in_order(page: Page) -> None:
    metrics = retrieval_metrics()
    for name, label in (("seqsim-recall", "SeqSim recall"), ("max_pool", "max pooling"), ("random", "random")):
        mean = metrics["baselines"][name]["mean"]
        assert page.row(label)[1:5] == [f"{100 * mean[key]:.1f}" for key in ("r1", "r5", "r10", "mrr")]
    names = [row[0].strip() for row in page.rows]
    assert names.index("SeqSim F1") < names.index("mean pooling") < names.index("random")


def test_layers_are_shown_with_chance(page: Page) -> None:
    layers = retrieval_metrics()["layers"]
    assert page.row("Layer")[1:] == list(layers)
    assert page.row("R@1")[1:] == [f"{100 * layer['mean']['r1']:.1f}" for layer in layers.values()]


def all_rows() -> list[dict[str, Any]]:
    return [row for _, rows in ranking_rows() for row in rows]


def test_worst_retrievals_are_the_last_ranked_with_their_texts(page: Page, results: Results) -> None:
    worst_of = {row["pair"]: row for row in sorted(all_rows(), key=lambda row: row["rank"]) if row["rank"] > 1}
    expected = sorted(worst_of.values(), key=lambda row: -row["rank"])[:MAX_EXAMPLES]
    shown = results.retrieval["demo"].worst
    assert [(f"{item.query}-{item.candidate}", item.rank) for item in shown] == [
        (row["pair"], row["rank"]) for row in expected
    ]
    for row, article in zip(expected, page.articles[:MAX_EXAMPLES], strict=True):
        text = " ".join(article.split())
        assert f"rank {row['rank']} of {NUM_CANDIDATES}" in text
        assert f"Query {row['text']}" in text
        assert f"First {row['top'][0]['text']} 0.700" in text
        assert f"Sought {TEXTS[row['sentence_id']][row['pair'].split('-')[1]]}" in text


def test_best_retrievals_have_the_widest_margins(results: Results) -> None:
    margins: dict[str, float] = {}
    for row in all_rows():
        if row["rank"] == 1:
            margin = row["positive_score"] - max(found["score"] for found in row["top"] if not found["correct"])
            margins[row["pair"]] = max(margins.get(row["pair"], -1.0), margin)
    shown = results.retrieval["demo"].best
    assert [item.margin for item in shown] == pytest.approx(sorted(margins.values(), reverse=True)[:MAX_EXAMPLES])
    assert all(item.rank == 1 and item.top[0].correct for item in shown)


def test_an_older_run_without_paired_intervals_claims_no_gain(results: Results, page: Page) -> None:
    assert not [row for row in results.retrieval["demo"].pairs if row.gain_is_clear]
    assert "this run kept none, so run retrieval again for it" in page.words


def test_the_headline_names_model_and_corpus(root: Path, tmp_path: Path) -> None:
    write_artifact(tmp_path, "embed", "demo", {"languages": {}}, [])
    for name, corpus in (("demo", "manifest:s3://ann:hunter2@b/<x>.tsv"), ("more", "asterisk")):
        write_artifact(tmp_path, "embed", name, {"languages": {}}, [])
        write_json(tmp_path / "embed" / name / "config.json", {"settings": {"corpus": corpus, "model": "base"}})
    source = render(collect(str(tmp_path)))
    shown = "base on manifest:s3://***@b/&lt;x&gt;.tsv, asterisk"
    assert f'<p class="subject">{shown}</p>' in source
    assert f" · {shown} · xlt_ray report</title>" in source


def test_hostile_text_is_text(source: str, page: Page) -> None:
    assert page.scripts == [f"\n{SORT}"]
    assert source.count("<script") == 1
    assert HOSTILE in page.text
    assert HOSTILE not in source


def test_the_page_loads_nothing_and_closes_its_tags(source: str, page: Page) -> None:
    assert page.open == []
    assert {tag for tag, _ in page.links} == {"img", "a"}
    assert all(target.startswith("#" if tag == "a" else "data:image/png;base64,") for tag, target in page.links)
    assert not re.search(r"url\(|@import|https?://", source)


def test_links_within_the_page_have_a_target(source: str, page: Page) -> None:
    for tag, target in page.links:
        assert tag != "a" or f'id="{target[1:]}"' in source


def test_plots_are_inside_with_their_captions(source: str, page: Page, root: Path) -> None:
    files = sorted((root / "retrieval/demo/plots").glob("*.png"))
    embedded = {base64.b64decode(target.split(",", 1)[1]) for tag, target in page.links if tag == "img"}
    assert embedded == {file.read_bytes() for file in files}
    assert "“Please hold.” beside «Подождите», 请稍候." in page.text
    assert "the dashed line is chance." in page.text


def test_unfinished_is_named_and_not_shown_as_a_result(page: Page, results: Results) -> None:
    assert results.unfinished == ("embed/large-v2",)
    assert "Unfinished, so not shown:embed/large-v2" in re.sub(r"\s*\n\s*| (?=embed)", "", page.text)
    assert [row[0] for row in page.rows if row[0].startswith(("embed/", "retrieval/"))] == [
        "embed/demo",
        "retrieval/demo",
    ]


def test_rejected_rows_have_their_reasons(page: Page) -> None:
    assert page.row("silent")[1] == "2"
    assert page.row("too short")[1] == "1"
    assert page.row("ru/beep-0") == ["ru/beep-0", "ru", "too short", "ru/beep-0.g722"]
    assert "3 of 1,075 rows" in page.text


def test_addresses_of_rejected_rows_show_no_key(tmp_path: Path) -> None:
    """A corpus may list signed web addresses, which are not read, and the page is shared."""
    address = "https://ann:hunter22@host/a.wav?X-Amz-Signature=6fe5&take=2"
    row = {"utterance_id": "en/1", "language": "en", "audio": address, "reason": "missing: a web address"}
    artifact = artifacts.plan(str(tmp_path), "embed", "mine", {}, {})
    artifact.begin()
    artifact.write_json("metrics.json", {"languages": {}})
    artifact.merge_rejected([pa.Table.from_pylist([row], schema=REJECTED)])
    artifact.commit(units={}, num_rows_in=1, inputs={}, seconds=0)
    text = render(collect(str(tmp_path)))
    assert "https://***@host/a.wav?X-Amz-Signature=***" in Page(text).text
    assert "hunter22" not in text
    assert "6fe5" not in text


def test_provenance_says_what_ran(page: Page) -> None:
    embed, retrieval = page.row("embed/demo"), page.row("retrieval/demo")
    assert embed[1:6] == ["2026-01-17 09:30", "5 min 12 s", "1,075", "1,072", "3"]
    assert (embed[6], retrieval[6]) == ("4b825dc642", "4b825dc642 uncommitted changes")
    assert embed[8] == "Xeon 8375C, 16 cores, 125 GB, H100"
    assert [row for row in page.rows if row == ["model.layers", "4, 6"]]
    assert [row for row in page.rows if row == ["torch", "2.13.0"]]


def test_embed_tells_how_much_speech(page: Page) -> None:
    # Of several runs that have added recordings, the manifest has the time of the last one.
    told = "1,075 utterances, 1 h 15 min of speech in 5 languages. The last run took 5 min 12 s."
    assert told in " ".join(page.text.split())
    (row,) = [row for row in page.rows if row[0] == "ru" and row[1] == "215"]
    assert row[2:] == ["15 min 3 s", "4.2", "3", ""]


def test_embed_without_its_optional_figures(tmp_path: Path) -> None:
    write_artifact(tmp_path, "embed", "bare", {"languages": {"en": {"num_utterances": 7}, "fr": {}}}, [])
    page = Page(render(collect(str(tmp_path))))
    assert "7 utterances in 2 languages" in " ".join(page.text.split())
    assert page.row("fr") == ["fr", "–", "–", "–", "–", ""]


def test_a_root_in_an_object_store_gives_the_same_page(
    root: Path, source: str, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = pafs.SubTreeFileSystem(str(root.parent), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "_remote_filesystem", lambda scheme, authority: local)
    remote = collect(f"s3://{root.name}")
    assert remote.root == f"s3://{root.name}"
    assert render(dataclasses.replace(remote, root=results.root, created=results.created)) == source


def test_only_files_of_the_manifest_are_read(root: Path, results: Results, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "copy/retrieval/demo/data/en-xx.parquet").write_bytes(b"half a file")
    assert collect(str(tmp_path / "copy")).retrieval == results.retrieval


@pytest.mark.parametrize(("corpus", "num_said"), [("fleurs", 1), ("asterisk", 0)])
def test_where_the_paper_has_values_the_page_says_that_it_lacks_them(
    tmp_path: Path, corpus: str, num_said: int
) -> None:
    write_artifact(tmp_path, "retrieval", "few", retrieval_metrics(), [])
    write_json(tmp_path / "retrieval/few/config.json", {"identity": {}, "settings": {"corpus": corpus}})
    assert render(collect(str(tmp_path))).count("Paper value: not available.") == num_said


def test_a_run_without_baselines_intervals_layers_texts_and_plots(tmp_path: Path) -> None:
    bare = ("score", "mode", "protocol", "top_k", "pairs", "mean")
    metrics = {key: value for key, value in retrieval_metrics().items() if key in bare}
    for figures in metrics["pairs"].values():
        del figures["r1_ci95"]
    row = ranking_row("en-fr", "vm-intro", 9, np.random.default_rng(0)) | {"text": None}
    data = tmp_path / "retrieval" / "bare" / "data"
    data.mkdir(parents=True)
    pq.write_table(ranking_table([row]), data / "en-fr.parquet")
    names = [{"pair": "fr-en", "utterance_id": f"fr/{sentence}", "sentence_id": sentence} for sentence in SENTENCES]
    pq.write_table(pa.Table.from_pylist(names, schema=RANKING), data / "fr-en.parquet")
    write_artifact(tmp_path, "retrieval", "bare", metrics, ["data/en-fr.parquet", "data/fr-en.parquet"])
    page = Page(render(collect(str(tmp_path))))
    assert page.row("en → fr", f"{100 * metrics['pairs']['en-fr']['r1']:.1f}")[6:8] == ["–", "–"]
    assert "no transcript of en/vm-intro" in page.articles[0]
    assert "No query found its translation first." in page.text
    assert "mean pooling" not in page.text
    assert page.open == []


def test_rankings_of_an_earlier_version_are_left_out_and_the_figures_are_shown(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "runs")
    path = tmp_path / "runs/retrieval/demo/manifest.json"
    write_json(path, json.loads(path.read_text()) | {"schema": {"ranking": 1}})
    found = collect(str(tmp_path / "runs")).retrieval["demo"]
    assert (found.best, found.worst) == ((), ())
    assert found.scored.mean.r1 == retrieval_metrics()["mean"]["r1"]


def test_several_runs_are_compared_first(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "runs")
    write_artifact(tmp_path / "runs", "retrieval", "recall", retrieval_metrics() | {"mode": "recall"}, [])
    source = render(collect(str(tmp_path / "runs")))
    page = Page(source)
    assert page.row("demo", "SeqSim F1")[2] == page.row("recall", "SeqSim recall")[2]
    assert 'href="#retrieval-recall"' in source
    assert 'id="retrieval-recall"' in source


def test_a_root_that_is_not_there_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        collect(str(tmp_path / "nowhere"))
    assert "Nothing is finished under this root yet." in Page(render(collect(str(tmp_path)))).text


@pytest.fixture(scope="module")
def tuned_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tuned")
    write_tuned_runs(root)
    return root


@pytest.fixture(scope="module")
def tuned_source(tuned_root: Path) -> str:
    return render(collect(str(tuned_root)))


@pytest.fixture(scope="module")
def tuned_page(tuned_source: str) -> Page:
    return Page(tuned_source)


def test_tuned_runs_stand_in_one_table_with_what_they_kept_and_gained(tuned_page: Page) -> None:
    for name, settings, kept, gain in SWEEPS:
        if name.startswith("plain"):
            continue
        (row,) = [row for row in tuned_page.rows if len(row) == 9 and row[2] == name]
        assert row[3:6] == ["1", f"{gain:+.2f}".replace("-", "−"), f"{100 * kept:.1f}"]
        assert row[6] == "WER 66.7 → 73.3"  # (6 + 27 + 167) / 3, and a tenth more
        assert row[7] == (
            "dominated" if name in {"bad", "ewc-1e4", "replay-50", "lora-4", "lora-16"} else "on the front"
        )
        assert row[8] == ("inside" if name == "replay-30" else "outside")
        assert ("EWC" in row[0]) == ("ewc_lambda" in settings)
        assert ("replay" in row[0]) == ("replay_fraction" in settings)
    (seeds,) = [row for row in tuned_page.rows if row[2:3] == ["plain, plain-1"]]
    assert seeds[1] == "–"
    assert seeds[3:6] == ["2", "+9.80 +9.40 to +10.20", "29.0 27.0 to 31.0"]
    (alpha,) = [row for row in tuned_page.rows if row[2:3] == ["plain-0.3"]]
    assert [alpha[0].strip(), *alpha[1:2], *alpha[4:6]] == ["interpolation", "α 0.3", "+2.90", "91.0"]


def test_the_first_sentence_says_who_reaches_the_goal(tuned_page: Page) -> None:
    text = " ".join(tuned_page.text.split())
    assert "1 of 13 reaches the goal: replay-30 (replay) keeps 88.0% and gains +8.1." in text
    assert "at least 80% of the mean BLEU of es-en, fr-en, it-en, ru-en is kept, and at least +7.84 BLEU gained" in text
    assert "80% of the largest gain of plain fine-tuning (+9.80)" in text


def test_the_plot_has_a_mark_a_run_and_the_goal(tuned_source: str) -> None:
    (plane,) = re.findall(r'<svg class="plane".*?</svg>', tuned_source, re.DOTALL)
    drawn = Drawn(plane)
    assert len(drawn.titles) == 14  # a baseline and thirteen points
    assert "ewc-1e4: EWC λ 10000; kept 71.0%, gain +7.20 BLEU" in drawn.titles
    assert [len(drawn.lines(kind)) for kind in ("sweep", "front", "goal")] == [6, 1, 1]
    assert len(drawn.lines("spread")) == 2  # one point has seeds


def test_nobody_at_the_goal_and_no_goal_at_all(tmp_path: Path) -> None:
    baseline = write_baseline(tmp_path)
    for name, settings, kept, gain in [("loud", {}, 0.3, 9.0), ("near", {"lora_rank": 4}, 0.75, 6.3)]:
        checkpoint = {"name": name, "fingerprint": write_finetune(tmp_path, name, FinetuneConfig(**settings))}
        write_translate(tmp_path, name, baseline, moved(kept, gain), checkpoint)
    text = " ".join(Page(render(collect(str(tmp_path)))).text.split())
    assert "None of 2 reaches the goal. near (LoRA) comes nearest: it keeps 75.0% and gains +6.3, 70% of what" in text
    shutil.rmtree(tmp_path / "translate/loud")
    source = render(collect(str(tmp_path)))
    assert "No plain fine-tuning gained on en-zh, es-zh, fr-zh, ru-zh" in " ".join(Page(source).text.split())
    assert '<g class="goal"' not in source


def test_a_checkpoint_that_was_made_anew_is_not_the_one_that_was_read(tmp_path: Path) -> None:
    baseline = write_baseline(tmp_path)
    write_finetune(tmp_path, "zh", FinetuneConfig())
    write_translate(tmp_path, "zh", baseline, moved(0.5, 2.0), {"name": "zh", "fingerprint": "of the one before"})
    write_translate(tmp_path, "prompted", baseline, moved(0.9, 1.0), None)
    (group,) = collect(str(tmp_path)).keeping
    assert {point.names[0]: point.recipe.method for point in group.points} == {"zh": "unknown", "prompted": "not tuned"}


def test_seeds_of_ewc_are_one_point_though_each_has_its_own_fisher(tmp_path: Path) -> None:
    baseline = write_baseline(tmp_path)
    for seed in (0, 1):
        settings = FinetuneConfig(ewc_lambda=2.0, keep=("es-en",), seed=seed)
        checkpoint = {"name": f"s{seed}", "fingerprint": write_finetune(tmp_path, f"s{seed}", settings)}
        write_translate(tmp_path, f"s{seed}", baseline, moved(0.5, 2.0 + seed), checkpoint)
    (point,) = collect(str(tmp_path)).keeping[0].points
    assert (point.names, point.num_seeds, point.recipe.dial_text) == (("s0", "s1"), 2, "λ 2")


def test_runs_without_both_kinds_of_direction_are_named(tmp_path: Path) -> None:
    baseline = write_baseline(tmp_path)
    into_zh = {name: bleu for name, bleu in moved(0.5, 3.0).items() if name.endswith("zh")}
    write_translate(tmp_path, "only-zh", baseline, into_zh, None)
    page = Page(render(collect(str(tmp_path))))
    assert "for lack of BLEU both into English and into another language: only-zh." in " ".join(page.text.split())
    assert "svg" not in page.tags


def test_bleu_of_every_run_by_direction(tuned_page: Page) -> None:
    header = tuned_page.row("Run", "es→en")
    assert header[1:-1] == [name.replace("-", "→") for name in BEFORE]
    assert tuned_page.row("base", "12.2")[1:] == [f"{bleu:.1f}" for bleu in BEFORE.values()] + ["66.7"]
    after = moved(0.43, 9.1)
    assert tuned_page.row("ewc-1e2", f"{after['es-en']:.1f}")[1:-1] == [f"{after[name]:.1f}" for name in BEFORE]


def test_runs_of_other_directions_leave_their_cells_empty(tmp_path: Path) -> None:
    baseline = write_baseline(tmp_path)
    write_translate(tmp_path, "few", baseline, {"es-en": 9.06, "ru-zh": 3.14}, None)
    page = Page(render(collect(str(tmp_path))))
    assert page.row("few")[1:-1] == ["9.1", "", "", "", "", "", "", "3.1"]


def test_translations_by_direction(tuned_page: Page, tuned_source: str) -> None:
    rows = [row for row in tuned_page.rows if row[0] == "fr → en"]
    assert rows[1] == ["fr → en", "7.4", "3.7–11.1", "14.8", "not scored", "", "2.9", "35"]  # of base, the second name
    rates = [row for row in tuned_page.rows if row[0] == "fr → fr"]
    assert rates[1] == ["fr → fr", "", "", "", "", "WER 167.0", "0.0", "35"]
    assert tuned_source.count('<details id="translate-') == 15


@pytest.mark.parametrize(
    ("comet", "said"),
    [
        (None, "COMET: not scored, because no model was given (--translate.comet)."),
        (
            {"model": "m", "version": "2.2.7", "reason": "<b>no room", "num_without_text": 0},
            "COMET: not scored: <b>no room.",
        ),
        (
            {"model": "Unbabel/x", "version": "2.2.7", "reason": None, "num_without_text": 3},
            "COMET: Unbabel/x, unbabel-comet 2.2.7; 3 translations have no source text.",
        ),
    ],
)
def test_one_run_says_all_and_why_comet_is_missing(tmp_path: Path, comet: dict[str, Any] | None, said: str) -> None:
    write_baseline(tmp_path)
    figures = figures_of(BEFORE, {"ja-ja": 0.5}) | {"comet": comet}
    figures["directions"]["es-en"]["comet"] = 0.8125
    figures["directions"]["ja-ja"] = {"measure": "cer", "cer": 0.25, "wer": None, "num": 9, "empty_rate": 0.0}
    write_json(tmp_path / "translate/base/metrics.json", figures)
    source = render(collect(str(tmp_path)))
    page = Page(source)
    assert said in " ".join(page.text.split())
    assert page.row("es → en")[4] == "0.812"
    assert page.row("ja → ja")[5] == "CER 25.0"
    assert "<details id" not in source
    assert 'id="translate"' in source
    assert page.open == []


def test_fine_tuning_is_told_by_run(tuned_page: Page, tuned_source: str) -> None:
    both = tuned_page.row("both", "en-zh")
    assert both[2:6] == ["tgt_transcribe", "decoder", "3e-5", "3"]
    assert both[6:12] == ["1,230", "10000", "both", "30%", "es-en, fr-en", "0"]
    assert both[12:] == ["3.875 → 1.062", "–", "20.2"]
    lora = tuned_page.row("lora-4", "en-zh")
    assert (lora[3], lora[7:11], lora[13]) == ("LoRA, rank 4", ["–"] * 4, "20.0, 17.5")
    assert tuned_page.row("plain-1", "en-zh")[11] == "1"
    curves = [Drawn(svg) for svg in re.findall(r'<svg class="curve".*?</svg>', tuned_source)]
    assert [len(drawn.lines("new")) for drawn in curves] == [1] * len(SWEEPS)
    # Both of LoRA have dev BLEU, the best at step 90 of 120 over 240 units.
    assert [line for drawn in curves for line in drawn.lines("best")] == [[(182, 74), (182, 4)]] * 2


def test_forgetting_is_drawn_by_step_where_it_was_measured(tmp_path: Path) -> None:
    for name in ("watched", "blind"):
        write_finetune(tmp_path, name, FinetuneConfig(evaluate_every=30))
    file = tmp_path / "finetune/watched/log.json"
    log = json.loads(file.read_text())
    for row in log:
        if "dev_bleu" in row:
            row |= {"dev_bleu/en-zh": row["step"] / 10, "dev_bleu/es-en": 24 - row["step"] / 10, "dev_bleu/es-fr": 1.0}
    file.write_text(json.dumps(log))
    source = render(collect(str(tmp_path)))
    (drawn,) = re.findall(r"<h3>What was learned.*?</figure>", source, re.DOTALL)
    assert re.findall(r"<h4>(.*?)</h4>", drawn) == ["watched"]
    curve = Drawn(re.findall(r"<svg.*?</svg>", drawn)[0])
    assert curve.lines("new") == [[(62, 64), (122, 54), (182, 44), (242, 34)]]  # 3 to 12 of the largest, 21
    assert curve.lines("old") == [[(62, 4), (122, 14), (182, 24), (242, 34)]]
    assert "es → en: BLEU 21.0 at step 30, 12.0 at step 120" in drawn
    assert "0 to 21.0" in drawn
    assert curve.lines("best") == [[(182, 74), (182, 4)]]
    assert Page(source).open == []


def test_the_fisher_of_a_run_is_told(tuned_page: Page) -> None:
    assert tuned_page.row("ewc-1e2", "es-en, fr-en") == [
        *("ewc-1e2", "es-en, fr-en", "references", "200", "4.12e4", "12.5"),
    ]


def test_the_page_of_tuned_runs_is_whole(tuned_source: str, tuned_page: Page) -> None:
    assert tuned_page.open == []
    assert {tag for tag, _ in tuned_page.links} == {"a"}
    assert not re.search(r"url\(|@import|https?://", tuned_source)
    ids = re.findall(r'\bid="(.*?)"', tuned_source)
    assert len(ids) == len(set(ids))
    for _, target in tuned_page.links:
        assert f'id="{target[1:]}"' in tuned_source


def test_hostile_names_of_runs_are_text(tmp_path: Path) -> None:
    hostile = '<img src=x onerror=alert(1)> & "friends"'
    baseline = write_baseline(tmp_path, hostile)
    settings = FinetuneConfig(ewc_lambda=2.0, keep=("es-en",), fisher=hostile)
    checkpoint = {"name": hostile, "fingerprint": write_finetune(tmp_path, hostile, settings)}
    write_translate(tmp_path, f"{hostile}2", baseline, moved(0.5, 2.0), checkpoint)
    write_translate(tmp_path, f"{hostile}3", baseline, {"es-zh": 1.0}, checkpoint)
    source = render(collect(str(tmp_path)))
    page = Page(source)
    assert "img" not in page.tags
    assert page.text.count(hostile) > 10
    assert hostile not in source
    assert page.open == []


def test_plots_of_names_that_the_font_of_matplotlib_lacks_are_quiet(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    name = "语言 \u05e9 $x^2$ \x1b"
    checkpoint = {"name": name, "fingerprint": write_finetune(tmp_path, name, FinetuneConfig())}
    write_translate(tmp_path, name, write_baseline(tmp_path), moved(0.5, 2.0), checkpoint)
    (plane,) = re.findall(r'<svg class="plane".*?</svg>', render(collect(str(tmp_path))), re.DOTALL)
    assert [*Drawn(plane).labels] == [name.replace("\x1b", "\ufffd")]
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


def test_figures_as_the_translate_stage_writes_them(tmp_path: Path) -> None:
    """The keys that this page reads are those that the stage writes."""
    said = {
        "es-en": ["the cat sat on the mat", "a dog ran off"],
        "es-zh": ["猫坐在垫子上", "狗跑了"],
        "es-es": ["el gato", "un perro"],
    }
    good, bad = (
        {
            name: pa.Table.from_pylist(
                [
                    {"direction": name, "utterance_id": f"{k}", "sentence_id": f"{k}", "text": None, "reference": text}
                    | {"hypothesis": text if is_good or k else "the the 的", "num_tokens": 3}
                    for k, text in enumerate(texts)
                ],
                schema=HYPOTHESIS,
            )
            for name, texts in said.items()
        }
        for is_good in (True, False)
    )
    baseline = write_baseline(tmp_path)
    write_translate(tmp_path, "real", baseline, moved(0.5, 2.0), None)
    figures = json.loads((tmp_path / "translate/real/metrics.json").read_text())
    figures |= translated.summarise(good, {}) | {"baseline": baseline, "kept": translated.compare(good, bad, {})}
    write_json(tmp_path / "translate/real/metrics.json", figures)
    results = collect(str(tmp_path))
    (point,) = results.keeping[0].points
    assert point.gain == pytest.approx(figures["kept"]["gain"])
    assert point.kept == pytest.approx(figures["kept"]["directions"]["es-en"]["retained"])
    assert point.rates["wer"][1] == 0 < point.rates["wer"][0]
    assert Page(render(results)).row("es → en", "100.0")[3] == "100.0"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.signed(-0.214), "−0.2"),
        (formats.signed(3.456, 2), "+3.46"),
        (formats.signed(None), "–"),
        (formats.decimal(0.8125, 3), "0.812"),
        (formats.decimal(-1.25, 2), "−1.25"),
        (formats.decimal(None), "–"),
        (formats.percent(0.88649), "88.6"),
        (formats.percent(1 / 215, 2), "0.47"),
        (formats.percent(None), "–"),
        (formats.points(-0.0214), "−2.1"),
        (formats.points(0.3), "+30.0"),
        (formats.times(191.3), "191×"),
        (formats.times(3.44), "3.4×"),
        (formats.count(12345), "12,345"),
        (formats.duration(8.44), "8.4 s"),
        (formats.duration(59.97), "1 min 0 s"),
        (formats.duration(725.2), "12 min 5 s"),
        (formats.duration(12000), "3 h 20 min"),
        (formats.score_name("seqsim-f1"), "SeqSim F1"),
        (formats.plot_caption("frame_match_en-fr")[:6], "Cosine"),
        (formats.plot_caption("something_else"), ""),
        (formats.flatten({"a": {"b": [1, 2], "c": {}}, "d": None}), {"a.b": "1, 2", "a.c": "{}", "d": "None"}),
    ],
)
def test_formats(shown: object, expected: object) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("retrieval/demo/data/en-fr.parquet", None),
        ("retrieval/demo/data/en-fr.parquet", b""),
        ("retrieval/demo/manifest.json", b""),
        ("retrieval/demo/manifest.json", b'{"files": [{"pa'),
        ("retrieval/demo/metrics.json", b'{"pairs": '),
        ("retrieval/demo/metrics.json", b"{}"),
        ("retrieval/demo/config.json", b"\0" * 20),
        ("retrieval/demo/rejected.parquet", b"PAR1"),
        ("retrieval/demo/plots/r1_bars.png", b"no picture"),
    ],
)
def test_what_is_damaged_is_named_and_the_rest_is_shown(
    root: Path, results: Results, tmp_path: Path, name: str, damage: bytes | None
) -> None:
    shutil.copytree(root, tmp_path / "copy")
    file = tmp_path / "copy" / name
    file.unlink() if damage is None else file.write_bytes(damage)
    found = collect(str(tmp_path / "copy"))
    assert list(found.damaged) == ["retrieval/demo"]
    assert found.speech == results.speech
    page = Page(render(found))
    assert "Damaged, so not shown:" in page.text
    assert str(file.parent if name.endswith("metrics.json") and damage == b"{}" else file) in page.text
    assert page.row("embed/demo")


def test_a_changed_byte_is_found_where_all_are_read(tmp_path: Path) -> None:
    artifact = artifacts.plan(str(tmp_path), "fisher", "mine", {}, {})
    artifact.begin()
    artifact.write_bytes("fisher.safetensors", b"weights" * 100)
    artifact.write_json("metrics.json", {"num_examples": 1, "trace": 1.0, "largest": 1.0})
    artifact.merge_rejected()
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0, others=["fisher.safetensors"])
    assert collect(str(tmp_path), verify=True).damaged == {}
    weights = tmp_path / "fisher/mine/fisher.safetensors"
    weights.write_bytes(b"Weights" + weights.read_bytes()[7:])
    damaged = collect(str(tmp_path), verify=True).damaged
    assert list(damaged) == ["fisher/mine"]
    assert damaged["fisher/mine"].startswith(f"{weights} is not what was written: its checksum differs; make it again:")


def replaced(root: Path, name: str, path: tuple[str, ...], value: Any) -> None:
    """Put another value into a JSON file."""
    content = json.loads((root / name).read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (root / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("retrieval/demo/metrics.json", ("mean", "chance_r1"), "x"),
        ("retrieval/demo/metrics.json", ("mean",), None),
        ("retrieval/demo/manifest.json", ("wall_time_s",), [1]),
        ("retrieval/demo/manifest.json", ("git",), "x"),
        ("retrieval/demo/manifest.json", ("inputs",), [[1]]),
        ("retrieval/demo/config.json", ("settings",), ["x"]),
        ("retrieval/demo/manifest.json", ("fingerprint",), [1]),
    ],
)
def test_whole_files_that_say_what_no_job_writes_cost_their_artifact_alone(
    root: Path, tmp_path: Path, name: str, path: tuple[str, ...], value: Any
) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    replaced(copy, name, path, value)
    found, text = formats.shown(collect(str(copy)))
    page = Page(text)
    assert list(found.damaged) == ["retrieval/demo"]
    assert "Damaged, so not shown: retrieval/demo" in page.words
    assert page.row("embed/demo")


def test_runs_that_only_together_make_no_sense_leave_the_page_to_the_others(tmp_path: Path) -> None:
    write_tuned_runs(tmp_path)
    replaced(tmp_path, "finetune/plain/config.json", ("identity", "finetune"), "x")
    found, text = formats.shown(collect(str(tmp_path)))
    assert found.damaged
    assert set(found.damaged) <= {"finetune/plain", "translate/plain", "translate/plain-0.3", "translate/plain-0.6"}
    assert "ewc-1e4" in text


def test_a_picture_that_would_fill_all_memory_is_no_plot(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    path = copy / "retrieval/demo/plots/r1_bars.png"
    data = path.read_bytes()
    header = b"IHDR" + (2**31 - 1).to_bytes(4, "big") * 2 + data[24:29]
    path.write_bytes(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:])
    assert list(collect(str(copy)).damaged) == ["retrieval/demo"]


def test_half_a_character_of_json_is_written(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    replaced(copy, "embed/demo/config.json", ("corpus",), "\ud800")
    assert render(collect(str(copy))).encode()


@pytest.mark.parametrize("name", ["../other", "a/b", "..", 5, None])
def test_an_artifact_names_embeddings_under_its_root_alone(root: Path, tmp_path: Path, name: object) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    replaced(copy, "retrieval/demo/manifest.json", ("inputs",), {"embed": {"name": name, "fingerprint": "x"}})
    found = collect(str(copy))
    assert found.of("retrieval")[0].embedded == {}
    assert found.clips.num_wanted == 0
