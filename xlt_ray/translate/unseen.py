"""What a prompt says is spoken, where Whisper has no token for the language that is (arXiv 2407.01130)."""

from __future__ import annotations

from xlt_ray.errors import UserError
from xlt_ray.store.schema import language_of
from xlt_ray.translate.config import TranslateConfig

RELATED = {
    "kea": "pt",  # Kabuverdianu: a creole, most of its words are Portuguese
    "ast": "es",  # Asturian: Ibero-Romance
    "ceb": "tl",  # Cebuano: Central Philippine, as Tagalog
    "ky": "kk",  # Kyrgyz: Kipchak Turkic, as Kazakh
    "ckb": "fa",  # Sorani Kurdish: Western Iranian, as Persian
    "ga": "cy",  # Irish: Celtic, of which Whisper knows Welsh and Breton
    "sw": "sn",  # Swahili: Bantu, as Shona
    "tr": "az",  # Turkish: Oghuz Turkic, as Azerbaijani
    "vi": "km",  # Vietnamese: Austroasiatic, as Khmer
    "en": "nl",  # English: West Germanic, as Dutch
}
"""For the languages of the preset `unseen`, a relative that has a token.

The choice is this project's, by family: what the paper took could not be had. The last four have tokens of their own;
they are controls, which say what is lost where a neighbour, rather than the language itself, stands in the prompt.
"""


def spoken(language: str, source_prompt: str | None) -> str | None:
    """The language that the prompt says is spoken, or None where Whisper detects it for each recording.

    Args:
        language: code of the language that is spoken.
        source_prompt: as `--translate.source-prompt`.

    Raises:
        UserError: if a related language is asked for and the table has none.
    """
    if source_prompt in TranslateConfig.DETECTED:
        return None
    if source_prompt != "related":
        return source_prompt or language
    if language_of(language) not in RELATED:
        raise UserError(
            f"source prompt 'related': no related language is known for {language!r}, only for {' '.join(RELATED)}; "
            "name one with --translate.source-prompt CODE"
        )
    return RELATED[language_of(language)]
