"""The CoVoST 2 reader on miniature copies of both forms of the corpus; the witness is the recipe of CoVoST's script."""

from __future__ import annotations

import csv
import dataclasses

import pandas
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import (
    CovostRow,
    covost_row,
    recording_bytes,
    write_common_voice,
    write_covost2,
    write_covost2_parquet,
)

from xlt_ray.corpora.covost2 import TARGETS, covost2, without_outer_quotes
from xlt_ray.errors import UserError
from xlt_ray.store import storage

# Stray quotation marks and texts that look like "missing"; outer quotes as CSV writes them.
EN = [
    covost_row("en", 1, '5" of snow', '5" Schnee'),
    covost_row("en", 2, "null", "NA"),
    covost_row("en", 3, '"""Good-bye,"" said the boy."', '"Auf Wiedersehen, sagte der Junge."'),
    covost_row("en", 4, "Go on.", "Weiter.", split="train"),
    covost_row("en", 5, "Go back.", "Zurück.", split="train_covost"),
    covost_row("en", 6, "Stop.", "Halt.", split="dev"),
]
ZH = {1: "五英寸的雪", 2: "空", 3: "“再见，”男孩说。", 4: "继续。", 5: "回去。", 6: "停。"}
FR = [
    covost_row("fr", 11, "Vas-y !", "GO ON!"),
    covost_row("fr", 12, "Au revoir, dit le garçon.", "“Good–bye”, said the boy"),
    covost_row("fr", 13, "Dors bien.", "Sleep well."),
]


def _numbered(rows, texts):
    """The same clips with other translations."""
    return [
        dataclasses.replace(row, translation=texts[int(row.path.removesuffix(".mp3").split("_")[-1])]) for row in rows
    ]


def _with(rows, split):
    splits = {"train": ("train", "train_covost")}.get(split, (split,))
    return [row for row in rows if row.split in splits]


def _write_published(root):
    write_common_voice(root / "en", EN)
    write_covost2(root / "en", "en_zh-CN", _numbered(EN, ZH)[::-1])
    write_covost2(root / "en", "en_de", EN)
    write_common_voice(root / "fr", FR)
    write_covost2(root / "fr", "fr_en", FR)


def _write_split(root):
    write_common_voice(root / "en", EN)
    for split in ("train", "dev", "test"):
        write_covost2(root / "en", "en_zh-CN", _with(_numbered(EN, ZH), split)[::-1], split=split)
        write_covost2(root / "en", "en_de", _with(EN, split), split=split)
    write_common_voice(root / "fr", FR)
    write_covost2(root / "fr", "fr_en", FR, split="test")


def _write_mixed(root):
    write_common_voice(root / "en", EN)
    write_covost2(root / "en", "en_zh-CN", _numbered(EN, ZH)[::-1])
    for split in ("train", "dev", "test"):
        write_covost2(root / "en", "en_de", _with(EN, split), split=split)
    write_common_voice(root / "fr", FR)
    write_covost2(root / "fr", "fr_en", FR)


def _write_parquet(root):
    for split, hub in (("train", "train"), ("dev", "validation"), ("test", "test")):
        write_covost2_parquet(root, "en_zh-CN", hub, _with(_numbered(EN, ZH), split)[::-1])
        write_covost2_parquet(root, "en_de", hub, _with(EN, split))
    write_covost2_parquet(root, "fr_en", "test", FR)


LAYOUTS = [_write_published, _write_split, _write_mixed, _write_parquet]


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_same_rows_and_leads_to_the_sound(tmp_path, write):
    write(tmp_path)
    rows = list(covost2(str(tmp_path), ["fr", "en"], "test"))
    clips = [row.utterance_id.removeprefix("covost2-common_voice_") for row in rows]
    assert clips == ["fr_11", "fr_12", "fr_13", "en_1", "en_2", "en_3"]
    assert [row.language for row in rows] == ["fr"] * 3 + ["en"] * 3
    assert [row.text for row in rows] == [
        "Vas-y !",
        "Au revoir, dit le garçon.",
        "Dors bien.",
        '5" of snow',
        "null",
        '"Good-bye," said the boy.',
    ]
    assert [row.translations for row in rows] == [
        {"en": "GO ON!"},
        {"en": "“Good–bye”, said the boy"},
        {"en": "Sleep well."},
        {"de": '5" Schnee', "zh": "五英寸的雪"},
        {"de": "NA", "zh": "空"},
        {"de": "Auf Wiedersehen, sagte der Junge.", "zh": "“再见，”男孩说。"},
    ]
    assert [recording_bytes(row) for row in rows] == [row.sound for row in FR + EN[:3]]
    assert [row.speaker for row in rows] == [f"speaker{n % 3}" for n in (11, 12, 13, 1, 2, 3)]
    assert {row.split for row in rows} == {"test"}


@pytest.mark.parametrize("write", LAYOUTS)
def test_train_is_the_enlarged_one_and_validation_is_dev(tmp_path, write):
    write(tmp_path)
    numbers = {
        split: [row.utterance_id[-1] for row in covost2(str(tmp_path), ["en"], split)]
        for split in ("train", "dev", "validation", "test", None)
    }
    assert numbers == {
        "train": ["4", "5"],
        "dev": ["6"],
        "validation": ["6"],
        "test": ["1", "2", "3"],
        None: ["1", "2", "3"],
    }
    assert [row.split for row in covost2(str(tmp_path), ["en"], "validation")] == ["dev"]


@pytest.mark.parametrize("write", LAYOUTS)
def test_the_same_english_is_one_sentence_whoever_says_it(tmp_path, write):
    write(tmp_path)
    clips = {}
    for split, languages in (("test", ["en", "fr"]), ("train", ["en"])):
        clips |= {row.utterance_id[21:]: row.sentence_id for row in covost2(str(tmp_path), languages, split)}
    assert clips["fr_11"] == clips["en_4"], "case and punctuation"
    assert clips["fr_12"] == clips["en_3"], "quotation marks and dashes"
    assert len(set(clips.values())) == len(clips) - 2


def test_without_english_text_a_clip_is_a_sentence_of_its_own(tmp_path):
    rows = [covost_row("fr", n, "...", text) for n, text in ((1, ""), (2, ""), (3, "…"))]
    write_common_voice(tmp_path, rows)
    write_covost2(tmp_path, "fr_en", rows)
    assert len({row.sentence_id for row in covost2(str(tmp_path), ["fr"], None)}) == 3


def test_chinese_and_swedish_are_found_under_the_names_on_disk(tmp_path):
    chinese = [covost_row("zh-CN", 1, "继续。", "Go on.")]
    write_common_voice(tmp_path / "zh-CN", chinese)
    write_covost2(tmp_path / "zh-CN", "zh-CN_en", chinese)
    swedish = [covost_row("sv-SE", 2, "Fortsätt.", "Go on.")]
    write_covost2_parquet(tmp_path, "sv-SE_en", "test", swedish)
    rows = list(covost2(str(tmp_path), ["zh", "sv"], None))
    assert [(row.language, row.translations) for row in rows] == [("zh", {"en": "Go on."}), ("sv", {"en": "Go on."})]
    assert rows[0].sentence_id == rows[1].sentence_id
    assert [recording_bytes(row) for row in rows] == [chinese[0].sound, swedish[0].sound]


def test_the_root_may_be_the_directory_of_one_language(tmp_path):
    write_common_voice(tmp_path, FR)
    write_covost2(tmp_path, "fr_en", FR)
    rows = list(covost2(str(tmp_path), ["fr"], None))
    assert [recording_bytes(row) for row in rows] == [row.sound for row in FR]
    frames = soundfile.info(rows[0].audio)
    assert (frames.samplerate, frames.frames) == (48_000, 4800)


def test_empty_and_absent_clips_are_rows(tmp_path):
    rows = [*FR[:1], dataclasses.replace(FR[1], sound=b""), FR[2]]
    write_common_voice(tmp_path / "fr", rows)
    (tmp_path / "fr" / "clips" / FR[2].path).unlink()
    write_covost2(tmp_path / "fr", "fr_en", rows)
    audio = [row.audio for row in covost2(str(tmp_path), ["fr"], None)]
    assert audio == [str(tmp_path / "fr" / "clips" / row.path) for row in rows]


def test_clips_that_only_another_pair_has_come_last(tmp_path):
    write_covost2_parquet(tmp_path, "en_de", "test", EN[1:2])
    write_covost2_parquet(tmp_path, "en_zh-CN", "test", _numbered(EN[:3], ZH))
    rows = list(covost2(str(tmp_path), ["en"], None))
    assert [row.utterance_id[-1] for row in rows] == ["2", "1", "3"]
    assert [row.translations for row in rows] == [{"de": "NA", "zh": "空"}, {"zh": ZH[1]}, {"zh": ZH[3]}]
    assert [recording_bytes(row) for row in rows] == [EN[1].sound, EN[0].sound, EN[2].sound]


def test_clips_of_further_pairs_are_not_read_where_the_first_has_them_all(tmp_path):
    write_covost2_parquet(tmp_path, "en_de", "test", EN[:2])
    for path in write_covost2_parquet(tmp_path, "en_zh-CN", "test", _numbered(EN[:2], ZH)):
        pq.write_table(pq.read_table(path).drop_columns("sentence"), path)
    rows = list(covost2(str(tmp_path), ["en"], None))
    assert [row.translations["zh"] for row in rows] == [ZH[1], ZH[2]]


def test_a_clip_twice_in_a_table_is_one_row(tmp_path):
    write_common_voice(tmp_path, FR + FR)
    write_covost2(tmp_path, "fr_en", FR + FR)
    assert len(list(covost2(str(tmp_path), ["fr"], None))) == 3


def test_parquet_is_read_without_the_sound(tmp_path):
    """The column of bytes is overwritten in the files, so that reading it fails."""
    for path in write_covost2_parquet(tmp_path, "fr_en", "test", FR):
        metadata = pq.ParquetFile(path).metadata.row_group(0)
        (column,) = (c for c in map(metadata.column, range(metadata.num_columns)) if c.path_in_schema == "audio.bytes")
        with open(path, "r+b") as file:
            file.seek(column.dictionary_page_offset or column.data_page_offset)
            file.write(b"\xff" * column.total_compressed_size)
        with pytest.raises((OSError, pa.ArrowInvalid)):
            pq.read_table(path)
    assert [row.text for row in covost2(str(tmp_path), ["fr"], None)] == [row.sentence for row in FR]


def test_object_stores_give_uris(tmp_path, monkeypatch):
    _write_published(tmp_path / "bucket" / "cv")
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "_remote_filesystem", lambda scheme, authority: store)
    first = next(covost2("gs://bucket/cv", ["fr"], None))
    assert first.audio == "gs://bucket/cv/fr/clips/common_voice_fr_11.mp3"


@pytest.mark.parametrize(
    ("languages", "split", "message"),
    [
        (["xx"], None, r"CoVoST 2 has no language 'xx'.*; valid are ar, ca, "),
        (["zh-CN"], None, r"no language 'zh-CN' \(did you mean zh"),
        (["en"], "valid", r"no split 'valid'"),
        (["de"], None, r"no CoVoST 2 de test in .*de/covost_v2\.de_en\.test\.tsv.*de_en/test/\*\.parquet"),
        (["zh"], "dev", r"zh-CN/covost_v2\.zh-CN_en\.tsv .*zh-CN_en/validation/"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(tmp_path, languages, split, message):
    _write_published(tmp_path)
    with pytest.raises(UserError, match=message):
        covost2(str(tmp_path), languages, split)


def test_published_translations_need_common_voice(tmp_path):
    write_covost2(tmp_path / "fr", "fr_en", FR)
    with pytest.raises(UserError, match=r"covost_v2\.fr_en\.tsv needs validated\.tsv of Common Voice 4 beside it"):
        covost2(str(tmp_path), ["fr"], None)


def test_clips_that_another_common_voice_lacks_are_counted(tmp_path, caplog):
    write_common_voice(tmp_path, FR[1:])
    write_covost2(tmp_path, "fr_en", FR)
    assert [row.text for row in covost2(str(tmp_path), ["fr"], None)] == [row.sentence for row in FR[1:]]
    assert "fr test: 1 clips are not in validated.tsv" in caplog.text


def test_a_table_without_a_needed_column_is_an_error(tmp_path):
    write_common_voice(tmp_path, FR)
    (tmp_path / "covost_v2.fr_en.tsv").write_text("path\ttranslation\ncommon_voice_fr_11.mp3\tGo on\n")
    with pytest.raises(UserError, match=r"covost_v2\.fr_en\.tsv lacks the columns \['split'\]; it has \['path', 'tr"):
        list(covost2(str(tmp_path), ["fr"], None))


def test_the_language_pairs_are_those_of_the_paper():
    assert len(TARGETS) == 22
    assert len(TARGETS["en"]) == 15
    assert {"zh", "ja", "de"} <= set(TARGETS["en"])
    assert set(TARGETS["en"]) < set(TARGETS), "the 15 are among the 21 (CoVoST 2, section 2)"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('"Yes."', "Yes."),
        ('"""Yes,"" he said."', '"Yes," he said.'),
        ('"He said ""no""."', 'He said "no".'),
        ('"Yes" and "no"', '"Yes" and "no"'),
        ('He said "no"', 'He said "no"'),
        ('"', '"'),
        ('""', ""),
        ("“Yes.”", "“Yes.”"),
    ],
)
def test_outer_quotes(text, plain):
    assert without_outer_quotes(text) == plain


@given(st.text(st.sampled_from('"a ,')))
def test_outer_quotes_undo_what_a_csv_writer_does(text):
    quoted = '"' + text.replace('"', '""') + '"'
    assert next(csv.reader([quoted])) == [text]
    assert without_outer_quotes(quoted) == text


def _official(folder, pair, split):
    """What get_covost_splits.py computes, by the same calls of pandas."""
    dialect = {"sep": "\t", "escapechar": "\\", "quoting": csv.QUOTE_NONE, "na_filter": False}
    voices = pandas.read_csv(folder / "validated.tsv", **dialect)[["path", "sentence", "client_id"]]
    translations = pandas.read_csv(folder / f"covost_v2.{pair}.tsv", **dialect)[["path", "translation", "split"]]
    merged = voices.merge(translations, how="inner", on="path").astype(str)
    chosen = merged["split"] == split
    if split == "train":
        chosen |= merged["split"] == "train_covost"
    return list(merged[chosen][["path", "sentence", "translation", "client_id"]].itertuples(index=False, name=None))


# A backslash at the end of a field would escape the tab behind it.
_field = st.text(st.sampled_from("ab\"\\'NA é,零 "), min_size=1, max_size=8).filter(lambda text: text[-1] != "\\")
_rows = st.lists(
    st.tuples(st.integers(0, 9), _field, _field, st.sampled_from(["train", "train_covost", "dev", "test"])),
    unique_by=lambda row: row[0],
    min_size=1,
)


@settings(max_examples=40, deadline=None)
@given(voices=_rows, translations=_rows, split=st.sampled_from(["train", "dev", "test"]))
def test_published_tables_are_merged_as_by_the_script_of_covost(voices, translations, split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("covost2")
    clips = [[CovostRow(f"{n}.mp3", a, b, part, f"s{n}") for n, a, b, part in rows] for rows in (voices, translations)]
    write_common_voice(folder, clips[0], clips=False)
    write_covost2(folder, "fr_en", clips[1])
    rows = list(covost2(str(folder), ["fr"], split))
    found = [(r.audio.split("/")[-1], r.text, r.translations["en"], r.speaker) for r in rows]
    expected = [
        (p, without_outer_quotes(s), without_outer_quotes(t), c) for p, s, t, c in _official(folder, "fr_en", split)
    ]
    assert found == expected


def test_a_missing_sentence_or_translation_is_no_text_of_a_row(tmp_path):
    """As in copies on the Hub that were joined with a left join."""
    fr = [*FR[:2], dataclasses.replace(FR[2], translation=None)]
    en = [dataclasses.replace(EN[0], sentence=None), EN[1], dataclasses.replace(EN[2], speaker=None)]
    write_covost2_parquet(tmp_path, "fr_en", "test", fr)
    write_covost2_parquet(tmp_path, "en_de", "test", en)
    write_covost2_parquet(tmp_path, "en_zh-CN", "test", [dataclasses.replace(row, translation=None) for row in en])
    rows = {
        row.utterance_id.removeprefix("covost2-common_voice_"): row
        for row in covost2(str(tmp_path), ["fr", "en"], "test")
    }
    assert len(rows) == 6
    assert rows["fr_13"].translations == {}
    assert rows["fr_13"].text == "Dors bien."
    assert rows["en_1"].text is None
    assert rows["en_1"].translations == {"de": '5" Schnee'}
    assert rows["en_3"].speaker is None
    assert len({row.sentence_id for row in rows.values()}) == 5  # fr_12 says what en_3 says
    assert rows["fr_12"].sentence_id == rows["en_3"].sentence_id
