"""The manifest of what was mined, read by the corpus reader that it is for."""

import json
import tempfile
from pathlib import Path

import embedded
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.corpora.manifest import manifest
from xlt_ray.embed import committed
from xlt_ray.mine import written
from xlt_ray.store.schema import INDEX, Utterance, utterance_table

TEXT = "one\ttwo\nthree \u2028 \"quoted\" 'x' 漢字 \\n"


def recordings(*utterances):
    """Rows of INDEX, of which only what the corpus says counts here."""
    table = utterance_table(utterances)
    rest = {"unit": "u", "generation": 0}
    columns = [
        table[field.name]
        if field.name in table.schema.names
        else pa.array([rest.get(field.name)] * len(table), field.type)
        for field in INDEX
    ]
    return pa.table(columns, schema=INDEX)


def spoken(name, **more):
    return Utterance(utterance_id=name, sentence_id=name, language=name[:2], audio=f"/a/{name}.wav", **more)


def read(folder, mined, rows, languages):
    path = Path(folder, written.NAME)
    path.write_text("".join(f"{line}\n" for line in written.lines(mined, rows)), encoding="utf-8")
    return {row.utterance_id: row for row in manifest(str(path), languages, None)}


def test_what_was_mined_is_a_corpus(tmp_path):
    rows = recordings(
        spoken("en1", text=TEXT, start=1.5, duration=2.25, speaker="ann"),
        spoken("fr1", text="un", translations={"zh": "not taken over"}, split="test"),
        spoken("en2"),
        spoken("fr2", text="deux", member="17:speech"),
        spoken("fr3", text="in no pair"),
    )
    found = read(tmp_path, [("en2", "fr2", 1.5), ("en1", "fr1", 1.75)], rows, ("en", "fr"))
    assert set(found) == {"en1", "fr1", "en2", "fr2"}
    assert found["en1"].sentence_id == found["fr1"].sentence_id == "mined-0000000"
    assert found["en2"].sentence_id == found["fr2"].sentence_id == "mined-0000001"
    cleaned = TEXT.replace("\t", " ").replace("\n", " ")
    assert (found["en1"].text, found["fr1"].translations) == (cleaned, {"en": cleaned})
    assert (found["en1"].start, found["en1"].duration, found["en1"].speaker) == (1.5, 2.25, "ann")
    assert (found["fr2"].audio, found["fr2"].member) == ("/a/fr2.wav", "17:speech")
    assert found["en1"].translations == {"fr": "un"}
    assert (found["en2"].text, found["en2"].translations, found["fr2"].translations) == (None, {"fr": "deux"}, {})
    assert {row.split for row in found.values()} == {None}


def test_the_partner_with_the_highest_margin_is_the_translation(tmp_path):
    rows = recordings(*(spoken(name, text=f"text {name}") for name in ("en1", "en2", "fr1", "it1")))
    mined = [("en1", "fr1", 1.25), ("en2", "fr1", 1.5), ("fr1", "it1", 1.0)]
    found = read(tmp_path, mined, rows, ("en", "fr", "it"))
    assert {row.sentence_id for row in found.values()} == {"mined-0000000"}  # joined by fr1
    assert found["fr1"].translations == {"en": "text en2", "it": "text it1"}
    assert found["it1"].translations == {"fr": "text fr1"}


names = st.tuples(st.sampled_from(["en", "fr", "it"]), st.integers(0, 6)).map(lambda drawn: f"{drawn[0]}{drawn[1]}")
pairs = st.lists(
    st.tuples(names, names, st.floats(0, 2)).filter(lambda pair: pair[0][:2] < pair[1][:2]),
    min_size=1,
    unique_by=lambda pair: pair[:2],
    max_size=12,
)


@pytest.mark.slow
@given(pairs)
def test_recordings_share_a_sentence_where_pairs_join_them(mined):
    """Against Warshall's closure."""
    there = sorted({name for first, second, _ in mined for name in (first, second)})
    joined = {(a, b) for a, b, _ in mined} | {(b, a) for a, b, _ in mined} | {(a, a) for a in there}
    for middle in there:
        joined |= {(a, b) for a in there for b in there if (a, middle) in joined and (middle, b) in joined}
    rows = recordings(*map(spoken, there))
    with tempfile.TemporaryDirectory() as folder:
        found = read(folder, mined, rows, sorted({name[:2] for name in there}))
    assert sorted(found) == there
    for a in there:
        for b in there:
            assert (found[a].sentence_id == found[b].sentence_id) == ((a, b) in joined)


def test_the_rows_of_an_embed_artifact_are_what_it_takes(tmp_path):
    artifact = embedded.write(tmp_path, "x", [spoken("en1", text="a"), spoken("fr1", text="b")])
    lines = list(written.lines([("en1", "fr1", 1.0)], committed.read_index(artifact)))
    assert lines[0].split("\t") == list(written.COLUMNS)
    assert json.loads(lines[1].split("\t")[written.COLUMNS.index("translations")]) == {"fr": "b"}
