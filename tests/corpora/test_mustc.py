"""The MuST-C layout: variants that are published, and files that do not fit one another."""

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import SENTENCES, write_mustc

from xlt_ray import corpora
from xlt_ray.corpora import mustc
from xlt_ray.errors import UserError
from xlt_ray.languages import code_of, code_of_name


def write_split(
    folder, name, num, texts, suffix=".wav", line="- {{duration: 2.5, offset: {}.0, speaker_id: A, wav: t{}}}"
):
    (folder / "txt").mkdir(parents=True)
    (folder / "wav").mkdir()
    (folder / "wav" / f"t{suffix}").touch()
    lines = [line.format(3 * i, ".wav") for i in range(num)]
    (folder / "txt" / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    for file, text in texts.items():
        (folder / "txt" / file).write_text("".join(f"{text} {i}\n" for i in range(num)))


@pytest.fixture
def low_resource(tmp_path):
    """As the Quechua data of IWSLT: three-letter codes, no data/, more files than texts, a test set without source."""
    pair = tmp_path / "que_spa_constrained"
    for name in ("train", "valid"):
        texts = {f"{name}.que": "wasi", f"{name}.spa": "casa", f"{name}.spa.tc": "Casa", "segments": "x"}
        write_split(pair / name, name, 3, texts)
    write_split(pair / "test", "test", 2, {"test.spa": "luz"})
    (tmp_path / "additional_mt_text").mkdir()
    return tmp_path


@pytest.mark.parametrize("below", ["", "que_spa_constrained"])
def test_low_resource_tracks(low_resource, below):
    rows = list(corpora.read(f"mustc:{low_resource / below}", ["qu"], None))
    assert [row.split for row in rows] == ["dev"] * 3 + ["test"] * 2 + ["train"] * 3
    assert (rows[0].text, rows[0].translations) == ("wasi 0", {"es": "casa 0"})
    assert (rows[3].text, rows[3].translations) == (None, {"es": "luz 0"})
    assert [(row.start, row.duration, row.speaker) for row in rows[:2]] == [(0.0, 2.5, "A"), (3.0, 2.5, "A")]
    assert rows[0].audio == f"{low_resource}/que_spa_constrained/valid/wav/t.wav"
    assert rows[0].sentence_id == rows[5].sentence_id != rows[1].sentence_id  # the same Spanish
    assert len({row.utterance_id for row in rows}) == 8
    assert [row.split for row in corpora.read(f"mustc:{low_resource}", ["qu"], "valid")] == ["dev"] * 3


def test_files_of_another_editor_read_the_same(low_resource):
    """With a byte order mark and CRLF, as Windows writes text."""
    rows = list(corpora.read(f"mustc:{low_resource}", ["qu"], None))
    for file in low_resource.glob("*/*/txt/*"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert list(corpora.read(f"mustc:{low_resource}", ["qu"], None)) == rows


def test_pairs_of_one_source_are_joined(tmp_path):
    spec = write_mustc(tmp_path, pairs=["en-de", "en-zh"])
    rows = list(corpora.read(spec, ["en"], "train"))
    assert len(rows) == 6
    assert rows[0].translations == {"de": SENTENCES[0]["de"], "zh": SENTENCES[0]["zh"]}
    assert rows[0].audio.startswith(f"{tmp_path}/en-de/")
    only = list(corpora.read(f"{spec}/en-zh", ["en"], "train"))
    assert [row.utterance_id for row in only] == [row.utterance_id for row in rows]


def test_recordings_may_have_another_suffix_than_the_table_says(tmp_path):
    write_split(tmp_path / "es-es/data/tst-HE", "tst-HE", 1, {"tst-HE.es": "sí"}, suffix=".flac")
    [row] = corpora.read(f"mustc:{tmp_path}", ["es"], "tst-HE")
    assert row.audio.endswith("/wav/t.flac")
    assert (row.text, row.translations, row.split) == ("sí 0", {}, "tst-HE")


def test_what_lies_beside_a_recording_does_not_take_its_place(tmp_path):
    write_split(tmp_path / "es-es/data/tst-HE", "tst-HE", 1, {"tst-HE.es": "sí"})
    (tmp_path / "es-es/data/tst-HE/wav/t.words").touch()
    [row] = corpora.read(f"mustc:{tmp_path}", ["es"], "tst-HE")
    assert row.audio.endswith("/wav/t.wav")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "train.spa").write_text("one\n"), r"train\.spa has 1 lines, but .*train\.yaml has 3 segments"),
        (
            lambda f: (f / "train.yaml").write_text("- {duration: 1, offset: -1, wav: a}\n" * 3),
            "line 1: offset must be",
        ),
        (lambda f: (f / "train.yaml").write_text("- {offset: 1, wav: a}\n" * 3), "line 1: not a segment"),
        (lambda f: (f / "train.yaml").write_text("- {offset: x, duration: 1, wav: a}\n" * 3), "line 1: could not"),
        (lambda f: (f / "train.yaml").write_text("- {offset: [1"), "is not YAML"),
    ],
)
def test_files_that_do_not_fit_are_named(low_resource, spoil, message):
    spoil(low_resource / "que_spa_constrained/train/txt")
    with pytest.raises(UserError, match=message):
        list(corpora.read(f"mustc:{low_resource}", ["qu"], "train"))


def test_what_is_not_there_is_named(low_resource, tmp_path):
    with pytest.raises(UserError, match="nothing in the layout of MuST-C"):
        list(corpora.read(f"mustc:{tmp_path}/additional_mt_text", ["qu"], None))
    with pytest.raises(UserError, match=r"no language 'en'.*valid are qu"):
        list(corpora.read(f"mustc:{low_resource}", ["en"], None))
    (low_resource / "que_spa_constrained").rename(low_resource / "quechua")
    with pytest.raises(UserError, match="name the folder like en-de"):
        list(corpora.read(f"mustc:{low_resource}", ["qu"], None))


VALUES = st.one_of(
    st.floats(0, 1e4).map(lambda x: round(x, 6)), st.integers(0, 99), st.text("abcXYZ_.09- ü'\",:#", min_size=1)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 9e3), st.floats(0.01, 99), VALUES, st.text("ab_-.", min_size=1)), min_size=1))
def test_lines_are_read_as_the_yaml_library_reads_them(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("yaml") / "train.yaml"
    rows = [{"duration": d, "offset": o, "speaker_id": s, "wav": f"x{w}.wav"} for o, d, s, w in entries]
    path.write_text(yaml.safe_dump(rows, default_flow_style=None, width=10_000, allow_unicode=True))
    expected = yaml.safe_load(path.read_text())
    read = list(mustc._entries(str(path)))
    assert [(e.wav, e.offset, e.duration) for e in read] == [(e["wav"], e["offset"], e["duration"]) for e in expected]


def test_two_hundred_thousand_segments_take_seconds(tmp_path):
    line = "- {duration: 3.5, offset: 16.08, rW: 9, uW: 0, speaker_id: spk.1096, wav: ted_1096.wav}\n"
    (tmp_path / "train.yaml").write_text(line * 23_000)
    started = time.perf_counter()
    assert len(list(mustc._entries(str(tmp_path / "train.yaml")))) == 23_000
    assert time.perf_counter() - started < 6


def test_codes_are_those_of_whisper():
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert [code_of(code) for code in LANGUAGES] == list(LANGUAGES)
    assert [code_of(code) for code in ("que", "spa", "zh-CN", "cmn_hans", "NOB", "bem")] == "qu es zh zh no bem".split()
    assert [code_of_name(name) for name in ("English", "mandarin", "quechua", "fra")] == ["en", "zh", "qu", "fr"]
