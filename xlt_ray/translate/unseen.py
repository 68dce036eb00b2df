"""What a prompt says is spoken, where Whisper has no token for the language that is (arXiv 2407.01130)."""

from __future__ import annotations

from xlt_ray import languages
from xlt_ray.errors import UserError
from xlt_ray.translate.config import TranslateConfig


def spoken(language: str, source_prompt: str | None) -> str | None:
    """The language that the prompt says is spoken, or None where Whisper detects it for each recording.

    Args:
        language: code of the language that is spoken.
        source_prompt: as `--translate.source-prompt`.

    Raises:
        UserError: if a related language is asked for and none is known.
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
    """A language with a token that may stand for another: of its family, else the typologically nearest.

    The choice is this project's: what the paper took could not be had. `sw`, `tr`, `vi` and `en`, which have tokens of
    their own, have one too: they are controls of the preset `unseen`, and say what is lost where a neighbour, rather
    than the language itself, stands in the prompt.

    Returns:
        None where none is known.
    """
    known = languages.find(language)
    if known is None:
        return None
    return known.related or (known.typology.nearest if known.typology else None)
