"""What stands for a language without a token; and the preset, on the code tables of FLEURS and of transformers."""

import pytest
from tiny import CODES

from xlt_ray import languages
from xlt_ray.corpora import fleurs
from xlt_ray.errors import UserError
from xlt_ray.job import cli
from xlt_ray.presets import PRESETS
from xlt_ray.translate import plan
from xlt_ray.translate.config import TranslateJob
from xlt_ray.translate.unseen import related, spoken

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
        ("wo", "related", "th"),  # no language with a token is of its branch: the nearest by its features
        ("sw", "related", "sn"),
    ],
)
def test_what_the_prompt_says_is_spoken(language, source_prompt, expected):
    assert spoken(language, source_prompt) == expected


def test_a_language_without_known_relative_is_refused():
    for language in ("fr", "gsw"):
        with pytest.raises(UserError, match=rf"no related language is known for '{language}'; name one with"):
            spoken(language, "related")


def test_every_language_without_token_has_a_relative_with_one():
    found = {code: related(code) for code in languages.LANGUAGES}
    assert {code for code, relative in found.items() if relative is None} <= set(CODES) | {"yue"}
    assert {relative for relative in found.values() if relative} <= set(CODES)
    assert all(code != relative for code, relative in found.items())


def test_the_preset_is_of_the_papers_languages_and_of_controls():
    job = cli.parse(TranslateJob, ["--preset", "unseen"], PRESETS)
    assert {code for code in job.languages if code not in CODES} == PAPER
    assert all(related(code) for code in job.languages)
    assert set(job.languages) <= set(fleurs.CODES.values())
    assert "en" in job.languages  # else the corpus is read without English, and nothing has a reference
    assert [run.name for run in plan.runs(job)] == ["unseen-auto", "unseen-related", "unseen-en", "unseen-soft"]


def test_the_wide_preset_is_of_all_languages_of_fleurs_without_token_and_of_the_same_controls():
    narrow, wide = (cli.parse(TranslateJob, ["--preset", name], PRESETS) for name in ("unseen", "unseen_wide"))
    without_token = {code for code in fleurs.CODES.values() if code not in {*CODES, "yue"}}
    assert {code for code in wide.languages if code not in CODES} == without_token
    assert len(without_token) == 19
    assert set(wide.languages) - without_token == set(narrow.languages) - PAPER
    assert [run.name.split("-")[1] for run in plan.runs(wide)] == ["auto", "related", "en", "soft"]
    assert all(related(code) for code in wide.languages)
