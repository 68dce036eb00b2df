"""Every reader on the same miniature: 12 sentences, three languages, one wave each, known to the sample."""

import numpy as np
import pytest
from trees import SENTENCES, SPOKEN, TREES, speech_like, split_of

from xlt_ray import corpora
from xlt_ray.corpora import audio, doctor
from xlt_ray.errors import UserError


@pytest.fixture(scope="module", params=TREES)
def spec(request, tmp_path_factory):
    return TREES[request.param](tmp_path_factory.mktemp("tree") / "root")


def number_of(row):
    return next(i for i, texts in enumerate(SENTENCES) if texts[row.language] == row.text)


def test_rows_say_what_is_spoken(spec):
    rows = list(corpora.read(spec, SPOKEN, None))
    assert [row.language for row in rows] == [code for code in SPOKEN for _ in SENTENCES]
    assert len({row.utterance_id for row in rows}) == len(rows)
    for row in rows:
        texts = SENTENCES[number_of(row)]
        assert row.translations == {code: text for code, text in texts.items() if code != row.language}
        assert row.split == split_of(number_of(row))
        assert row.speaker
    assert {(row.language, number_of(row)) for row in rows} == {(c, i) for c in SPOKEN for i in range(len(SENTENCES))}


def test_the_same_sentence_has_the_same_id_in_all_languages(spec):
    rows = list(corpora.read(spec, SPOKEN, None))
    assert len({row.sentence_id for row in rows}) == len(SENTENCES)
    assert len({(row.sentence_id, number_of(row)) for row in rows}) == len(SENTENCES)


@pytest.mark.parametrize(("split", "num"), [("train", 6), ("dev", 3), ("test", 3)])
def test_splits(spec, split, num):
    rows = list(corpora.read(spec, ["fr", "en"], split))
    assert [row.language for row in rows] == ["fr"] * num + ["en"] * num
    assert {row.split for row in rows} == {split}
    with pytest.raises(UserError, match=r"no fr rows of split 'other'; it has .*dev.*, test.*, train"):
        list(corpora.read(spec, ["fr"], "other"))


def test_every_row_leads_to_its_sound(spec):
    rows = sorted(corpora.read(spec, SPOKEN, None), key=lambda row: row.sentence_id)
    places = [audio.Place(row.audio, row.member, row.start, row.duration) for row in rows]
    for row, place, found in zip(rows, places, audio.read_recordings(places), strict=True):
        pcm, wave = audio.decode(found, place.name), speech_like(row.language, number_of(row))
        assert pcm.shape == wave.shape
        assert np.abs(pcm - wave).max() <= 2**-15


def test_the_doctor_finds_nothing(spec):
    result = doctor.check(corpora.read_as_written(spec, SPOKEN, None))
    assert result.problems == []
    assert {code: total.num_rows for code, total in result.totals.items()} == dict.fromkeys(SPOKEN, len(SENTENCES))


def test_a_language_that_is_not_there(spec):
    with pytest.raises(UserError, match=r"no (language|rows of language) 'ja'.* de, en, fr"):
        list(corpora.read(spec, ["ja"], None))
