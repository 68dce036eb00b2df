"""Rows of an embed artifact, and how they are cut into units."""

import dataclasses
import itertools
from collections import defaultdict

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.embed import index, plan
from xlt_ray.errors import UserError
from xlt_ray.store.schema import INDEX, Utterance


def utterance(language, sentence, recording=0, **fields):
    identifier = f"{language}/{sentence}/{recording}"
    return Utterance(
        utterance_id=identifier, sentence_id=sentence, language=language, audio=f"/{identifier}.wav", **fields
    )


ROWS = [utterance("en", s) for s in "abcd"] + [utterance("fr", s) for s in "bcde"] + [utterance("fr", "b", 1)]


def missing_of(rows, languages=("en", "fr", "it", "ru")):
    """Rows of INDEX, as planning has them."""
    there = [code for code in languages if any(row.language == code for row in rows)]
    return plan._as_index(index.collect(rows, there))


def calm(rows, rows_per_shard=2):
    return index.cut(missing_of(rows), INDEX.empty_table(), (), (), rows_per_shard)


def members(cut):
    """Utterance ids by unit."""
    return {unit: rows["utterance_id"].to_pylist() for unit, rows in cut.units.items()}


def test_rows_come_language_by_language():
    table = index.collect(ROWS, ["fr", "en"])
    assert table["language"].to_pylist() == ["fr"] * 5 + ["en"] * 4


def test_num_sentences_takes_the_first_that_every_language_has():
    table = index.collect(ROWS, ["en", "fr"])
    first = table.take(index.first_sentences(table, 2))
    assert first["utterance_id"].to_pylist() == ["en/b/0", "en/c/0", "fr/b/0", "fr/b/1", "fr/c/0"]


def test_lines_that_changed_places_change_no_unit():
    """Units are named by place: a resumed run must find the same rows in them."""
    there, back = (calm(rows).rows for rows in (ROWS, ROWS[::-1]))
    assert there.equals(back)


def test_duplicates_are_named():
    with pytest.raises(UserError, match=r"'en/a/0' occurs on more than one row"):
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
    cut = calm(rows, rows_per_shard)
    units = defaultdict(list)
    for row in cut.rows.to_pylist():
        units[row["unit"]].append(row)
    assert {unit: part.to_pylist() for unit, part in cut.units.items()} == units
    assert sum(map(len, units.values())) == sum(counts)
    assert len(units) == sum(-(-count // rows_per_shard) for count in counts)
    for unit, part in units.items():
        assert len(part) <= rows_per_shard
        assert {row["language"] for row in part} == {unit.split("-", 1)[0]}


def test_units_are_named_by_language_and_split():
    rows = [
        utterance("en", s, split=split)
        for s, split in zip("abcdef", ["dev", None, "dev", "a b", "dev", "a b"], strict=True)
    ]
    assert members(calm(rows)) == {
        "en-a_b-00000": ["en/d/0", "en/f/0"],
        "en-dev-00000": ["en/a/0", "en/c/0"],
        "en-dev-00001": ["en/e/0"],
        "en-rows-00000": ["en/b/0"],
    }


SPLITS = (None, "train", "dev")


@st.composite
def situations(draw):
    """A run that is planned, what a run before it had begun and done, and what is committed.

    Returns:
        missing, begun, done, taken, rows_per_shard.
    """
    every = [
        utterance(code, f"{number:02d}", split=draw(st.sampled_from(SPLITS)))
        for code in ("en", "fr")
        for number in range(draw(st.integers(1, 12)))
    ]
    some = st.sets(st.integers(0, len(every) - 1)).map(lambda places: [every[place] for place in sorted(places)])
    names = ("en-rows", "en-train", "fr-rows", "fr-dev")
    taken = draw(st.sets(st.builds("{}-{:05d}".format, st.sampled_from(names), st.integers(0, 3)), max_size=4))
    before = draw(some)
    begun = INDEX.empty_table()
    if before:
        ignored = draw(st.booleans())  # units of the run that committed, and was killed before it cleaned up
        begun = index.cut(missing_of(before), begun, (), () if ignored else taken, draw(st.integers(1, 5))).rows
    units = sorted(set(begun["unit"].to_pylist()))
    done = draw(st.sets(st.sampled_from(units))) if units else set()
    needed = draw(some) or every
    return missing_of(needed), begun, done | taken, taken, draw(st.integers(1, 5))


@pytest.mark.slow
@given(situations())
def test_every_missing_row_ends_in_exactly_one_unit(situation):
    missing, begun, done, taken, rows_per_shard = situation
    cut = index.cut(*situation)
    found = cut.rows["utterance_id"].to_pylist()
    assert len(found) == len(set(found))
    assert set(found) >= set(missing["utterance_id"].to_pylist())
    units = members(cut)
    assert sum(map(len, units.values())) == len(found)  # a unit's rows stand together
    before = members(index.Cut(begun))
    for unit, part in cut.units.items():
        assert unit not in taken
        assert len({(row["language"], row["split"]) for row in part.to_pylist()}) == 1
        if unit not in done and unit not in before:
            assert part.num_rows <= rows_per_shard
    # Rows that are not needed are there only because their unit is done.
    extra = set(found) - set(missing["utterance_id"].to_pylist())
    assert extra <= set(itertools.chain.from_iterable(before[unit] for unit in done & before.keys() - taken))


@given(situations())
def test_what_is_done_is_kept_and_what_is_begun_goes_on(situation):
    missing, begun, done, taken, _ = situation
    units, before = members(index.cut(*situation)), members(index.Cut(begun))
    needed = set(missing["utterance_id"].to_pylist())
    for unit, ids in before.items():
        if unit in taken:
            continue
        if unit in done or set(ids) <= needed:
            assert units[unit] == ids
        elif unit in units:
            assert not set(units[unit]) & set(ids) - needed


@pytest.mark.slow
@given(situations())
def test_the_same_again_is_the_same(situation):
    """Also with what it wrote down: a run that is killed before its first unit changes nothing."""
    missing, _, done, taken, rows_per_shard = situation
    cut = index.cut(*situation)
    assert index.cut(*situation).rows.equals(cut.rows)
    again = index.cut(missing, cut.rows, done, taken, rows_per_shard)
    assert members(again) == members(cut)


@pytest.mark.slow
@given(situations(), st.data())
def test_a_run_that_is_killed_and_resumed_has_the_units_of_a_calm_one(situation, data):
    """However often it is killed, and whatever was done of it each time."""
    missing, begun, done, taken, rows_per_shard = situation
    expected = members(index.cut(*situation))
    for _ in range(data.draw(st.integers(1, 3))):
        cut = index.cut(missing, begun, done, taken, rows_per_shard)
        begun = cut.rows
        done = done | data.draw(st.sets(st.sampled_from(sorted(cut.units))))
        assert members(index.cut(missing, begun, done, taken, rows_per_shard)) == expected


def test_a_run_that_needs_less_leaves_what_is_not_done():
    """Of two units that were begun, one is done: its rows stay, those of the other are cut anew."""
    begun = calm(ROWS[:4]).rows
    cut = index.cut(missing_of([ROWS[0], ROWS[3]]), begun, {"en-rows-00000"}, (), 2)
    assert members(cut) == {"en-rows-00000": ["en/a/0", "en/b/0"], "en-rows-00001": ["en/d/0"]}


def test_a_file_that_is_there_is_not_written_over():
    """Nobody knows what is in it."""
    cut = index.cut(missing_of(ROWS[:4]), INDEX.empty_table(), {"en-rows-00004"}, {"en-rows-00001"}, 2)
    assert list(cut.units) == ["en-rows-00005", "en-rows-00006"]


def stamped(rows, **values):
    """Rows of INDEX with size and date; `values` by utterance_id."""
    table = missing_of(rows).to_pylist()
    for row in table:
        row["bytes"], row["modified"] = values.get(row["utterance_id"].replace("/", "_"), (10, "1"))
    return pa.Table.from_pylist(table, schema=INDEX)


def test_units_that_were_begun_go_on_with_rows_as_they_are_now():
    """The user may have corrected the corpus after the run was killed."""
    begun = index.cut(stamped(ROWS[:4], en_b_0=(None, None)), INDEX.empty_table(), (), (), 2).rows
    moved = [dataclasses.replace(row, audio=f"/new/{row.sentence_id}", text="now") for row in ROWS[:4]]
    cut = index.cut(stamped(moved), begun, {"en-rows-00001"}, (), 2)
    assert members(cut) == members(index.Cut(begun))
    first, second = cut.units.values()
    assert first["audio"].to_pylist() == ["/new/a", "/new/b"]
    assert (first["text"].to_pylist(), first["bytes"].to_pylist()) == (["now", "now"], [10, 10])
    assert second["audio"].to_pylist() == ["/en/c/0.wav", "/en/d/0.wav"]  # as it was encoded


def test_a_row_of_another_split_than_before_is_cut_anew():
    begun = calm([utterance("en", s, split="train") for s in "ab"]).rows
    now = [utterance("en", "a", split="dev"), utterance("en", "b", split="train")]
    assert members(index.cut(missing_of(now), begun, (), (), 2)) == {
        "en-dev-00000": ["en/a/0"],
        "en-train-00000": ["en/b/0"],
    }


def test_units_are_changed_by_files_that_are_other_ones_now():
    begun = index.cut(
        stamped(ROWS[:8], en_a_0=(None, None), en_c_0=(10, "1"), fr_d_0=(10, "1")), INDEX.empty_table(), (), (), 2
    ).rows
    assert list(members(index.Cut(begun))) == ["en-rows-00000", "en-rows-00001", "fr-rows-00000", "fr-rows-00001"]
    assert index.changed(stamped(ROWS[:8], en_a_0=(None, None)), begun) == set()
    assert index.changed(stamped(ROWS[:8]), begun) == {"en-rows-00000"}  # it is there now
    same = {"en_a_0": (None, None)}
    assert index.changed(stamped(ROWS[:8], **same, en_d_0=(11, "1")), begun) == {"en-rows-00001"}
    assert index.changed(stamped(ROWS[:8], **same, fr_d_0=(10, "2")), begun) == {"fr-rows-00001"}
    assert index.changed(stamped(ROWS[:8], **same, fr_b_0=(None, None)), begun) == set()  # gone, but encoded
    assert index.changed(stamped(ROWS[:1]), begun) == {"en-rows-00000"}
    assert index.changed(stamped(ROWS[4:8]), begun) == set()


def test_the_hash_is_of_the_rows_not_of_their_place():
    table = index.collect(ROWS, ["en", "fr"])
    moved = [dataclasses.replace(row, audio="s3://elsewhere/x.wav") for row in reversed(ROWS)]
    assert index.sha256(index.collect(moved, ["fr", "en"])) == index.sha256(table)
    for name, value in (
        ("text", "other"),
        ("translations", {"zh": "你好"}),
        ("speaker", "x"),
        ("split", "dev"),
        ("sentence_id", "z"),
        ("language", "fr"),
    ):
        changed = [dataclasses.replace(ROWS[0], **{name: value}), *ROWS[1:]]
        assert index.sha256(index.collect(changed, ["en", "fr"])) != index.sha256(table), name


def test_the_hash_is_of_sizes_and_generations_not_of_dates_and_units():
    table = stamped(ROWS)
    cut = index.cut(table, INDEX.empty_table(), (), (), 2).rows
    assert index.sha256(cut) == index.sha256(table) == index.sha256(stamped(ROWS, en_a_0=(10, "2")))
    assert index.sha256(stamped(ROWS, en_a_0=(11, "1"))) != index.sha256(table)
    rows = table.to_pylist()
    rows[3]["generation"] = 1
    assert index.sha256(pa.Table.from_pylist(rows, schema=INDEX)) != index.sha256(table)
