"""Normalises text to one Unicode form, so that equal sentences are equal strings, also for BLEU."""

from __future__ import annotations

import dataclasses
import unicodedata

from xlt_ray.store.schema import Utterance


def composed(row: Utterance) -> Utterance:
    """The row with text and translations in NFC; macOS and some editors write accents as separate characters."""
    texts = (*row.translations.values(), row.text or "")
    if all(unicodedata.is_normalized("NFC", text) for text in texts):
        return row
    translations = {code: unicodedata.normalize("NFC", text) for code, text in row.translations.items()}
    text = None if row.text is None else unicodedata.normalize("NFC", row.text)
    return dataclasses.replace(row, text=text, translations=translations)
