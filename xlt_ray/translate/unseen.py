"""The source language in the prompt, for languages without a Whisper token (arXiv 2407.01130)."""

from __future__ import annotations

from xlt_ray import languages
from xlt_ray.errors import UserError
from xlt_ray.translate.config import TranslateConfig


def spoken(language: str, source_prompt: str | None) -> str | None:
    """The source language in the prompt, or None if Whisper detects it for each recording.

    Args:
        language: code of the source language.
        source_prompt: as `--translate.source-prompt`.

    Raises:
        UserError: if no related language is known.
    """
    if source_prompt in TranslateConfig.DETECTED:
        return None
    if source_prompt != "related":
        return source_prompt or language
    if (code := related(language)) is None:
        raise UserError(
            f"source prompt 'related': no related language is known for {language!r}; name one with "
            "--translate.source-prompt CODE"
        )
    return code


def related(language: str) -> str | None:
    """A language with a token to use in place of another: one of its family, else the typologically nearest.

    The choice is this project's, because the paper's was not available. `sw`, `tr`, `vi` and `en`, which have tokens of
    their own, have related languages too: they are controls of the preset `unseen`, and show the loss if the prompt
    names a related language instead of the language itself.

    Returns:
        None if none is known.
    """
    known = languages.find(language)
    if known is None:
        return None
    return known.related or (known.typology.nearest if known.typology else None)
