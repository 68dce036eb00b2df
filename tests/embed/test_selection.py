"""Which rows are of which split, against naive loops."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.embed import index, selection
from xlt_ray.errors import UserError
from xlt_ray.store.schema import Utterance

ids = st.text(min_size=1, max_size=12)
CODES = ("en", "fr", "it")


def naive_split(sentence_id):
    """Eight bytes of SHA-256 as one number: its last decimal digit decides."""
    number = int(hashlib.sha256(sentence_id.encode()).hexdigest()[:16], 16)
    digit = int(str(number)[-1])
    return "test" if digit == 0 else "dev" if digit == 1 else "train"


@given(st.lists(ids, max_size=30), st.lists(ids, max_size=30))
def test_a_sentence_is_of_one_split_by_its_id_alone(some, others):
    alone = {sentence: selection.divided([sentence]).item() for sentence in some}
    assert selection.divided(some).tolist() == [alone[sentence] for sentence in some]
    assert selection.divided([*others, *some]).tolist()[len(others) :] == [alone[sentence] for sentence in some]
    assert alone == {sentence: naive_split(sentence) for sentence in some}


def test_splits_do_not_change_from_one_release_to_the_next():
    """A checkpoint that was trained must be tested on what it was not trained on, also next year."""
    # By `printf %s ID | sha256sum | cut -c1-16` as a number, modulo 10: 0, 0, 1, 1, 6, 9.
    assert selection.divided(["a", "c", "q", "s", "b", "s0"]).tolist() == ["test"] * 2 + ["dev"] * 2 + ["train"] * 2


@pytest.mark.parametrize("form", ["s{}", "{:06d}", "fleurs/{}"])
def test_splits_are_8_to_1_to_1(form):
    num = 20_000
    counts = Counter(selection.divided([form.format(number) for number in range(num)]).tolist())
    deviation = {split: (num * share * (1 - share)) ** 0.5 for split, share in SHARES.items()}
    for split, share in SHARES.items():
        assert abs(counts[split] - num * share) < 5 * deviation[split]


SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


@st.composite
def corpora(draw, splits):
    """Rows of up to three languages and seven sentences, some recorded more than once; splits by row."""
    rows = []
    chosen = draw(st.lists(st.tuples(st.sampled_from(CODES), st.integers(0, 6), splits), min_size=1, max_size=25))
    for number, (code, sentence, split) in enumerate(chosen):
        rows.append(
            Utterance(
                utterance_id=f"{code}-{number:02d}", sentence_id=f"s{sentence}", language=code, audio="/x", split=split
            )
        )
    return rows


def table_of(rows):
    return index.collect(rows, [code for code in CODES if any(row.language == code for row in rows)])


def naive_select(rows, split, divide, num_sentences):
    """Utterance ids of a split, in the order of the table; None where there is none."""
    has_splits = any(row["split"] is not None for row in rows)

    def belongs(row):
        if split == "all" or not (has_splits or divide):
            return True
        return (row["split"] if has_splits else naive_split(row["sentence_id"])) == split

    chosen = [row for row in rows if belongs(row)]
    if num_sentences is not None and chosen:
        languages = {row["language"] for row in chosen}
        shared = [
            sentence
            for sentence in sorted({row["sentence_id"] for row in chosen})
            if {row["language"] for row in chosen if row["sentence_id"] == sentence} == languages
        ]
        chosen = [row for row in chosen if row["sentence_id"] in shared[:num_sentences]]
    return [row["utterance_id"] for row in chosen] or None


@given(
    st.one_of(corpora(st.none()), corpora(st.sampled_from([None, "train", "dev", "test"]))),
    st.sampled_from(["all", "train", "dev", "test"]),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_what_is_selected_is_what_a_naive_loop_finds(rows, split, divide, num_sentences):
    table = table_of(rows)
    expected = naive_select(table.to_pylist(), split, divide, num_sentences)
    if expected is None:
        with pytest.raises(UserError):
            selection.select(table, [split], divide=divide, num_sentences=num_sentences)
        return
    found = selection.select(table, [split], divide=divide, num_sentences=num_sentences)
    assert table.take(found[split])["utterance_id"].to_pylist() == expected


@given(corpora(st.none()))
def test_no_sentence_is_both_trained_on_and_tested(rows):
    table = table_of(rows)
    own = {split: set() for split in ("train", "dev", "test")}
    for split, sentences in own.items():
        try:
            places = selection.select(table, [split], divide=True)[split]
        except UserError:
            continue
        sentences |= set(table.take(places)["sentence_id"].to_pylist())
    assert sum(map(len, own.values())) == len(set.union(*own.values())) == len({row.sentence_id for row in rows})


def rows_of(*splits, language="en"):
    return [
        Utterance(
            utterance_id=f"{language}-{number}", sentence_id=f"s{number}", language=language, audio="/x", split=split
        )
        for number, split in enumerate(splits)
    ]


def test_splits_may_overlap_and_each_is_found_once():
    table = table_of(rows_of("train", "dev", "train"))
    found = selection.select(table, ["dev", "all", "train", "dev"], divide=True)
    assert {split: places.tolist() for split, places in found.items()} == {
        "dev": [1],
        "all": [0, 1, 2],
        "train": [0, 2],
    }
    assert all(np.issubdtype(places.dtype, np.integer) for places in found.values())


def test_a_corpus_without_splits_is_taken_whole_where_nothing_is_trained():
    table = table_of(rows_of(None, None))
    assert selection.select(table, ["test"], divide=False)["test"].tolist() == [0, 1]
    assert not selection.has_splits(table)


def test_rows_without_a_split_are_of_none_where_others_have_one():
    """They were left out on purpose; only `all` has them."""
    table = table_of(rows_of(None, "train", None))
    assert selection.has_splits(table)
    for divide in (True, False):
        found = selection.select(table, ["train", "all"], divide=divide)
        assert (found["train"].tolist(), found["all"].tolist()) == ([1], [0, 1, 2])


def test_sentences_are_counted_in_each_split():
    english = rows_of("train", "train", "train", "test", "test", "test")
    french = rows_of("train", "train", "train", "test", "test", "test", language="fr")
    table = table_of([*english, french[1], french[2], french[4]])
    found = selection.select(table, ["train", "test"], divide=True, num_sentences=1)
    taken = {split: table.take(places)["utterance_id"].to_pylist() for split, places in found.items()}
    assert taken == {"train": ["en-1", "fr-1"], "test": ["en-4", "fr-4"]}


@pytest.mark.parametrize(
    ("splits", "divide", "asked", "message"),
    [
        (
            ("train", "dev", None),
            True,
            "test",
            "no recording is of split 'test'; the corpus has dev, train; give its name (dev, train), or all for every "
            "row",
        ),
        (("train",), False, "nowhere", "no recording is of split 'nowhere'; the corpus has train;"),
    ],
)
def test_a_split_that_is_not_there_is_named_with_those_that_are(splits, divide, asked, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        selection.select(table_of(rows_of(*splits)), [asked], divide=divide)
    assert "\n" not in str(error.value)


def test_a_corpus_of_few_sentences_has_not_every_split():
    rows = [row for row in rows_of(*[None] * 40) if naive_split(row.sentence_id) != "dev"]
    with pytest.raises(UserError, match="no recording is of split 'dev'; the corpus has test, train"):
        selection.select(table_of(rows), ["dev"], divide=True)


def test_languages_that_share_no_sentence_have_no_first_ones():
    table = table_of([*rows_of(None), *[row for row in rows_of(None, None, language="fr") if row.sentence_id == "s1"]])
    with pytest.raises(UserError, match=r"no sentence_id is shared by all of en, fr; leave out --embed.num-sentences"):
        selection.select(table, ["all"], divide=False, num_sentences=1)
