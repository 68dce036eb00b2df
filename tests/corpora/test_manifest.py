"""Manifests in all three formats, written by hand, and every mistake that a user can make in one."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlt_ray import corpora
from xlt_ray.corpora import audio, speech
from xlt_ray.corpora.manifest import REQUIRED, manifest
from xlt_ray.embed import index, selection
from xlt_ray.errors import UserError
from xlt_ray.store import schema
from xlt_ray.store.schema import Utterance

FULL = {
    "utterance_id": "en/1",
    "sentence_id": "1",
    "language": "en",
    "audio": "clips/1.wav",
    "member": "7:speech",
    "start": 1.25,
    "duration": 3.0,
    "text": 'He said "hello".\u2028Then he left.',
    "translations": {"zh": "他说“你好”。", "fr": "Il a dit « bonjour »."},
    "speaker": "s1",
    "split": "train",
}
BARE = {"utterance_id": "fr/1", "sentence_id": "1", "language": "fr", "audio": "/data/1.flac"}
REMOTE = {"utterance_id": "en/2", "sentence_id": "2", "language": "en", "audio": "s3://bucket/2.ogg", "split": "test"}
REMOTE["translations"] = {"zh": "二"}  # and no French, which a struct column shows as null
ROWS = [FULL, BARE, REMOTE]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_tsv(path, rows):
    columns = list(FULL)
    cells = [[row.get(column, "") for column in columns] for row in rows]
    cells = [[cell if isinstance(cell, str) else json.dumps(cell) for cell in line] for line in cells]
    path.write_text("".join("\t".join(line) + "\n" for line in [columns, *cells]), encoding="utf-8")


def write_csv(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(FULL))
        writer.writeheader()
        writer.writerows(row | {"translations": json.dumps(row.get("translations", {}))} for row in rows)


def write_parquet(path, rows):
    translations = [list(row.get("translations", {}).items()) for row in rows]
    columns = {name: [row.get(name) for row in rows] for name in FULL}
    columns["translations"] = pa.array(translations, pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table(columns), path, row_group_size=2)


def write_parquet_with_lists(path, rows):
    """As the tables of this package hold translations."""
    columns = {name: [row.get(name) for row in rows] for name in FULL}
    columns["translations"] = [schema.as_list(row.get("translations", {})) for row in rows]
    pq.write_table(pa.table(columns), path)


def write_parquet_with_json(path, rows):
    texts = [json.dumps(row["translations"]) if "translations" in row else None for row in rows]
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in FULL} | {"translations": texts}), path)


def write_parquet_with_struct(path, rows):
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in FULL} for row in rows]), path)


FORMATS = [
    (".jsonl", write_jsonl),
    (".tsv", write_tsv),
    (".csv", write_csv),
    (".parquet", write_parquet),
    (".parquet", write_parquet_with_json),
    (".parquet", write_parquet_with_lists),
    (".parquet", write_parquet_with_struct),
]


def expected(row, folder):
    places = {"clips/1.wav": f"{folder}/clips/1.wav"}
    return Utterance(**row | {"audio": places.get(row["audio"], row["audio"])})


@pytest.mark.parametrize(("suffix", "write"), FORMATS)
def test_rows_come_language_by_language_in_the_order_asked_for(tmp_path, suffix, write):
    write(tmp_path / f"m{suffix}", ROWS)
    full, bare, remote = (expected(row, tmp_path) for row in ROWS)
    assert list(manifest(str(tmp_path / f"m{suffix}"), ["en", "fr"], None)) == [full, remote, bare]
    assert list(manifest(str(tmp_path / f"m{suffix}"), ["fr", "en"], None)) == [bare, full, remote]
    assert list(manifest(str(tmp_path / f"m{suffix}"), ["fr"], None)) == [bare]


def test_other_names_of_splits_are_ours(tmp_path):
    """A job asks for `dev`, and the manifest of somebody else says `validation`."""
    splits = ["train", "validation", "valid", "val", "tst-COMMON", "tst-HE"]
    rows = [BARE | {"utterance_id": f"fr/{number}", "split": split} for number, split in enumerate(splits)]
    write_jsonl(tmp_path / "m.jsonl", rows)
    found = list(corpora.read_splits(f"manifest:{tmp_path}/m.jsonl", ["fr"], ("dev", "test")))
    assert [row.split for row in found] == ["train", "dev", "dev", "dev", "test", "tst-HE"]
    for split in ("dev", "validation", "valid", "val"):
        assert len(list(manifest(f"{tmp_path}/m.jsonl", ["fr"], split))) == 3
        assert len(speech.read_corpus(f"manifest:{tmp_path}/m.jsonl", ["fr"], split)) == 3
        assert selection.select(index.collect(found, ["fr"]), [split], divide=True)[split].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("suffix", "write"), FORMATS)
def test_split_filters(tmp_path, suffix, write):
    write(tmp_path / f"m{suffix}", ROWS)
    assert list(manifest(str(tmp_path / f"m{suffix}"), ["en"], "test")) == [expected(REMOTE, tmp_path)]
    with pytest.raises(UserError, match=r"no en rows of split 'tset'; it has test, train$"):
        list(manifest(str(tmp_path / f"m{suffix}"), ["en"], "tset"))
    with pytest.raises(UserError, match=r"no fr rows of split 'test'; it has \(none\)$"):
        list(manifest(str(tmp_path / f"m{suffix}"), ["fr"], "test"))


def test_a_relative_path_is_relative_to_the_working_directory_only_for_the_manifest(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "m.jsonl", [FULL])
    monkeypatch.chdir(tmp_path)
    [row] = manifest("in/m.jsonl", ["en"], None)
    assert row.audio == f"{tmp_path}/in/clips/1.wav"


@pytest.mark.parametrize("binary", [True, False])
def test_parquet_may_hold_the_sound(tmp_path, binary):
    path = tmp_path / "m.parquet"
    sounds = [b"sound %d" % i for i in range(5)]
    columns = {name: [f"{name}{i}" for i in range(5)] for name in ("utterance_id", "sentence_id")}
    columns |= {"language": ["en", "fr", "en", "fr", "en"]}
    column = pa.array(sounds, pa.binary()) if binary else [{"bytes": sound, "path": "x"} for sound in sounds]
    pq.write_table(pa.table(columns | {"audio": column}), path, row_group_size=2)
    rows = list(manifest(str(path), ["fr", "en"], None))
    assert [row.utterance_id for row in rows] == [f"utterance_id{i}" for i in (1, 3, 0, 2, 4)]
    assert {row.audio for row in rows} == {str(path)}
    read = audio.read_recordings([audio.Place(row.audio, row.member) for row in rows])
    assert list(read) == [sounds[i] for i in (1, 3, 0, 2, 4)]


def test_byte_order_mark_empty_lines_and_windows_line_ends_are_no_content(tmp_path):
    path = tmp_path / "m.tsv"
    text = '\ufeffutterance_id\tsentence_id\tlanguage\taudio\ttext\r\n\r\na\t1\ten\ta.wav\t"so\r\n'
    path.write_bytes(text.encode())
    [row] = manifest(str(path), ["en"], None)
    assert row.text == '"so'
    assert row.audio == f"{tmp_path}/a.wav"


def refused(path, *parts, languages=("en",)):
    with pytest.raises(UserError) as error:
        list(manifest(str(path), languages, None))
    message = str(error.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


def line(**changes):
    return json.dumps({name: value for name, value in (BARE | changes).items() if value is not ...})


GOOD = line(utterance_id="en/0", language="en")


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        (line(client="x"), ["unknown column 'client'", "utterance_id, sentence_id, language, audio", "split"]),
        (line(audio=...), ["no column 'audio'", "utterance_id, sentence_id, language, audio", "translations"]),
        ('{"utterance_id": "a", ', ["no JSON object: Expecting property name", "at character 23"]),
        ("[1, 2]", ["not a JSON object"]),
        (line(sentence_id=""), ["sentence_id is empty"]),
        (line(language=None), ["language is empty"]),
        (line(sentence_id=1.5), ["sentence_id must be text, not 1.5"]),
        (line(speaker=True), ["speaker must be text, not True"]),
        (line(translations="zh"), ['translations must be a JSON object such as {"zh": "..."}, not \'zh\'']),
        (line(translations=["zh"]), ["translations must be an object of texts by language code, not ['zh']"]),
        (line(translations={"zh": 1}), ["translations must be an object of texts by language code, not {'zh': 1}"]),
        (line(utterance_id="en/0"), ["utterance_id 'en/0' occurs twice"]),
        (line(start=-0.1), ["start must be a number of seconds, at least 0, not -0.1"]),
        (line(duration=0), ["duration must be a number of seconds, greater than 0, not 0"]),
        (line(duration=-1.5), ["duration must be", "not -1.5"]),
        (line(start=True), ["start must be a number of seconds, at least 0, not True"]),
        (line(start="soon"), ["start must be", "not 'soon'"]),
        (line(duration=[1]), ["duration must be", "not [1]"]),
        (line(start=float("nan")), ["start must be", "not nan"]),
    ],
)
def test_a_broken_json_line_is_named(tmp_path, bad, parts):
    (tmp_path / "m.jsonl").write_text(f"{GOOD}\n\n{bad}\n")
    refused(tmp_path / "m.jsonl", "line 3: ", *parts)


def test_broken_utf8_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(GOOD.encode() + b'\n{"text": "\xff"}\n')
    refused(tmp_path / "m.jsonl", "line 2: ", "utf-8")


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("utterance_id\tsentence_id\tlanguage\taudio\tclient", ["unknown column 'client'", "the columns are"]),
        ("utterance_id\tsentence_id\taudio", ["no column 'language'", "the columns are"]),
        ("utterance_id\tsentence_id\tlanguage\taudio\taudio", ["a column occurs twice"]),
        ("", ["no column 'utterance_id', 'sentence_id', 'language', 'audio'"]),
    ],
)
def test_a_broken_header_is_named(tmp_path, header, parts):
    (tmp_path / "m.tsv").write_text(header + "\n")
    refused(tmp_path / "m.tsv", "line 1: ", *parts)


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        ("b\t1\ten", ["3 cells, but 4 columns in the header"]),
        ("b\t1\ten\ta.wav\tx", ["5 cells, but 4 columns in the header"]),
        ("b\t\ten\ta.wav", ["sentence_id is empty"]),
        ("a\t1\ten\ta.wav", ["utterance_id 'a' occurs twice"]),
    ],
)
def test_a_broken_tsv_line_is_named(tmp_path, bad, parts):
    (tmp_path / "m.tsv").write_text(f"utterance_id\tsentence_id\tlanguage\taudio\na\t1\ten\ta.wav\n{bad}\n")
    refused(tmp_path / "m.tsv", "line 3: ", *parts)


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
@pytest.mark.parametrize("bad", ["-1{s}2", "1{s}0", "x{s}2", "1{s}inf"])
def test_a_segment_that_cannot_be_is_named(tmp_path, suffix, bad):
    s = {"tsv": "\t", "csv": ","}[suffix]
    lines = ["utterance_id,sentence_id,language,audio,start,duration", "a,1,en,a.wav,,", "b,2,en,a.wav,0,0.5"]
    text = "\n".join([*(line.replace(",", s) for line in lines), f"c{s}3{s}en{s}a.wav{s}{bad.format(s=s)}"])
    (tmp_path / f"m.{suffix}").write_text(text + "\n")
    refused(tmp_path / f"m.{suffix}", "line 4: ", "must be a number of seconds")


def test_whole_numbers_and_nulls_are_times_too(tmp_path):
    columns = {"utterance_id": ["a", "b"], "sentence_id": ["1", "2"], "language": ["en", "en"], "audio": ["x", "y"]}
    pq.write_table(pa.table(columns | {"start": [3, None], "duration": [None, 2.5]}), tmp_path / "m.parquet")
    rows = list(manifest(str(tmp_path / "m.parquet"), ["en"], None))
    assert [(row.start, row.duration) for row in rows] == [(3.0, None), (None, 2.5)]


def test_csv_cells_may_hold_commas_quotes_and_lines(tmp_path):
    text = (
        'utterance_id,sentence_id,language,audio,text\r\na,1,en,"a,b.wav","two\nlines, ""so"""\r\n\r\nb,,en,c.wav,\r\n'
    )
    (tmp_path / "m.csv").write_bytes(text.encode("utf-8-sig"))
    refused(tmp_path / "m.csv", "line 5: sentence_id is empty")
    (tmp_path / "m.csv").write_bytes(text.replace("b,,", "b,2,").encode())
    first, second = manifest(str(tmp_path / "m.csv"), ["en"], None)
    assert (first.audio, first.text) == (f"{tmp_path}/a,b.wav", 'two\nlines, "so"')
    assert second.text is None


@pytest.mark.parametrize(
    ("end", "parts"), [("b,1,en", ["3 cells, but 4 columns"]), ('b,1,en,"x', ["unexpected end"]), ("b,1,en,\xff", [])]
)
def test_a_broken_csv_line_is_named(tmp_path, end, parts):
    text = f"utterance_id,sentence_id,language,audio\na,1,en,a.wav\n{end}\n"
    (tmp_path / "m.csv").write_bytes(text.encode("latin-1"))
    refused(tmp_path / "m.csv", *parts)


def test_broken_parquet_is_named(tmp_path):
    path = tmp_path / "m.parquet"
    path.write_bytes(b"no Parquet")
    refused(path, "is damaged, or not of the format that its name says")
    good = {"utterance_id": ["a", "b"], "sentence_id": ["1", "1"], "language": ["en", "en"], "audio": ["a", "b"]}
    pq.write_table(pa.table(good | {"client": ["x", "y"]}), path)
    refused(path, "unknown column 'client'", "the columns are")
    pq.write_table(pa.table({name: good[name] for name in ("utterance_id", "language", "audio")}), path)
    refused(path, "no column 'sentence_id'", "the columns are")
    pq.write_table(pa.table(good | {"sentence_id": ["1", None]}), path)
    refused(path, "line 2: sentence_id is empty")
    pq.write_table(pa.table(good | {"sentence_id": [1.0, 1.0]}), path)
    refused(path, "line 1: sentence_id must be text, not 1.0")
    pq.write_table(pa.table(good | {"utterance_id": ["a", "a"]}), path)
    refused(path, "line 2: utterance_id 'a' occurs twice")


def test_duplicates_count_in_languages_that_were_not_asked_for(tmp_path):
    write_jsonl(tmp_path / "m.jsonl", [REMOTE, BARE, BARE])
    refused(tmp_path / "m.jsonl", "line 3: utterance_id 'fr/1' occurs twice")


def test_unknown_languages_formats_and_files_are_named(tmp_path):
    write_jsonl(tmp_path / "m.jsonl", ROWS)
    refused(
        tmp_path / "m.jsonl",
        "no rows of language 'de'; it has en, fr; give --languages with some",
        languages=["en", "de"],
    )
    (tmp_path / "empty.jsonl").touch()
    refused(tmp_path / "empty.jsonl", "no rows of language 'en'; it has no rows at all")
    (tmp_path / "m.txt").touch()
    refused(tmp_path / "m.txt", "suffix '.txt'", ".jsonl, .tsv, .csv, .parquet")
    for suffix in ("jsonl", "tsv", "csv", "parquet"):
        refused(tmp_path / f"nowhere.{suffix}", "there is no manifest")


def test_mistakes_are_found_before_the_first_row(tmp_path):
    write_jsonl(tmp_path / "m.jsonl", [FULL, REMOTE, BARE | {"gender": "f"}])
    with pytest.raises(UserError, match="unknown column 'gender'"):
        next(manifest(str(tmp_path / "m.jsonl"), ["en"], None))


def written(path, encoding="utf-8", **cells):
    """A manifest of one row, .tsv or .csv."""
    row = {"utterance_id": "0007", "sentence_id": "12", "language": "en", "audio": "a.wav", "text": "so"} | cells
    separator = "\t" if path.suffix == ".tsv" else ","
    path.write_bytes("".join(f"{separator.join(cells)}\n" for cells in (row, row.values())).encode(encoding))
    return path


def test_numbers_that_are_identifiers_are_their_digits(tmp_path):
    """As pandas writes an index, or an identifier that it took for a number."""
    rows = [json.loads(line(utterance_id=number, sentence_id=17, speaker=3)) for number in (0, 1)]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for name in ("m.jsonl", "m.parquet"):
        found = list(manifest(str(tmp_path / name), [BARE["language"]], None))
        assert [row.utterance_id for row in found] == ["0", "1"]
        assert {(row.sentence_id, row.speaker) for row in found} == {("17", "3")}


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
@pytest.mark.parametrize("word", ["null", "NA", "nan", "None", "0012", "true"])
def test_words_that_others_read_as_missing_or_as_numbers_are_words(tmp_path, suffix, word):
    (row,) = manifest(str(written(tmp_path / f"m.{suffix}", text=word, speaker=word)), ["en"], None)
    assert (row.utterance_id, row.text, row.speaker) == ("0007", word, word)


def test_a_tsv_with_the_quotes_of_a_spreadsheet_is_named(tmp_path):
    cells = ["a", "1", "en", "a.wav", '"{""fr"": ""oui""}"']
    (tmp_path / "m.tsv").write_text("\t".join([*REQUIRED, "translations"]) + "\n" + "\t".join(cells) + "\n")
    with pytest.raises(UserError, match=r"line 2: translations must be a JSON object such .* for \.csv, not for \.tsv"):
        list(manifest(f"{tmp_path}/m.tsv", ["en"], None))


@pytest.mark.parametrize("suffix", [".jsonl", ".tsv", ".csv", ".parquet"])
def test_a_folder_of_parts_is_no_manifest(tmp_path, suffix):
    """As Spark writes a table."""
    (tmp_path / f"m{suffix}").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        list(manifest(f"{tmp_path}/m{suffix}", ["en"], None))


@pytest.mark.parametrize("text", ['"so', 'so" he said', '"', '""so'])
def test_unmatched_quotes_of_a_tsv_are_part_of_the_text(tmp_path, text):
    (row,) = manifest(str(written(tmp_path / "m.tsv", text=text)), ["en"], None)
    assert row.text == text


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "UTF-16"), ("latin-1", "not UTF-8"), ("utf-8-sig", None)])
def test_other_encodings_are_named(tmp_path, suffix, encoding, name):
    path = tmp_path / f"m.{suffix}"
    if suffix == "jsonl":
        path.write_bytes(GOOD.replace("en/0", "é").encode(encoding))
    else:
        written(path, encoding, text="é")
    if name:
        refused(path, name, "save it as UTF-8")
    else:
        assert len(list(manifest(str(path), ["en"], None))) == 1
