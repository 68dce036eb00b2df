"""A corpus with one defect of every kind, and one without."""

import random

import numpy as np
import pytest
import soundfile as sf

from xlt_ray.corpora.doctor import check, check_batch, summarise
from xlt_ray.store.schema import Utterance


def write(path, seconds=1.0, rate=16_000, num_channels=1, amplitude=0.3, seed=0):
    """Noise: no two recordings have the same bytes unless they have the same seed."""
    noise = np.random.default_rng(seed).uniform(-amplitude, amplitude, (round(seconds * rate), num_channels))
    sf.write(path, noise.astype(np.float32), rate, subtype="FLOAT")


def row(path, language, sentence, utterance_id=None):
    return Utterance(
        utterance_id=utterance_id or f"{language}/{sentence}", sentence_id=sentence, language=language, audio=str(path)
    )


@pytest.fixture
def clean(tmp_path):
    """Five sentences in two languages; the French ones are twice as long."""
    rows = []
    for i in range(5):
        for j, language in enumerate(["en", "fr"]):
            path = tmp_path / f"{language}{i}.wav"
            write(path, (1.0 + i / 10) * (1 + j), seed=2 * i + j)
            rows.append(row(path, language, str(i)))
    return rows


def found(result):
    return {(p.kind, p.where): (p.num, p.example, p.is_note) for p in result.problems}


def test_a_clean_corpus(clean):
    result = check(clean)
    assert result.problems == []
    assert result.is_clean
    assert [(t.num_rows, t.num_sentences) for t in result.totals.values()] == [(5, 5), (5, 5)]
    assert result.totals["en"].seconds == pytest.approx(1.0 + 1.1 + 1.2 + 1.3 + 1.4, abs=1e-3)
    assert result.totals["fr"].seconds == pytest.approx(2 * 6.0, abs=1e-3)
    assert "no problems" in result.render()


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("missing", lambda path: path.unlink()),
        ("empty", lambda path: path.write_bytes(b"")),
        ("undecodable", lambda path: path.write_bytes("这不是声音".encode() * 100)),
        ("truncated", cut_in_half),
        ("no samples", lambda path: sf.write(path, np.zeros(0), 16_000)),
        ("not finite", lambda path: sf.write(path, np.full(16_000, np.nan), 16_000, subtype="FLOAT")),
        ("out of range", lambda path: sf.write(path, np.full(16_000, 9e3), 16_000, subtype="FLOAT")),
        ("silent", lambda path: sf.write(path, np.zeros(16_000), 16_000)),
    ],
)
def test_unusable_recordings_are_counted_by_kind(clean, tmp_path, kind, spoil):
    for name in ("en0", "fr2", "fr3"):
        spoil(tmp_path / f"{name}.wav")
    result = check(reversed(clean))
    problems = found(result)
    if kind not in ("missing", "empty", "truncated"):  # the same damage gives the same bytes
        assert problems.pop(("duplicate sound", "fr")) == (1, "fr/2 = fr/3", False)
        assert problems.pop(("duplicate sound", "en")) == (1, "en/0 = fr/3", False)
    assert problems == {(kind, "en"): (1, "en/0", False), (kind, "fr"): (2, "fr/2", False)}
    assert not result.is_clean
    assert result.totals["fr"].num_rows == 5
    assert result.totals["fr"].seconds == pytest.approx(2 * (1.0 + 1.1 + 1.4), abs=1e-3)


def test_rate_and_channels_are_only_notes(clean, tmp_path):
    write(tmp_path / "en0.wav", 1.0, rate=48_000, num_channels=2, seed=100)
    write(tmp_path / "en1.wav", 1.1, rate=8_000, seed=101)
    result = check(clean)
    assert found(result) == {
        ("resampled", "en"): (2, "en/0", True),
        ("several channels", "en"): (1, "en/0", True),
    }
    assert result.is_clean
    assert result.totals["en"].seconds == pytest.approx(6.0, abs=1e-3)


def test_what_does_not_fit_the_encoder_is_too_long(clean, tmp_path):
    for i, seconds in enumerate((30.0, 30.1)):
        write(tmp_path / f"en{i}.wav", seconds, seed=200 + i)
        write(tmp_path / f"fr{i}.wav", 20.0, seed=210 + i)
    assert found(check(clean)) == {("too long", "en"): (1, "en/1", False)}


def test_duplicates(clean, tmp_path):
    (tmp_path / "en4.wav").write_bytes((tmp_path / "en1.wav").read_bytes())
    again = row(tmp_path / "en0.wav", "en", "0")
    other = row(tmp_path / "fr0.wav", "fr", "0", "fr/0 again")
    assert found(check([*clean, again, other])) == {
        ("duplicate id", "en"): (1, "en/0", False),
        ("duplicate sound", "en"): (1, "en/4 = en/1", False),
        ("duplicate sound", "fr"): (1, "fr/0 again = fr/0", False),
    }


def test_sentences_in_one_language_only(clean, tmp_path):
    for i, name in enumerate(["x", "x second"]):
        write(tmp_path / f"{name}.wav", seed=300 + i)
    alone = [row(tmp_path / f"{name}.wav", "en", "x", name) for name in ("x", "x second")]
    assert found(check([*clean, *alone])) == {("one language only", "en"): (1, "x", False)}
    only_english = [utterance for utterance in clean if utterance.language == "en"]
    assert check(only_english).problems == []


@pytest.mark.parametrize(("factor", "is_odd"), [(5.5, True), (4.5, False), (1 / 4.5, False), (1 / 5.5, True)])
def test_a_ratio_far_from_the_usual_one_is_a_wrong_pair(clean, tmp_path, factor, is_odd):
    write(tmp_path / "fr3.wav", 2.6 * factor, seed=400)
    expected = {("odd duration", "en-fr"): (1, "en/3 and fr/3", False)} if is_odd else {}
    assert found(check(clean)) == expected


def test_every_recording_of_a_sentence_is_compared(clean, tmp_path):
    write(tmp_path / "fr3b.wav", 2.6 * 6, seed=400)
    second = row(tmp_path / "fr3b.wav", "fr", "3", "fr/3b")
    assert found(check([*clean, second])) == {("odd duration", "en-fr"): (1, "en/3 and fr/3b", False)}


def test_two_pairs_say_nothing_about_the_usual_ratio(clean, tmp_path):
    write(tmp_path / "fr1.wav", 20.0, seed=400)
    assert check(clean[:4]).problems == []


def test_batches_may_come_in_any_order(clean, tmp_path):
    (tmp_path / "fr2.wav").unlink()
    write(tmp_path / "fr3.wav", 20.0, seed=400)
    findings = [check_batch([utterance])[0] for utterance in clean]
    random.Random(0).shuffle(findings)
    shuffled = summarise(findings)
    assert shuffled == check(clean)
    assert len(shuffled.problems) == 2


def test_more_rows_than_one_batch(clean):
    many = [row(u.audio, u.language, f"{u.sentence_id}/{i}", f"{u.utterance_id}/{i}") for u in clean for i in range(20)]
    result = check(many)
    assert [total.num_rows for total in result.totals.values()] == [100, 100]
    assert found(result).keys() == {("duplicate sound", "en"), ("duplicate sound", "fr")}
    assert found(result)["duplicate sound", "fr"][0] == 95


def test_an_empty_corpus():
    assert check([]).is_clean


def test_the_tables_name_every_problem_with_an_example(clean, tmp_path):
    (tmp_path / "fr2.wav").write_bytes(b"")
    write(tmp_path / "en0.wav", 60.0, rate=8_000, seed=100)
    [row_of_total] = [line.split() for line in check(clean).render().splitlines() if line.split()[:1] == ["en"]]
    assert row_of_total == ["en", "5", "5", "1.1"]
    lines = [line.split() for line in check(clean).render().splitlines()]
    assert ["PROBLEM", "empty", "fr", "1", "fr/2"] in lines
    assert ["PROBLEM", "too", "long", "en", "1", "en/0"] in lines
    assert ["note", "resampled", "en", "1", "en/0"] in lines


def test_names_with_brackets_are_shown_as_they_are(tmp_path):
    name = "[bold]a :smile:"
    text = check([row(tmp_path / "nowhere.wav", "en", "1", name)]).render()
    assert name in text
