"""`--corpus` values: which reader, which place, and every mistake."""

import json
import unicodedata

import pytest
import soundfile
from trees import sine_wave

from xlt_ray import corpora
from xlt_ray.corpora import asterisk, covost2, doctor, fleurs, hf, lhotse, manifest, mass, mustc, nemo
from xlt_ray.errors import UserError


@pytest.mark.parametrize(
    ("spec", "reader", "source"),
    [
        ("asterisk", asterisk.asterisk, ""),
        ("asterisk:/data/prompts", asterisk.asterisk, "/data/prompts"),
        ("covost2", covost2.covost2, "hf://datasets/fixie-ai/covost2"),
        ("covost2:s3://bucket/covost", covost2.covost2, "s3://bucket/covost"),
        ("fleurs", fleurs.fleurs, "hf://datasets/google/fleurs@refs%2Fconvert%2Fparquet"),
        ("fleurs:/data/fleurs/", fleurs.fleurs, "/data/fleurs"),
        ("mass:gs://bucket/mass", mass.mass, "gs://bucket/mass"),
        ("manifest:/data/a:b.tsv", manifest.manifest, "/data/a:b.tsv"),
        ("mustc:/data/en-de", mustc.mustc, "/data/en-de"),
        ("nemo:/data/train.json", nemo.nemo, "/data/train.json"),
        ("lhotse:s3://bucket/cuts.jsonl.gz", lhotse.lhotse, "s3://bucket/cuts.jsonl.gz"),
        ("hf:org/name", hf.hf, "org/name"),
        ("hf:org/name:xh@refs/convert/parquet", hf.hf, "org/name:xh@refs/convert/parquet"),
        ("hf:/data/saved", hf.hf, "/data/saved"),
        ("hf:s3://bucket/train-*.parquet", hf.hf, "s3://bucket/train-*.parquet"),
    ],
)
def test_a_corpus_is_named_with_its_place(spec, reader, source):
    assert corpora.parse(spec) == (reader, source)


def test_relative_places_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert corpora.parse("manifest:m.jsonl")[1] == f"{tmp_path}/m.jsonl"
    assert corpora.parse("mass:~/mass")[1] == "/home/someone/mass"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("flores", ["unknown corpus 'flores'", "did you mean fleurs?"]),
        ("covost", ["unknown corpus 'covost'", "did you mean covost2?"]),
        ("librispeech:/data", ["unknown corpus 'librispeech:/data'"]),
        ("", ["unknown corpus ''"]),
        ("data/corpus.tsv", ["unknown corpus 'data/corpus.tsv'", "did you mean manifest:data/corpus.tsv?"]),
        ("manifst:m.jsonl", ["unknown corpus 'manifst:m.jsonl'", "did you mean manifest?"]),
    ],
)
def test_an_unknown_corpus_is_named_with_the_valid_ones(spec, parts):
    with pytest.raises(UserError) as error:
        corpora.parse(spec)
    valid = (
        "asterisk[:PATH], covost2[:PATH], fleurs[:PATH], hf:REF, lhotse:PATH, manifest:PATH, mass:PATH, mustc:PATH, "
    )
    valid += "nemo:PATH"
    assert all(part in str(error.value) for part in [*parts, valid])
    assert ("did you mean" in str(error.value)) == ("did you mean" in "".join(parts))


@pytest.mark.parametrize("spec", ["mass", "manifest", "manifest:", "mustc", "nemo", "lhotse:"])
def test_a_corpus_that_the_user_has_needs_a_path(spec):
    with pytest.raises(UserError, match=f"'{spec}' needs a path: {spec.rstrip(':')}:PATH"):
        corpora.parse(spec)


def test_hf_needs_something_to_read():
    with pytest.raises(UserError, match="'hf' needs a path: hf:REF, with a folder, Parquet files or a Hub id"):
        corpora.parse("hf")
    with pytest.raises(UserError, match="neither a place nor a Hub id"):
        corpora.parse("hf:a b c")


def test_columns_are_named_for_hf_only(tmp_path):
    with pytest.raises(UserError, match="columns are named for hf: only"):
        corpora.read(f"manifest:{tmp_path}/m.jsonl", ["en"], None, {"text": "sentence"})


def test_columns_that_no_corpus_takes_are_refused(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"utterance_id": "1", "sentence_id": "1", "language": "en", "audio": "a.wav"}\n')
    for spec in (f"manifest:{tmp_path}/m.jsonl", f"manifest:{tmp_path}/m.jsonl+asterisk"):
        with pytest.raises(UserError, match=r"--columns names columns of an hf: corpus, which .* is not"):
            list(corpora.read_splits(spec, ["en"], (), {"text": "sentence"}))


def test_columns_are_pairs_of_ours_and_theirs():
    assert corpora.parse_columns("text=normalised,translation_zh=zh=text") == {
        "text": "normalised",
        "translation_zh": "zh=text",
    }
    assert corpora.parse_columns("") == {}
    for text in ("text", "text=", "words=text", "translation_=x", "text=a,b"):
        with pytest.raises(UserError, match=r"columns are written ours=theirs.*ours are utterance_id"):
            corpora.parse_columns(text)


def test_unknown_schemes_are_refused():
    with pytest.raises(UserError, match="unknown scheme"):
        corpora.parse("manifest:https://example.org/m.jsonl")


@pytest.mark.parametrize("languages", [[], ["en", "fr", "en"]])
def test_languages_are_named_once_each(languages):
    with pytest.raises(UserError, match="at least one, and each once"):
        corpora.read("asterisk", languages, None)


def test_read_gives_the_rows_of_the_reader(tmp_path):
    row = {"utterance_id": "a", "sentence_id": "1", "language": "kea", "audio": "a.wav", "split": "dev"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    [utterance] = corpora.read(f"manifest:{tmp_path}/m.jsonl", ["kea"], "dev")
    assert utterance.audio == f"{tmp_path}/a.wav"
    with pytest.raises(UserError, match="no kea rows of split 'test'"):
        list(corpora.read(f"manifest:{tmp_path}/m.jsonl", ["kea"], "test"))


def test_fetch_brings_only_the_demo_corpus(monkeypatch):
    """A worker on another machine than the driver's has no copy of what the driver fetched."""
    fetched = []
    monkeypatch.setattr(asterisk, "fetch", lambda: fetched.append("asterisk"))
    for spec in ("fleurs", "manifest:/x.tsv", "asterisk:/there"):
        corpora.fetch(spec)
    assert fetched == []
    corpora.fetch("asterisk")
    assert fetched == ["asterisk"]


def test_text_of_every_corpus_is_composed(tmp_path):
    """macOS writes accents as letters of their own; the doctor says of how many rows."""
    cafe, nfd = "café", unicodedata.normalize("NFD", "café")
    rows = [
        {"text": nfd, "translations": {"en": "coffee"}},
        {"text": cafe, "translations": {"en": nfd, "de": cafe}},
        {"text": cafe, "translations": {"en": cafe}},
        {},
    ]
    for number, row in enumerate(rows):
        soundfile.write(tmp_path / f"{number}.wav", sine_wave(0.5, frequency=300 + number), 16_000)
        row |= {"utterance_id": f"a{number}", "sentence_id": str(number), "language": "fr", "audio": f"{number}.wav"}
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = f"manifest:{tmp_path}/m.jsonl"
    read = list(corpora.read(spec, ["fr"], None))
    assert [row.text for row in read] == [cafe, cafe, cafe, None]
    assert [row.translations for row in read[:2]] == [{"en": "coffee"}, {"en": cafe, "de": cafe}]
    [note] = doctor.check(corpora.read_as_written(spec, ["fr"], None)).problems
    assert (note.kind, note.where, note.num, note.example, note.is_note) == ("decomposed text", "fr", 2, "a0", True)
    assert doctor.check(read).problems == []


def test_a_joined_corpus_that_gives_nothing_is_refused(tmp_path):
    """Its path is misspelt, or a line of it is broken: the other one alone is not what was asked for."""
    row = {"utterance_id": "1", "sentence_id": "1", "language": "en", "audio": "a.wav"}
    for name, lines in (("a", [row]), ("b", [row | {"utterance_id": "2"}]), ("broken", [row, row])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    a, b, broken, nowhere = (f"manifest:{tmp_path}/{name}.jsonl" for name in ("a", "b", "broken", "nowhere"))
    assert [row.utterance_id for row in corpora.read_splits(f"{a}+{b}", ["en"], ())] == ["1", "2"]
    with pytest.raises(UserError, match=r"nowhere.jsonl is joined, but has none of en: there is no manifest"):
        list(corpora.read_splits(f"{a}+{nowhere}", ["en"], ()))
    with pytest.raises(UserError, match=r"broken.jsonl is joined, but has none of en: .* line 2: .* occurs twice"):
        list(corpora.read_splits(f"{a}+{broken}", ["en"], ()))
    with pytest.raises(UserError, match="none of the joined corpora has fr"):
        list(corpora.read_splits(f"{a}+{b}", ["en", "fr"], ()))


def test_a_language_that_only_some_of_the_joined_corpora_have_is_told(tmp_path, capsys):
    """It may be meant, or the folder of that language was not copied."""
    row = {"utterance_id": "1", "sentence_id": "1", "language": "en", "audio": "a.wav"}
    both = [row | {"utterance_id": code, "language": code} for code in ("en", "fr")]
    for name, lines in (("a", [row]), ("b", both)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    a, b = (f"manifest:{tmp_path}/{name}.jsonl" for name in "ab")
    assert [row.utterance_id for row in corpora.read_splits(f"{a}+{b}", ["en", "fr"], ())] == ["1", "en", "fr"]
    place = f"{tmp_path}/a.jsonl"
    reason = f"{place} has no rows of language 'fr'; it has en; give --languages with some of these"
    assert capsys.readouterr().out == f"{a} is read without fr: {reason}\n"
    list(corpora.read_splits(f"{a}+{b}", ["en"], ()))
    assert not capsys.readouterr().out
