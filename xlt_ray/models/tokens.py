"""The tokens of a model: reads its vocabulary and the ids of prompts, and checks that they agree.

Whisper large-v3 has one more language than earlier models, so all ids after it are one higher. With the tokenizer of
another model, a prompt would silently ask for something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from xlt_ray.errors import UserError
from xlt_ray.models.files import COPY, read_json

END, START, NO_TIMESTAMPS = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
TASKS = ("transcribe", "translate")

_NEEDED = (END, START, NO_TIMESTAMPS, *(f"<|{task}|>" for task in TASKS))
_NAMED = {"decoder_start_token_id": START, "eos_token_id": END, "no_timestamps_token_id": NO_TIMESTAMPS}
_PREVIOUS = "<|startofprev|>"
_SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")
_NUM_TIMESTAMPS = 1501  # 0.00 to 30.00 s; older tokenizers leave them out, the weights never do
_PUBLISHED = (51_864, 51_865, 51_866)  # vocabularies of the English-only models, of most others, and since large-v3
_UNMERGED = 1  # of the 50,000 tokens of more than one letter of the multilingual models
_PADDING = 8  # the end of a vocabulary may be padded to a multiple of it
_END_IDS = {50_256: True, 50_257: False}  # of the published models: whether they are English-only


def vocabulary(model_dir: Path) -> dict[str, int]:
    """Every token of a model with its id, from its tokenizer.

    Raises:
        UserError: if it is not a Whisper tokenizer.
    """
    tokens = _fast(model_dir / "tokenizer.json") if (model_dir / "tokenizer.json").is_file() else _slow(model_dir)
    if missing := [token for token in _NEEDED if token not in tokens]:
        raise UserError(f"the tokenizer in {model_dir} has no {missing[0]}: it is not that of a Whisper; {COPY}")
    return tokens


def _fast(path: Path) -> dict[str, int]:
    read_json(path)
    try:
        return dict(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True))
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{path} is no tokenizer ({error}); {COPY}") from None


def _slow(model_dir: Path) -> dict[str, int]:
    tokens = read_json(model_dir / "vocab.json")
    _require_merges(model_dir / "merges.txt", tokens)
    if (model_dir / "added_tokens.json").is_file():
        tokens |= read_json(model_dir / "added_tokens.json")
    if (model_dir / "tokenizer_config.json").is_file():
        added = read_json(model_dir / "tokenizer_config.json").get("added_tokens_decoder", {})
        try:
            tokens |= {token["content"]: int(id_) for id_, token in added.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{model_dir / 'tokenizer_config.json'} adds tokens without ids; {COPY}") from None
    if not _are_ids(tokens):
        raise UserError(f"{model_dir / 'vocab.json'} and the tokens added to it have ids that are no numbers; {COPY}")
    return tokens


def _are_ids(value: object) -> bool:
    """Whether a value is an object of numbers."""
    return isinstance(value, dict) and all(isinstance(id_, int) for id_ in value.values())


def _require_merges(path: Path, tokens: Mapping[str, int]) -> None:
    """Refuse missing merges, which make tokens of several letters: a text would silently get other tokens."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}); {COPY}") from error
    merges = sum(bool(line.strip()) and not line.startswith("#version") for line in lines)
    joined = sum(len(token) > 1 and not token.startswith("<|") for token in tokens)
    if merges < joined - _UNMERGED:
        raise UserError(f"{path} has {merges:,} merges and vocab.json needs {joined:,}; {COPY}")


def languages(tokens: Mapping[str, int]) -> dict[str, int]:
    """The language tokens with their ids."""
    return {token: id_ for token, id_ in tokens.items() if _LANGUAGE.fullmatch(token)}


def is_english_only(tokens: Mapping[str, int], generation: Mapping[str, Any]) -> bool:
    """Whether a model was trained without language tokens.

    The vocabulary shows it: it has language tokens anyway, but their ids start one earlier. generation_config is only
    used if the vocabulary does not decide, because it may lack `is_multilingual`.
    """
    return _END_IDS.get(tokens[END], generation.get("is_multilingual") is False)


def generation(model_dir: Path) -> dict[str, Any]:
    """The generation config, completed from the tokenizer if it is too old to have ids of languages and tasks.

    Raises:
        UserError: if the tokenizer does not have them either.
    """
    settings = read_json(model_dir / "generation_config.json")
    if not all(settings.get(name) for name in ("is_multilingual", "lang_to_id", "task_to_id", *_NAMED)):
        settings = completed(settings, vocabulary(model_dir), model_dir)
    if isinstance(settings["eos_token_id"], list):
        settings["eos_token_id"] = settings["eos_token_id"][0]  # a list of one, or the tokens were refused
    return settings


def completed(settings: Mapping[str, Any], tokens: Mapping[str, int], model_dir: Path) -> dict[str, Any]:
    """Generation settings with every id that prompts need; existing ids are kept.

    Raises:
        UserError: if a multilingual model has no language tokens.
    """
    _require_ids(settings, model_dir)
    ids: dict[str, Any] = {name: tokens[token] for name, token in _NAMED.items()}
    if _PREVIOUS in tokens:
        ids["prev_sot_token_id"] = tokens[_PREVIOUS]
    ids["is_multilingual"] = not is_english_only(tokens, settings)
    given = {name: value for name, value in settings.items() if value is not None and name != "is_multilingual"}
    if not ids["is_multilingual"]:
        return dict(settings) | ids | given
    ids |= {"lang_to_id": languages(tokens), "task_to_id": {task: tokens[f"<|{task}|>"] for task in TASKS}}
    if not (given.get("lang_to_id") or ids["lang_to_id"]):
        raise UserError(
            f"{model_dir / 'generation_config.json'} is outdated (no lang_to_id), and the tokenizer has no languages; "
            "copy it from a newer version of the model, or from the model of the same size by openai"
        )
    return dict(settings) | ids | given


def _require_ids(settings: Mapping[str, Any], model_dir: Path) -> None:
    """Check that the ids in the generation settings are numbers, lists of numbers, or objects of numbers."""
    for name in (*_NAMED, "prev_sot_token_id", *_SUPPRESSED):
        value = settings.get(name)
        several = value if isinstance(value, list) and (value or name in _SUPPRESSED) else [value]
        if not all(isinstance(id_, int) for id_ in several) and value is not None:
            raise UserError(f"{model_dir}: {name} is {value!r} in the settings of generation, and no id; {COPY}")
    for name in ("lang_to_id", "task_to_id"):
        if settings.get(name) and not _are_ids(settings[name]):
            raise UserError(f"{model_dir}: {name} in the settings of generation is no object of ids; {COPY}")


def require_tokens(tokens: Mapping[str, int], settings: Mapping[str, Any], vocab_size: int, model_dir: Path) -> None:
    """Check that tokenizer, generation ids and weights belong to the same model.

    Args:
        tokens: of the tokenizer.
        settings: generation settings, as stored or completed.
        vocab_size: rows of the token embedding.
        model_dir: directory to name in the error.

    Raises:
        UserError: with the ids that differ.
    """
    size = max(tokens[NO_TIMESTAMPS] + _NUM_TIMESTAMPS, max(tokens.values())) + 1
    is_padded = size < vocab_size and vocab_size % _PADDING == 0 and vocab_size not in _PUBLISHED
    if size != vocab_size and not is_padded:
        raise UserError(
            f"the tokenizer in {model_dir} is of a model with {size:,} tokens and the weights have {vocab_size:,}, so "
            "prompts would use wrong tokens; copy the tokenizer from the same model as the weights"
        )
    for token, id_ in _named(settings):
        if tokens.get(token) != id_:
            raise UserError(
                f"{model_dir}: the id of {token} is {id_} in generation_config.json and {tokens.get(token)} in the "
                "tokenizer; copy both from the same model as the weights"
            )
    for name in _SUPPRESSED:
        if beyond := [id_ for id_ in settings.get(name) or () if not -1 <= id_ < vocab_size]:
            raise UserError(f"{model_dir}: {name} has {beyond[0]}, and the weights have {vocab_size:,} tokens; {COPY}")


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every token with an id in the generation settings."""
    for name, token in {**_NAMED, "prev_sot_token_id": _PREVIOUS}.items():
        ids = settings.get(name)
        yield from ((token, id_) for id_ in (ids if isinstance(ids, list) else [ids]) if id_ is not None)
    yield from (settings.get("lang_to_id") or {}).items()
    yield from ((f"<|{task}|>", id_) for task, id_ in (settings.get("task_to_id") or {}).items())
