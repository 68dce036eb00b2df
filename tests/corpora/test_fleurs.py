"""The FLEURS reader on miniature copies of both forms of the corpus."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import FleursRow, fleurs_row, recording_bytes, write_fleurs_original, write_fleurs_parquet

from xlt_ray.corpora.fleurs import CODES, fleurs
from xlt_ray.corpora.tables import parquet_rows
from xlt_ray.errors import UserError
from xlt_ray.store import storage

# Stray quotation marks, characters that some readers take for the end of a line, a text that looks like "missing".
EN = [
    fleurs_row(1956, 0, '"Hello, he said', seconds=0.2),
    fleurs_row(1956, 1, '"Hello, he said'),
    fleurs_row(7, 0, "NA"),
    fleurs_row(30, 0, 'Two\u2028lines\u0085 and\r5" of snow.'),
]
FR = [fleurs_row(30, 0, "Deux lignes"), fleurs_row(1956, 0, 'Il dit\u00a0: "Bonjour')]
ZH = [fleurs_row(1956, 0, "他说：“你好"), fleurs_row(8, 0, "八")]
ROWS = {"en_us": EN, "fr_fr": FR, "cmn_hans_cn": ZH}


def _write_folders(root):
    for config, rows in ROWS.items():
        write_fleurs_parquet(root, config, "test", rows)


def _write_shards(root):
    for config, rows in ROWS.items():
        write_fleurs_parquet(root, config, "test", rows, shards=2)


def _write_flat(root):
    for config, rows in ROWS.items():
        write_fleurs_parquet(root, config, "test", rows, flat=True)
        write_fleurs_parquet(root, config, "train", rows[:1], flat=True)


def _write_flat_shards(root):
    for config, rows in ROWS.items():
        write_fleurs_parquet(root, config, "test", rows, flat=True, shards=2)


def _write_archives(root):
    for config, rows in ROWS.items():
        write_fleurs_original(root / "data", config, "test", rows)


def _write_extracted(root):
    for config, rows in ROWS.items():
        write_fleurs_original(root, config, "test", rows, archive=False, extracted=True)


LAYOUTS = [_write_folders, _write_shards, _write_flat, _write_flat_shards, _write_archives, _write_extracted]


def _expected(languages):
    """What the tables above hold, row by row, in a naive way: (language, sentence, text, translations, sound)."""
    for language in languages:
        for row in ROWS[{"zh": "cmn_hans_cn", "en": "en_us", "fr": "fr_fr"}[language]]:
            translations = {}
            for code, config in (("zh", "cmn_hans_cn"), ("en", "en_us"), ("fr", "fr_fr")):
                for other in ROWS[config]:
                    if code in languages and code != language and other.id == row.id:
                        translations[code] = other.raw
            yield language, f"fleurs-{row.id}", row.raw, translations, row.sound


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_same_rows_and_leads_to_the_sound(tmp_path, write):
    write(tmp_path)
    languages = ["zh", "en", "fr"]
    rows = list(fleurs(str(tmp_path), languages, "test"))
    found = [(r.language, r.sentence_id, r.text, r.translations, recording_bytes(r)) for r in rows]
    assert found == list(_expected(languages))
    assert len({row.utterance_id for row in rows}) == len(rows) == 8
    assert {(row.split, row.speaker) for row in rows} == {("test", None)}


def test_sound_is_decodable_float_wav_of_the_right_length(tmp_path):
    _write_folders(tmp_path)
    first = next(fleurs(str(tmp_path), ["en"], None))
    info = soundfile.info(io.BytesIO(recording_bytes(first)))
    assert (info.samplerate, info.subtype, info.frames) == (16_000, "FLOAT", 3200)


def test_both_forms_name_utterances_alike(tmp_path):
    _write_shards(tmp_path / "parquet")
    _write_archives(tmp_path / "original")
    forms = (tmp_path / "parquet", tmp_path / "original")
    ids = [[row.utterance_id for row in fleurs(str(form), ["en", "zh"], None)] for form in forms]
    assert ids[0] == ids[1]
    assert ids[0][0] == "fleurs-en-test-10000000001956000"


def test_languages_come_in_the_order_asked_for_once_each_by_code_or_configuration(tmp_path):
    _write_folders(tmp_path)
    rows = list(fleurs(str(tmp_path), ["fr_fr", "cmn_hans_cn", "zh"], "test"))
    assert [row.language for row in rows] == ["fr", "fr", "zh", "zh"]
    assert [row.translations for row in rows] == [{}, {"zh": "他说：“你好"}, {"fr": 'Il dit\u00a0: "Bonjour'}, {}]


def test_validation_and_dev_are_one_split_and_test_is_the_default(tmp_path):
    write_fleurs_parquet(tmp_path / "hub", "en_us", "validation", EN[:1])
    write_fleurs_original(tmp_path / "original", "en_us", "dev", EN[:1])
    for root in ("hub", "original"):
        for split in ("dev", "validation"):
            (row,) = fleurs(str(tmp_path / root), ["en"], split)
            assert (row.split, row.utterance_id) == ("dev", "fleurs-en-dev-10000000001956000")
    with pytest.raises(UserError, match=r"no FLEURS en_us test .*en_us/test/\*\.parquet.*en_us/test\.tsv"):
        fleurs(str(tmp_path / "hub"), ["en"], None)


def test_extracted_recordings_are_preferred_to_the_archive(tmp_path):
    write_fleurs_original(tmp_path, "en_us", "test", EN, archive=True, extracted=True)
    rows = list(fleurs(str(tmp_path), ["en"], "test"))
    assert {row.member for row in rows} == {""}
    assert [recording_bytes(row) for row in rows] == [row.sound for row in EN]


def test_missing_recordings_are_an_error(tmp_path):
    write_fleurs_original(tmp_path, "en_us", "test", EN, archive=False, extracted=False)
    with pytest.raises(UserError, match=r"audio/test/ and .*audio/test\.tar\.gz"):
        fleurs(str(tmp_path), ["en"], "test")


def test_parquet_is_read_without_the_sound(tmp_path):
    """The bytes of the audio column are overwritten in the file, so that reading it fails."""
    (path,) = write_fleurs_parquet(tmp_path, "en_us", "test", EN)
    for column in _columns(path, "audio.bytes"):
        with open(path, "r+b") as file:
            start = column.dictionary_page_offset or column.data_page_offset
            file.seek(start)
            file.write(b"\xff" * column.total_compressed_size)
    with pytest.raises(OSError, match=r"."):
        pq.read_table(path)
    assert [row.text for row in fleurs(str(tmp_path), ["en"], "test")] == [row.raw for row in EN]


def _columns(path, name):
    metadata = pq.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
        yield from (column for column in columns if column.path_in_schema == name)


def test_rows_are_numbered_within_the_file_over_row_groups(tmp_path):
    (path,) = write_fleurs_parquet(tmp_path, "en_us", "test", EN)
    pq.write_table(pq.read_table(path), path, row_group_size=1)
    rows = list(fleurs(str(tmp_path), ["en"], "test"))
    assert [row.member for row in rows] == ["0", "1", "2", "3"]
    assert [recording_bytes(row) for row in rows] == [row.sound for row in EN]


def test_parquet_without_a_needed_column_is_an_error(tmp_path):
    (path,) = write_fleurs_parquet(tmp_path, "en_us", "test", EN)
    pq.write_table(pq.read_table(path).drop_columns(["audio", "path"]), path)
    with pytest.raises(UserError, match=r"lacks the columns \['audio', 'path'\]"):
        list(parquet_rows(str(path), ("id", "path")))


def test_parts_that_are_missing_are_counted(tmp_path, caplog):
    _write_flat_shards(tmp_path)
    assert len(list(fleurs(str(tmp_path), ["fr"], None))) == 2
    assert not caplog.messages
    (tmp_path / "fr_fr/fleurs-test-00001-of-00002.parquet").unlink()
    assert len(list(fleurs(str(tmp_path), ["fr"], None))) == 1
    assert caplog.messages == [f"only 1 of 2 parts are there of {tmp_path}/fr_fr test: the others are not read"]


def test_object_stores_give_uris(tmp_path, monkeypatch):
    _write_archives(tmp_path / "bucket" / "fleurs")
    _write_flat_shards(tmp_path / "bucket" / "hub")
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "_remote_filesystem", lambda scheme, authority: store)
    rows = list(fleurs("s3://bucket/fleurs/", ["fr"], None))
    assert [row.audio for row in rows] == ["s3://bucket/fleurs/data/fr_fr/audio/test.tar.gz"] * 2
    assert [row.member for row in rows] == [f"test/{row.file}" for row in FR]
    rows = list(fleurs("s3://bucket/hub", ["fr"], None))
    assert [row.audio for row in rows] == [
        f"s3://bucket/hub/fr_fr/fleurs-test-0000{i}-of-00002.parquet" for i in (0, 1)
    ]


def test_a_relative_source_gives_absolute_paths(tmp_path, monkeypatch):
    _write_folders(tmp_path / "hub")
    _write_archives(tmp_path / "original")
    monkeypatch.chdir(tmp_path)
    assert next(fleurs("hub", ["en"], None)).audio == str(tmp_path / "hub/en_us/test/0000.parquet")
    assert next(fleurs("original", ["en"], None)).audio == str(tmp_path / "original/data/en_us/audio/test.tar.gz")


@pytest.mark.parametrize(
    ("languages", "split", "message"),
    [
        (["en", "zz"], "test", r"no language 'zz' \(did you mean .*; valid are af, am, .*zh, zu"),
        (["fil"], "test", r"no language 'fil' \(did you mean fi"),
        (["cmn_hans_tw"], "test", r"no language 'cmn_hans_tw'"),
        (["en"], "valid", r"no split 'valid'; valid are train, dev"),
        (["sw"], "test", r"no FLEURS sw_ke test in "),
    ],
)
def test_mistakes_are_named_before_anything_is_read(tmp_path, languages, split, message):
    _write_folders(tmp_path)
    with pytest.raises(UserError, match=message):
        fleurs(str(tmp_path), languages, split)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere': looked for en_us/test"):
        fleurs(str(tmp_path / "nowhere"), ["en"], None)


def test_a_line_that_is_no_row_is_named(tmp_path):
    write_fleurs_original(tmp_path, "en_us", "test", EN)
    with open(tmp_path / "en_us/test.tsv", "a") as tsv:
        tsv.write("31\tno-text.wav\n")
    with pytest.raises(UserError, match=r"test\.tsv line 5 is not a row"):
        list(fleurs(str(tmp_path), ["en"], None))


def test_the_102_configurations_have_distinct_codes():
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert len(CODES) == len(set(CODES.values())) == 102
    without_token = {config for config, code in CODES.items() if code not in LANGUAGES}
    assert " ".join(sorted(without_token)) == (
        "ast_es ceb_ph ckb_iq ff_sn ga_ie ig_ng kam_ke kea_cv ky_kg lg_ug luo_ke nso_za ny_mw om_et or_in umb_ao wo_sn "
        "xh_za zu_za"
    )
    renamed = ("cmn_hans_cn", "yue_hant_hk", "nb_no", "fil_ph", "jv_id")
    assert " ".join(CODES[config] for config in renamed) == "zh yue no tl jw"


_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
_table = st.lists(st.tuples(st.integers(0, 6), _text), max_size=8)


@settings(max_examples=25, deadline=None)
@given(tables=st.fixed_dictionaries({"en_us": _table, "fr_fr": _table, "nb_no": _table}))
def test_whatever_text_and_whatever_ids_are_missing(tables, tmp_path_factory):
    """Every row comes out with its text, and with a translation in exactly the languages that have its sentence."""
    root = tmp_path_factory.mktemp("fleurs")
    first = {config: dict(reversed(rows)) for config, rows in tables.items()}  # one text a sentence
    for config, rows in tables.items():
        sounds = [FleursRow(id, f"{n}.wav", first[config][id], b"") for n, (id, _) in enumerate(rows)]
        write_fleurs_original(root / "data", config, "test", sounds)
    expected = []
    for config, code in (("en_us", "en"), ("fr_fr", "fr"), ("nb_no", "no")):
        others = [(k, c) for k, c in (("en_us", "en"), ("fr_fr", "fr"), ("nb_no", "no")) if c != code]
        for id, _ in tables[config]:
            translations = {c: first[k][id] for k, c in others if id in first[k]}
            expected.append((code, f"fleurs-{id}", first[config][id], translations))
    rows = fleurs(str(root), ["en", "fr", "no"], "test")
    assert [(row.language, row.sentence_id, row.text, row.translations) for row in rows] == expected


def test_a_missing_text_is_no_text_of_a_row(tmp_path):
    for config, text in (("en_us", None), ("fr_fr", "Bonjour.")):
        [path] = write_fleurs_parquet(tmp_path, config, "test", [fleurs_row(1, 0, "x")])
        table = pq.read_table(path)
        place = table.schema.get_field_index("raw_transcription")
        pq.write_table(table.set_column(place, "raw_transcription", pa.array([text], pa.string())), path)
    english, french = fleurs(str(tmp_path), ["en", "fr"], "test")
    assert (english.text, english.translations) == (None, {"fr": "Bonjour."})
    assert (french.text, french.translations) == ("Bonjour.", {})
