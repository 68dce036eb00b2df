"""What the page plays, against what libsndfile decodes of it again; and pages whose recordings are gone."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import embedded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sacrebleu
import soundfile
from rendered import Page
from test_report import HOSTILE, PAIRS, retrieval_metrics, write_artifact, write_rankings
from tuned_runs import figures_of

from xlt_ray.report import clips
from xlt_ray.report.clips import MAX_SECONDS, read_clips
from xlt_ray.report.collect import Results, collect
from xlt_ray.report.render import render
from xlt_ray.store import artifacts
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import HYPOTHESIS, Utterance
from xlt_ray.translate.samples import MAX_SAMPLES, read_samples

RATE = 16_000
SENTENCES = ("agent-loggedoff", "conf-onlyperson", "vm-intro", "hostile", "pbx-transfer")


def tone(number: int, seconds: float = 0.6) -> np.ndarray[Any, Any]:
    """A sound of a pitch of its own, at 200 Hz and above."""
    return np.asarray(0.5 * np.sin(2 * np.pi * pitch(number) * np.arange(int(seconds * RATE)) / RATE), np.float32)


def pitch(number: int) -> float:
    return 200.0 + 40.0 * number


def pitch_heard(uri: str) -> tuple[float, float]:
    """The strongest frequency of a clip, and its seconds."""
    kind, _, text = uri.partition(",")
    assert kind == "data:audio/mpeg;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(text)))
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.abs(np.fft.rfft(middle)).argmax() * rate / len(middle)), len(samples) / rate


def write_speech(root: Path) -> Artifact:
    """Recordings of every sentence in two languages, those of the third longer than a clip may be."""
    rows = []
    for number, (language, sentence) in enumerate((a, b) for a in ("en", "fr") for b in SENTENCES):
        path = root / "audio" / language / f"{sentence}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(number, MAX_SECONDS + 3 if sentence == "vm-intro" else 0.6), RATE)
        rows.append(
            Utterance(
                utterance_id=f"{language}/{sentence}",
                sentence_id=sentence,
                language=language,
                audio=str(path),
                split="test",
            )
        )
    written: Artifact = embedded.write(root, "speech", rows)
    return written


def write_translations(root: Path, read: dict[str, str]) -> None:
    """One direction from French: two texts that are right, one that is nothing, one that is hostile."""
    said = ("Agent logged off.", "You are the only person.", "", HOSTILE, "Please hold.")
    wanted = ("Agent logged off.", "You are the only one here.", "Leave a message.", "friends", "Please hold.")
    rows = [
        {"direction": "fr-en", "utterance_id": f"fr/{name}", "sentence_id": name, "text": HOSTILE, "num_tokens": 3}
        | {"reference": reference, "hypothesis": hypothesis}
        for name, hypothesis, reference in zip(SENTENCES, said, wanted, strict=True)
    ]
    artifact = artifacts.plan(str(root), "translate", "texts", {"translate": {}}, {"corpus": "mine", "model": "base"})
    artifact.begin()
    artifact.write_table("data/u.parquet", pa.Table.from_pylist(rows, schema=HYPOTHESIS))
    artifact.write_json("metrics.json", figures_of({"fr-en": 12.0}, {}))
    artifact.merge_rejected()
    artifact.commit(units={"u": 5}, num_rows_in=5, inputs={"embed": read}, seconds=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    read = write_speech(root).named
    write_translations(root, read)
    metrics = retrieval_metrics()
    write_artifact(root, "retrieval", "demo", metrics, write_rankings(root, "demo"))
    manifest = root / "retrieval/demo/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"inputs": {"embed": read}}))
    return root


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return collect(str(root))


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    return Page(render(results))


def test_the_page_plays_the_recordings_that_it_names(results: Results, page: Page) -> None:
    """Whichever pair an example is of, its players have the pitch of the recordings that it shows."""
    number = {f"{a}/{b}": at for at, (a, b) in enumerate((a, b) for a in ("en", "fr") for b in SENTENCES)}
    heard = {name: pitch_heard(clip.uri) for (*_, name), clip in results.clips.found.items() if clip.uri}
    assert heard
    assert {name for name in number if name.startswith("fr/")} <= heard.keys()
    for name, (frequency, seconds) in heard.items():
        assert frequency == pytest.approx(pitch(number[name]), abs=6)
        assert seconds == pytest.approx(MAX_SECONDS if name.endswith("vm-intro") else 0.6, abs=0.15)
    played = [target for tag, target in page.links if tag == "audio"]
    assert set(played) == {clip.uri for clip in results.clips.found.values() if clip.uri}
    assert sum(map(len, played)) == results.clips.num_bytes <= clips.MAX_BYTES
    assert f"{results.clips.num_bytes:,} bytes inside this page" in page.words
    assert f"the first {MAX_SECONDS} s" in page.words


def test_recordings_of_other_languages_are_not_in_these_embeddings(results: Results, page: Page) -> None:
    shown = {name for (*_, name), clip in results.clips.found.items() if clip.problem}
    assert shown
    assert not [name for name in shown if name.startswith(("en/", "fr/"))]
    assert "no sound: it is no longer in the embeddings" in page.words


def test_nothing_but_data_is_loaded_and_texts_are_escaped(results: Results, page: Page) -> None:
    assert {tag for tag, _ in page.links} <= {"a", "audio", "img"}
    assert all(target.startswith(("#", "data:")) for _, target in page.links)
    assert len(page.scripts) == 1
    assert HOSTILE not in render(results)
    assert HOSTILE in page.text


def test_the_best_and_the_worst_translations_are_sacrebleus(results: Results, page: Page) -> None:
    tables = Artifact.at(results.root, "translate", "texts").tables()
    rows = [row for table in tables for row in table.to_pylist()]
    scores = {row["utterance_id"]: sacrebleu.sentence_chrf(row["hypothesis"], [row["reference"]]).score for row in rows}
    found = results.samples["texts"]
    ordered = sorted(scores, key=lambda name: -scores[name])
    assert [sample.utterance_id for sample in found.best] == ["fr/agent-loggedoff", "fr/pbx-transfer", *ordered[2:4]]
    assert [sample.utterance_id for sample in found.worst] == ordered[4:]
    assert [sample.score for sample in found.best] == pytest.approx([scores[s.utterance_id] for s in found.best])
    assert f"Written {HOSTILE}" in " ".join(" ".join(page.articles).split())


def test_no_direction_hides_the_others_and_transcriptions_are_left_aside() -> None:
    def table(direction: str, said: str, num: int) -> pa.Table:
        row = {"direction": direction, "sentence_id": "s", "text": None, "reference": "abcdef", "num_tokens": 1}
        rows = [row | {"utterance_id": f"{n}", "hypothesis": said} for n in range(num)]
        return pa.Table.from_pylist(rows, schema=HYPOTHESIS)

    said = {"en-zh": "abcdef", "fr-zh": "xbcdef", "it-zh": "xx", "fr-fr": "abcdef"}
    found = read_samples({name: table(name, text, 9) for name, text in said.items()})
    assert [sample.direction for sample in found.best] == ["en-zh", "en-zh", "fr-zh", "fr-zh"]
    assert [sample.direction for sample in found.worst] == ["it-zh", "it-zh", "fr-zh", "fr-zh"]
    assert len(found.best) == MAX_SAMPLES
    assert read_samples({}) == read_samples({"fr-fr": table("fr-fr", "a", 3)})
    single = read_samples({"en-zh": table("en-zh", "abcdef", 1)})
    assert (len(single.best), single.worst) == (1, ())


@pytest.mark.parametrize("gone", ["audio", "embed", "index", "damaged"])
def test_where_the_recordings_are_gone_the_page_says_so(root: Path, tmp_path: Path, gone: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    if gone == "audio":
        index = copy / "embed/speech/index.parquet"
        table = pq.read_table(index)
        moved = pa.array([path.replace(str(root), str(copy)) for path in table["audio"].to_pylist()], pa.string())
        at = table.schema.get_field_index("audio")
        pq.write_table(table.set_column(at, table.schema.field("audio"), moved), index)
        shutil.rmtree(copy / "audio")
    elif gone == "embed":
        shutil.rmtree(copy / "embed")
    elif gone == "index":
        (copy / "embed/speech/index.parquet").unlink()
    else:
        (copy / "embed/speech/index.parquet").write_bytes(b"PAR1 no table")
    results = collect(str(copy))
    page = Page(render(results))
    assert "audio" not in page.tags
    assert "no sound: " in page.words
    assert ("cannot read" if gone == "audio" else "the embeddings speech no longer exist") in page.words
    assert results.samples["texts"].best
    assert set(results.retrieval) == {"demo"}
    assert page.row(PAIRS[0].replace("-", " → "))


def test_the_limits_hold_whatever_is_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Artifact.at(str(root), "embed", "speech").named
    names = [f"{language}/{name}" for language in ("fr", "en") for name in SENTENCES]
    everything = read_clips(str(root), [(read, name) for name in names])
    sizes = [len(everything.found[*read.values(), name].uri or "") for name in names]
    assert (everything.num_wanted, everything.num_played, everything.num_bytes) == (10, 10, sum(sizes))
    monkeypatch.setattr(clips, "MAX_CLIPS", 3)
    assert [name for *_, name in read_clips(str(root), [(read, name) for name in names]).found] == names[:3]
    monkeypatch.setattr(clips, "MAX_BYTES", 2 * sizes[0])
    twice = read_clips(str(root), [(read, names[0])] * 2 + [(read, names[1])])
    assert (list(twice.found), twice.num_bytes) == ([(*read.values(), names[0])], 2 * sizes[0])
    assert read_clips(str(root), [(read, names[0])] * 3).found == {}


def test_embeddings_that_were_replaced_silence_no_run_that_reads_the_new_ones(root: Path, tmp_path: Path) -> None:
    """The run that read the old embeddings of the same name comes last."""
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    shutil.copytree(copy / "retrieval/demo", copy / "retrieval/older")
    manifest = copy / "retrieval/older/manifest.json"
    replaced = json.loads(manifest.read_text()) | {"inputs": {"embed": {"name": "speech", "fingerprint": "0" * 64}}}
    manifest.write_text(json.dumps(replaced | {"name": "older"}))
    results = collect(str(copy))
    new, old = (Page(render(results.only([f"retrieval/{name}"]))) for name in ("demo", "older"))
    assert "audio" in new.tags
    assert "the embeddings speech no longer exist" not in new.words
    assert "audio" not in old.tags
    assert "the embeddings speech no longer exist" in old.words


def test_a_recording_that_is_no_sound_has_its_reason(tmp_path: Path) -> None:
    speech = write_speech(tmp_path)
    (tmp_path / "audio/fr/hostile.wav").write_bytes(b"no sound at all")
    (clip,) = read_clips(str(tmp_path), [(speech.named, "fr/hostile")]).found.values()
    assert clip.uri is None
    assert (clip.problem or "").startswith("undecodable")
