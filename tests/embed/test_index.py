import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.embed import index
from xlt_ray.errors import UserError
from xlt_ray.store.schema import Utterance


def utterance(language, sentence, recording=0, **fields):
    identifier = f"{language}/{sentence}/{recording}"
    return Utterance(
        utterance_id=identifier, sentence_id=sentence, language=language, audio=f"/{identifier}.wav", **fields
    )


ROWS = [utterance("en", s) for s in "abcd"] + [utterance("fr", s) for s in "bcde"] + [utterance("fr", "b", 1)]


def test_rows_come_language_by_language():
    table = index.collect(ROWS, ["fr", "en"])
    assert table["language"].to_pylist() == ["fr"] * 5 + ["en"] * 4


def test_num_sentences_takes_the_first_that_every_language_has():
    table = index.first_sentences(index.collect(ROWS, ["en", "fr"]), 2)
    assert table["utterance_id"].to_pylist() == ["en/b/0", "en/c/0", "fr/b/0", "fr/b/1", "fr/c/0"]


def test_lines_that_changed_places_change_no_unit():
    """Units are named by place: a resumed run must find the same rows in them."""
    there, back = (index.cut(index.collect(rows, ["en", "fr"]), 2) for rows in (ROWS, ROWS[::-1]))
    assert there.equals(back)


def test_duplicates_are_named():
    with pytest.raises(UserError, match=r"'en/a/0' stands on more than one row"):
        index.collect([*ROWS, utterance("en", "a")], ["en"])


def test_a_language_without_rows_is_named():
    with pytest.raises(UserError, match="no rows in language zh"):
        index.collect(ROWS, ["en", "zh"])


def test_languages_that_share_nothing_are_named():
    rows = index.collect([*ROWS, utterance("it", "z")], ["en", "fr", "it"])
    with pytest.raises(UserError, match="no sentence_id is shared by en and it"):
        index.require_parallel(rows, ["en", "fr", "it"])
    index.require_parallel(rows, ["en", "fr"])


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=4), rows_per_shard=st.integers(1, 17))
def test_units_hold_one_language_and_never_too_many_rows(counts, rows_per_shard):
    codes = ["en", "fr", "it", "ru"][: len(counts)]
    rows = [utterance(code, str(n)) for code, count in zip(codes, counts, strict=True) for n in range(count)]
    table = index.cut(index.collect(rows, codes), rows_per_shard)
    units = {}
    for row in table.to_pylist():
        units.setdefault(row["unit"], []).append(row)
    assert {unit: part.to_pylist() for unit, part in index.by_unit(table).items()} == units
    assert sum(map(len, units.values())) == sum(counts)
    assert len(units) == sum(-(-count // rows_per_shard) for count in counts)
    for unit, members in units.items():
        assert len(members) <= rows_per_shard
        assert {row["language"] for row in members} == {unit.rsplit("-", 1)[0]}


def test_the_hash_is_of_the_rows_not_of_their_place():
    table = index.collect(ROWS, ["en", "fr"])
    moved = [dataclasses.replace(row, audio="s3://elsewhere/x.wav") for row in reversed(ROWS)]
    assert index.sha256(index.collect(moved, ["fr", "en"])) == index.sha256(table)
    changed = [dataclasses.replace(ROWS[0], text="other"), *ROWS[1:]]
    assert index.sha256(index.collect(changed, ["en", "fr"])) != index.sha256(table)
