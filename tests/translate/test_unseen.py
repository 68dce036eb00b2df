"""What stands for a language without a token; and the preset, on the code tables of FLEURS and of transformers."""

import pytest
from tiny import CODES

from xlt_ray.corpora import fleurs
from xlt_ray.errors import UserError
from xlt_ray.job import cli
from xlt_ray.presets import PRESETS
from xlt_ray.translate import plan
from xlt_ray.translate.config import TranslateJob
from xlt_ray.translate.unseen import RELATED, spoken

PAPER = {"kea", "ast", "ceb", "ky", "ckb", "ga"}


@pytest.mark.parametrize(
    ("language", "source_prompt", "expected"),
    [
        ("fr", None, "fr"),
        ("fr", "auto", None),
        ("kea", "soft", None),
        ("kea", "es", "es"),
        ("kea", "related", "pt"),
        ("kea_CV", "related", "pt"),
    ],
)
def test_what_the_prompt_says_is_spoken(language, source_prompt, expected):
    assert spoken(language, source_prompt) == expected


def test_a_language_without_known_relative_is_refused():
    with pytest.raises(UserError, match=r"no related language is known for 'fr', only for kea .* name one with"):
        spoken("fr", "related")


def test_every_relative_has_a_token_and_is_another_language():
    assert set(RELATED.values()) <= set(CODES)
    assert all(language != relative for language, relative in RELATED.items())


def test_the_preset_is_of_the_papers_languages_and_of_controls():
    job = cli.parse(TranslateJob, ["--preset", "unseen"], PRESETS)
    assert {code for code in job.languages if code not in CODES} == PAPER
    assert set(job.languages) == set(RELATED)
    assert set(job.languages) <= set(fleurs.CODES.values())
    assert "en" in job.languages  # else the corpus is read without English, and nothing has a reference
    assert [run.name for run in plan.runs(job)] == ["unseen-auto", "unseen-related", "unseen-en", "unseen-soft"]
