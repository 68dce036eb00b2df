"""Exports a fine-tuned model: Hugging Face directory, model card, and CTranslate2 for faster-whisper.

Training changes only the decoder, so a tuned model is the base model with another decoder.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from xlt_ray.errors import UserError
from xlt_ray.languages import Direction
from xlt_ray.models.files import read_json
from xlt_ray.models.prompts import Prompter, Scheme
from xlt_ray.models.shapes import OUTPUT, is_tied
from xlt_ray.models.write import read_weights, write_model
from xlt_ray.store.cache import whole_or_nothing

if TYPE_CHECKING:
    from torch import Tensor

_USE = """\
import soundfile
from transformers import WhisperForConditionalGeneration, WhisperProcessor

model_dir = "."  # where this file lies, or the name of the model on the Hub
processor = WhisperProcessor.from_pretrained(model_dir)
model = WhisperForConditionalGeneration.from_pretrained(model_dir)
sound, rate = soundfile.read("speech.wav", dtype="float32")  # one channel, 16 kHz, up to 30 s
features = processor(sound, sampling_rate=rate, return_tensors="pt").input_features
tokens = model.generate(features, language="{language}", task="{task}")
print(processor.decode(tokens[0], skip_special_tokens=True))
"""


def save_model(folder: Path, base_dir: Path, decoder: Mapping[str, Tensor]) -> None:
    """Write a tuned model as a Hugging Face directory, in shards of at most 5 GB.

    Every weight keeps its precision: the encoder is stored as in the base, often in float16, and the decoder as it was
    trained. Rounding the decoder to float16 would lose part of the training: after an update of 1e-5, 45% of the
    weights of Whisper base would have their old value.

    The base is mapped into memory, so only `decoder` takes memory.

    Args:
        folder: created if needed; existing weights are replaced.
        base_dir: Hugging Face directory of the model that was tuned. Its files of settings and tokenizer are copied.
        decoder: every weight of the decoder, with LoRA merged, by its name in transformers, such as
            `model.decoder.layers.0.fc1.weight`. The output layer, `proj_out.weight`, is included only if the base does
            not tie it to the token embedding.

    Raises:
        ValueError: if names and shapes of `decoder` differ from the base.
    """
    base = read_weights(base_dir)
    own = {OUTPUT} if not is_tied(read_json(base_dir / "config.json")) else set()
    tuned = {name: weight for name, weight in base.items() if name in own or name.startswith("model.decoder.")}
    _require_alike(decoder, tuned)
    encoder = {name: weight for name, weight in base.items() if name.startswith("model.encoder.")}
    write_model(folder, base_dir, {**encoder, **decoder})


def _require_alike(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    faults = [f"{name} is missing" for name in sorted(expected.keys() - given.keys())]
    faults += [f"{name} is unknown" for name in sorted(given.keys() - expected.keys())]
    for name in sorted(expected.keys() & given.keys()):
        if given[name].shape != expected[name].shape:
            faults.append(f"{name} is {tuple(given[name].shape)}, not {tuple(expected[name].shape)}")
    if faults:
        raise ValueError(f"not the decoder of the base model: {', '.join(faults)}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A score of one direction on one split of the corpus: `bleu` of `fr-zh` on `test`."""

    direction: str
    name: str
    value: float
    split: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """The content of the model card. The card leaves out empty values."""

    name: str
    base_model: str
    """The value of `--model`; if it is a Hub id, the Hub links the two models."""
    directions: tuple[str, ...]
    """The learned directions: `en-zh`."""
    scheme: Scheme
    frozen: tuple[str, ...]
    """Parts that training did not change: `encoder`."""
    hyperparameters: Mapping[str, str | int | float | bool]
    corpus: str
    num_examples: int | None = None
    attribution: str | None = None
    """The attribution that the licence of the corpus requires."""
    metrics: tuple[Metric, ...] = ()
    """Scores on the same corpus."""
    limits: tuple[str, ...] = ()
    """What was not measured."""
    commit: str | None = None
    """Commit of xlt_ray."""


def model_card(card: Card, model_dir: Path) -> str:
    """The text of README.md: metadata for the Hub, with the scores as model-index, and the same as text.

    Args:
        card: content of the card.
        model_dir: Hugging Face directory of the tuned model or of its base, whose tokens are used in the prompts.

    Raises:
        UserError: if a direction has no prompt in the tokens of the model.
    """
    prompts = _prompts(card, model_dir)
    sections = [
        _introduction(card),
        _usage(prompts),
        _list("Training", _training(card)),
        _results(card.metrics),
        _list("What was not measured", card.limits),
    ]
    text = "\n".join(filter(None, sections))
    return str(ModelCard(f"---\n{_metadata(card).to_yaml()}\n---\n\n{text}"))


def _metadata(card: Card) -> ModelCardData:
    spoken = sorted({code for text in card.directions for code in text.split("-")})
    is_hub_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", card.base_model) and not Path(card.base_model).is_dir()
    scores = [
        EvalResult(
            task_type="automatic-speech-recognition",  # where the Hub files all that turns speech into text
            task_name="Speech translation",
            dataset_type=card.corpus,
            dataset_name=card.corpus,
            dataset_config=metric.direction,
            dataset_split=metric.split,
            metric_type=metric.name,
            metric_name=metric.name,
            metric_value=metric.value,
        )
        for metric in card.metrics
    ]
    return ModelCardData(
        language=spoken,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        tags=["whisper", "speech-translation"],
        base_model=card.base_model if is_hub_id else None,
        model_name=card.name,
        eval_results=scores or None,
    )


def _prompts(card: Card, model_dir: Path) -> dict[str, list[str]]:
    """The tokens of the prompt of every direction on the card: start, language, task, no timestamps."""
    from transformers import WhisperTokenizer

    prompter, tokenizer = Prompter(model_dir), WhisperTokenizer.from_pretrained(model_dir)
    directions = [*card.directions, *(metric.direction for metric in card.metrics)]
    ids = {text: prompter.prompt(Direction.parse(text), card.scheme) for text in directions}
    return {text: tokenizer.convert_ids_to_tokens(prompt) for text, prompt in ids.items()}


def _introduction(card: Card) -> str:
    examples = "" if card.num_examples is None else f"{card.num_examples} examples of "
    learnt = f"Whisper `{card.base_model}`, fine-tuned on {examples}`{card.corpus}` for {', '.join(card.directions)}."
    return "\n".join([f"# {card.name}\n", learnt, *([f"\n{card.attribution}"] if card.attribution else []), ""])


def _usage(prompts: dict[str, list[str]]) -> str:
    direction, (_, language, task, _) = next(iter(prompts.items()))
    code = _USE.format(language=language.strip("<|>"), task=task.strip("<|>"))
    lines = [f"- {text}: `{''.join(prompt)}`" for text, prompt in prompts.items()]
    meaning = "`language` and `task` only choose two tokens of the prompt. That of each direction:\n"
    return "\n".join([f"## How to use it\n\nFor {direction}:\n\n```python\n{code}```\n", meaning, *lines, ""])


def _training(card: Card) -> Iterator[str]:
    yield f"prompt scheme: `{card.scheme}`"
    yield f"frozen: {', '.join(card.frozen) or 'nothing'}"
    yield from (f"{name}: {value}" for name, value in card.hyperparameters.items())
    if card.commit:
        yield f"commit of xlt_ray: `{card.commit}`"


def _results(metrics: Iterable[Metric]) -> str:
    rows = [f"| {score.direction} | {score.split} | {score.name} | {score.value:.4g} |" for score in metrics]
    head = ["## Results\n", "| direction | split | metric | value |", "|---|---|---|---:|"]
    return "\n".join([*head, *rows, ""]) if rows else ""


def _list(title: str, items: Iterable[str]) -> str:
    lines = [f"- {item}" for item in items]
    return "\n".join([f"## {title}\n", *lines, ""]) if lines else ""


def to_ctranslate2(model_dir: Path, folder: Path, quantization: str = "float16") -> None:
    """Write a Hugging Face directory in the CTranslate2 format, for faster-whisper.

    The default is that of published faster-whisper models: float16, half the size of float32, which works with every
    `compute_type`. Only `float32` keeps all bits of a tuned decoder.

    Args:
        model_dir: Hugging Face directory.
        folder: a new directory; it appears whole or not at all.
        quantization: stored type of the weights, a type of CTranslate2.

    Raises:
        UserError: if ctranslate2 is not installed, `folder` already exists, or there is no such quantization.
    """
    try:
        from ctranslate2 import converters, specs  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise UserError(f'CTranslate2 needs the package {error.name}: pip install "xlt_ray[ctranslate2]"') from None
    if quantization not in (known := specs.model_spec.ACCEPTED_MODEL_TYPES):
        raise UserError(f"no quantization {quantization!r}; choose one of {', '.join(known)}")
    if folder.exists():
        raise UserError(f"{str(folder)!r} already exists; give a new directory or remove it")
    # Rounded while it is loaded, a float16 model takes half the memory; the numbers are the same.
    converter = converters.TransformersConverter(str(model_dir), load_as_float16=quantization == "float16")

    def write(partial: Path) -> None:
        converter.convert(str(partial), quantization=quantization, force=True)
        _save_processor(model_dir, partial)

    whole_or_nothing(folder, write)


def _save_processor(model_dir: Path, folder: Path) -> None:
    """tokenizer.json and preprocessor_config.json, which a Hugging Face directory may hold under other names."""
    from transformers import WhisperProcessor

    processor = WhisperProcessor.from_pretrained(model_dir)
    processor.feature_extractor.save_pretrained(folder)
    processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    # The tokenizer would be saved in a form that older readers do not know.
    if (original := model_dir / "tokenizer.json").is_file():
        shutil.copyfile(original, folder / "tokenizer.json")
