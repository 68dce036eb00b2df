"""Who is right for whom, against loops over texts."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_ray.retrieval import relevance


def rows(sentences, texts, language="en"):
    table = {"sentence_id": sentences, "text": texts, "language": [language] * len(sentences)}
    return pa.table({name: pa.array(values, pa.string()) for name, values in table.items()})


def hits(queries, candidates, texts, protocol="multi_positive"):
    asked, searched = rows(queries, [None] * len(queries)), rows(candidates, texts, "fr")
    found = relevance.relevance(asked, searched, protocol, 0)
    return found.hits(slice(None), slice(None)).astype(int).tolist()


def test_hits_are_recordings_of_the_sentence_or_of_the_same_words():
    candidates = ["a", "a", "b", "c", "d"]
    texts = ["Please wait.", None, "please,  WAIT", "Goodbye", "Ｇｏｏｄｂｙｅ!"]
    found = hits(["a", "b", "c", "d", "x"], candidates, texts)
    assert found == [[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0] * 5]


def test_rows_without_text_are_not_the_same_text():
    assert hits(["a", "b"], ["a", "b"], ["", None]) == [[1, 0], [0, 1]]
    assert hits(["a", "b"], ["a", "b"], ["...", "?!"]) == [[1, 0], [0, 1]]


def test_words_that_differ_in_a_vowel_sign_are_different():
    assert len({relevance.normalised(word) for word in ("की", "का", "कि", "कू")}) == 4
    assert relevance.normalised("  Où—est l’ÉCOLE?_") == relevance.normalised("où est l école")


def test_one_recording_draws_each_sentence_once_and_by_the_seed():
    sentences = ["a", "b", "a", "a", "c", "b"]
    drawn = relevance.one_recording(sentences, 0)
    assert sorted(sentences[place] for place in drawn) == ["a", "b", "c"]
    assert drawn.tolist() == relevance.one_recording(sentences, 0).tolist()
    first_of_a = {relevance.one_recording(sentences, seed)[0] for seed in range(30)}
    assert len(first_of_a) > 1


names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(asked=names, said=names, words=st.lists(st.sampled_from(["x", "y", "z", ""]), min_size=8, max_size=8))
def test_any_part_is_that_of_the_whole_and_every_two_that_take_part_are_right_or_wrong(asked, said, words):
    texts = words[: len(said)]
    found = relevance.relevance(rows(asked, [None] * len(asked)), rows(said, texts, "fr"), "multi_positive", 0)
    of_sentence = {s: {t for other, t in zip(said, texts, strict=True) if other == s and t} for s in asked}
    whole = np.array([[s == c or t in of_sentence[s] for c, t in zip(said, texts, strict=True)] for s in asked])
    taking_part = np.array([s in said for s in asked])[:, None] & np.array([c in asked for c in said])[None, :]
    every = slice(None)
    assert (found.hits(every, every) == (whole & taking_part)).all()
    assert (found.wrong(every, every) == (~whole & taking_part)).all()
    assert found.num_hits.tolist() == (whole & taking_part).sum(axis=1).tolist()
    columns = np.arange(len(said))[::-2]
    for row in range(len(asked)):
        part = found.hits(slice(row, row + 1), columns)
        assert (part == (whole & taking_part)[row : row + 1, columns]).all()
