"""The MaSS reader on miniature copies of the corpus, with the file names of the real one."""

from __future__ import annotations

import pyarrow.fs as pafs
import pytest
import soundfile
from trees import recording_bytes, sound_bytes, write_mass

from xlt_ray.corpora.mass import BOOK_NUMBERS, FOLDERS, mass
from xlt_ray.errors import UserError
from xlt_ray.store import storage

# Books have the numbers and names of the real editions: James is the 20th of the English, the 6th of the Russian and
# the 25th of the Finnish. Romans stands where the Russian edition has James.
ENGLISH = {
    (1, "Matthew", 1, 0): "Matthew 1",
    (6, "Romans", 1, 5): "through whom we have received grace",
    (7, "1Corinthians", 1, 10): "I appeal to you brothers",
    (20, "James", 1, 5): "If any of you lacks wisdom",
}
RUSSIAN = {
    (1, "Matthew", 1, 0): "Матай 1",
    (6, "James", 1, 5): "Если же у кого из вас недостает мудрости",
    (13, "Romans", 1, 5): "через Которого мы получили благодать",
}
FINNISH = {(25, "James", 1, 5): "Mutta jos joltakin teistä puuttuu viisautta"}
FRENCH = {(7, "1Corinthiens", 1, 10): "Je vous exhorte frères", (20, "Jacques", 1, 5): "Si quelqu un d entre vous"}
BASQUE = {(1, "San_Mateo", 1, 0): "Mateo 1", (20, "Santiago", 1, 5): "Zuetakoren bat jakinduria beharrean badago"}
CORPUS = {"english": ENGLISH, "russian": RUSSIAN, "finnish": FINNISH, "french": FRENCH, "basque": BASQUE}


def _write(root, **options):
    return {language: write_mass(root, language, verses, **options) for language, verses in CORPUS.items()}


def test_verses_meet_by_the_name_of_their_book_not_by_its_number(tmp_path):
    _write(tmp_path / "dataset")
    rows = list(mass(str(tmp_path), ["ru", "en", "fi", "fr", "eu"], None))
    assert [(row.language, row.sentence_id) for row in rows] == [
        ("ru", "B01.1.0"),
        ("ru", "B20.1.5"),
        ("ru", "B06.1.5"),
        ("en", "B01.1.0"),
        ("en", "B06.1.5"),
        ("en", "B07.1.10"),
        ("en", "B20.1.5"),
        ("fi", "B20.1.5"),
        ("fr", "B07.1.10"),
        ("fr", "B20.1.5"),
        ("eu", "B01.1.0"),
        ("eu", "B20.1.5"),
    ]
    texts = {
        "ru": RUSSIAN[6, "James", 1, 5],
        "en": ENGLISH[20, "James", 1, 5],
        "fi": FINNISH[25, "James", 1, 5],
        "fr": FRENCH[20, "Jacques", 1, 5],
        "eu": BASQUE[20, "Santiago", 1, 5],
    }
    james = [row for row in rows if row.sentence_id == "B20.1.5"]
    assert {row.language: row.text for row in james} == texts
    assert all(row.translations | {row.language: row.text} == texts for row in james)
    assert all(row.language not in row.translations for row in james)


def test_only_the_languages_asked_for_are_read(tmp_path):
    _write(tmp_path / "dataset")
    rows = list(mass(str(tmp_path), ["fr", "fi", "fr"], None))
    assert [(row.language, row.translations) for row in rows] == [
        ("fr", {}),
        ("fr", {"fi": FINNISH[25, "James", 1, 5]}),
        ("fi", {"fr": FRENCH[20, "Jacques", 1, 5]}),
    ]


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"sound_ending": ".mp3"},
        {"sound_ending": ".flac"},
        {"sound_ending": "_one_channel.wav"},
        {"sound_folder": "txt"},
        {"text_folder": "", "sound_folder": ""},
        {"text_folder": ""},
    ],
)
@pytest.mark.parametrize("root", ["", "dataset"])
def test_sound_is_found_by_stem_in_every_layout(tmp_path, layout, root):
    stems = _write(tmp_path / root, **layout)
    rows = list(mass(str(tmp_path), ["en", "eu"], None))
    assert [row.utterance_id for row in rows] == (
        [f"mass-en-{stem}" for stem in stems["english"]] + [f"mass-eu-{stem}" for stem in stems["basque"]]
    )
    kind = {".mp3": "MP3", ".flac": "FLAC"}.get(layout.get("sound_ending"), "WAV")
    expected = [
        sound_bytes(0.1, frequency=200 + 10 * verse + number, format=kind)
        for number, _, _, verse in [*ENGLISH, *BASQUE]
    ]
    assert [recording_bytes(row) for row in rows] == expected
    assert soundfile.info(rows[0].audio).duration == pytest.approx(0.1, abs=0.03)
    assert {(row.member, row.speaker, row.split) for row in rows} == {("", None, None)}


def test_wav_is_preferred(tmp_path):
    for ending in (".flac", ".wav", ".mp3"):
        write_mass(tmp_path, "finnish", FINNISH, sound_ending=ending)
    (row,) = mass(str(tmp_path), ["fi"], None)
    assert row.audio.endswith("_verse_5.wav")


def test_a_verse_without_recording_is_a_row_with_the_expected_path(tmp_path):
    (stem,) = write_mass(tmp_path / "dataset", "finnish", FINNISH, sound_folder=None)
    (row,) = mass(str(tmp_path), ["fi"], None)
    assert row.audio == str(tmp_path / "dataset" / "finnish" / "wav" / f"{stem}.wav")


def test_chapters_and_alignments_beside_the_verses_are_no_verses(tmp_path):
    _write(tmp_path, text_folder="", sound_folder="")
    (tmp_path / "finnish" / "B25___01_James_______FIN38VN1DA.txt").write_text("a whole chapter")
    (tmp_path / "finnish" / "B25___01_James_______FIN38VN1DA_verse_5.TextGrid").write_text("an alignment")
    assert len(list(mass(str(tmp_path), ["fi"], None))) == 1


def test_object_stores_give_uris(tmp_path, monkeypatch):
    _write(tmp_path / "bucket" / "mass" / "dataset", sound_ending="_one_channel.wav")
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "_remote_filesystem", lambda scheme, authority: store)
    rows = list(mass("s3://bucket/mass", ["en", "fi"], None))
    stem = "B25___01_James_______FIN38VN1DA_verse_5"
    assert rows[-1].audio == f"s3://bucket/mass/dataset/finnish/wav/{stem}_one_channel.wav"
    assert [row.text for row in rows] == [*ENGLISH.values(), *FINNISH.values()]


def test_books():
    assert sorted(set(BOOK_NUMBERS.values())) == list(range(1, 28))
    assert [
        BOOK_NUMBERS[name] for name in ("Matthieu", "Actes", "1Tes", "Filemon", "1San_Pedro", "3Jean", "Judas")
    ] == [
        1,
        5,
        13,
        18,
        21,
        25,
        26,
    ]


@pytest.mark.parametrize(
    ("languages", "split", "message"),
    [
        (["en"], "test", r"MaSS has no splits, so split 'test' cannot be read; leave it out"),
        (["english"], None, r"MaSS has no language 'english'.* valid are en, es, eu, fi, fr, hu, ro, ru"),
        (["hu"], None, r"no MaSS hungarian in .*dataset/hungarian/txt/"),
    ],
)
def test_mistakes_are_named(tmp_path, languages, split, message):
    _write(tmp_path)
    with pytest.raises(UserError, match=message):
        mass(str(tmp_path), languages, split)
    assert len(FOLDERS) == 8


def test_a_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path):
    _write(tmp_path)
    path = min((tmp_path / "finnish").rglob("*_verse_5.txt"))
    text = path.read_text().strip()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert text in [row.text for row in mass(str(tmp_path), ["fi"], None)]
    path.write_bytes("ä".encode("latin-1"))
    with pytest.raises(UserError, match=r"_verse_5\.txt, line 1: the file is not UTF-8; save it as UTF-8"):
        list(mass(str(tmp_path), ["fi"], None))


def test_a_file_of_no_known_book_is_named(tmp_path):
    write_mass(tmp_path, "finnish", FINNISH | {(28, "Enoch", 1, 1): "?"})
    with pytest.raises(UserError, match=r"B28___01_Enoch_______FIN38VN1DA_verse_1\.txt is no verse of MaSS"):
        mass(str(tmp_path), ["fi"], None)
