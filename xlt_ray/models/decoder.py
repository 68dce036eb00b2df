"""Whisper's decoder without its encoder. It reads encoded frames, without padding.

Only processes that compute with it import this module, because transformers takes seconds and 100 MB.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AttentionInterface, GenerationConfig, WhisperConfig, WhisperForCausalLM

from xlt_ray.errors import UserError
from xlt_ray.models import shapes as model_shapes
from xlt_ray.models import tokens as model_tokens
from xlt_ray.models.attention import attend
from xlt_ray.models.encoder import pad_frames
from xlt_ray.models.files import full_name, given_to_transformers, read_json, weight_files
from xlt_ray.models.prompts import LANGUAGE, MAX_POSITIONS

_ATTENTION = "xlt_ray_frames"


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    num_frames: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention that sees only the first `num_frames[i]` frames of row i. Whisper in transformers can't do this.

    Tokens need no mask, because prompts are equally long, and padding is after the text, where the causal mask hides
    it.
    """
    if module.is_causal:
        context = attend(query, key, value, is_causal=query.shape[2] > 1, scale=scaling)
    else:
        seen = None
        if num_frames is not None:
            seen = (torch.arange(key.shape[2], device=key.device) < num_frames[:, None])[:, None, None]
        context = attend(query, key, value, seen, scale=scaling)
    return context.transpose(1, 2).contiguous(), None


AttentionInterface.register(_ATTENTION, _attend)


class FrameDecoder(WhisperForCausalLM):  # type: ignore[misc]
    """The Whisper decoder of transformers with two more inputs: the number of real frames, and a mix of languages."""

    def forward(
        self,
        input_ids: Tensor,
        encoder_outputs: Tensor,
        num_frames: Tensor | None = None,
        language_mix: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """Logits (batch, tokens, vocabulary) and the cache.

        Args:
            input_ids: int64 (batch, tokens).
            encoder_outputs: frames (batch, frames, dim).
            num_frames: int64 (batch,), number of real frames, without padding; None: all.
            language_mix: (batch, dim), replaces the embedding of the prompt's language; None: keep it.
            inputs: as for `WhisperForCausalLM`.
        """
        words = {"input_ids": input_ids}
        # One token is a step of generation: the prompt went before it, and lies in the cache.
        if language_mix is not None and input_ids.shape[1] > 1:
            words = {"inputs_embeds": self._mixed(input_ids, language_mix)}
        return super().forward(**words, encoder_outputs=encoder_outputs, num_frames=num_frames, **inputs)

    def _mixed(self, input_ids: Tensor, language_mix: Tensor) -> Tensor:
        embedded = self.get_input_embeddings()(input_ids)
        language = language_mix[:, None].to(embedded.dtype)
        return torch.cat([embedded[:, :LANGUAGE], language, embedded[:, LANGUAGE + 1 :]], dim=1)

    def hidden_states(self, input_ids: Tensor, frames: Tensor, num_frames: Tensor | None) -> Tensor:
        """The states (batch, tokens, dim) that `proj_out` turns into logits, of which a caller may need only some."""
        states: Tensor = self.model.decoder(
            input_ids=input_ids, encoder_hidden_states=frames, num_frames=num_frames, use_cache=False
        )[0]
        return states


def empty_decoder(model_dir: str | os.PathLike[str]) -> FrameDecoder:
    """The decoder of a model with shapes and names only, without values or memory."""
    with given_to_transformers(Path(model_dir) / "config.json"), torch.device("meta"):
        config = WhisperConfig.from_pretrained(model_dir)
        # Set here, because one that the file names wins over an argument, and would see the padding.
        config._attn_implementation = _ATTENTION
        config.dtype = torch.float32
        return FrameDecoder(config)


def load_decoder(model_dir: str | os.PathLike[str], device: str | torch.device = "cpu") -> FrameDecoder:
    """The decoder of a model in float32 and eval mode. The weights of the encoder are not read."""
    decoder = empty_decoder(model_dir)
    set_weights(decoder, read_weights(model_dir, device))
    with given_to_transformers(Path(model_dir) / "generation_config.json"):
        decoder.generation_config = GenerationConfig.from_dict(model_tokens.generation(Path(model_dir)))
    decoder.eval()
    return decoder


def set_weights(decoder: FrameDecoder, weights: Mapping[str, Tensor]) -> None:
    """Set all weights of a decoder. A tied output layer is left out.

    Raises:
        UserError: if a weight is missing or unknown.
    """
    is_tied = model_shapes.is_tied({"tie_word_embeddings": decoder.config.tie_word_embeddings})
    left_out = {model_shapes.OUTPUT} if is_tied else set()
    wrong = (weights.keys() | left_out) ^ decoder.state_dict().keys()
    if wrong:
        raise UserError(f"not the weights of this decoder: {', '.join(sorted(wrong)[:3])} on one side alone")
    decoder.load_state_dict(weights, assign=True, strict=not is_tied)
    decoder.tie_weights()


def read_weights(model_dir: str | os.PathLike[str], device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The decoder's weights in float32 by their names in transformers, `model.decoder.layers.0.fc1.weight`.

    The output layer, `proj_out.weight`, is included only if it is not tied to the token embedding.
    """
    has_output = not model_shapes.is_tied(read_json(Path(model_dir) / "config.json"))
    state: dict[str, Tensor] = {}
    for path in weight_files(Path(model_dir)):
        with safe_open(path, framework="pt", device=str(device)) as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no dictionary
                full = full_name(name)
                if full.startswith("model.decoder.") or (has_output and full == model_shapes.OUTPUT):
                    state[full] = weights.get_tensor(name).float()
    return state


@torch.inference_mode()
def language_probabilities(
    decoder: FrameDecoder, frames: Sequence[npt.NDArray[np.float16]], hidden: Collection[int] = ()
) -> Tensor:
    """The spoken language by Whisper's own detection: the probabilities of the token after the start token.

    Args:
        decoder: from `load_decoder`.
        frames: fp16 (num_frames, dim) of each recording.
        hidden: language tokens to exclude, as if the model did not have them.

    Returns:
        float32 (batch, vocabulary): the softmax over the language tokens that are not hidden, 0 for all other tokens.

    Raises:
        ValueError: if all are hidden.
    """
    padded, lengths = pad_frames(frames, decoder.device)
    config = decoder.generation_config
    seen = [token for token in config.lang_to_id.values() if token not in hidden]
    if not seen:
        raise ValueError("every language is hidden, so none can be detected")
    start = torch.full((len(frames), 1), config.decoder_start_token_id, device=decoder.device)
    with torch.autocast("cuda", torch.bfloat16, enabled=decoder.device.type == "cuda"):
        logits = decoder(start, padded, lengths, use_cache=False).logits[:, -1]
    probabilities = torch.zeros_like(logits, dtype=torch.float32)
    probabilities[:, seen] = logits[:, seen].float().softmax(dim=-1)
    return probabilities


@torch.inference_mode()
def generate(
    decoder: FrameDecoder,
    frames: Sequence[npt.NDArray[np.float16]],
    prompts: Sequence[Sequence[int]],
    *,
    num_beams: int = 1,
    max_tokens: int = 224,
    languages: Tensor | None = None,
) -> list[list[int]]:
    """Decode recordings greedily or by beam search, on a GPU in bfloat16.

    Args:
        decoder: from `load_decoder`.
        frames: fp16 (num_frames, dim) of each recording.
        prompts: one prompt per recording, all of the same length.
        num_beams: beam size; 1 is greedy.
        max_tokens: maximum number of tokens per hypothesis.
        languages: float32 (batch, vocabulary), weights of language tokens for each recording; the mean of their
            embeddings takes the place of the language in its prompt (arXiv 2412.16474). None: prompts stay as they are.

    Returns:
        The tokens of each hypothesis, without the prompt and the end token.
    """
    padded, lengths = pad_frames(frames, decoder.device)
    ids = torch.tensor(prompts, device=decoder.device)
    mix = None if languages is None else languages @ decoder.get_input_embeddings().weight
    # Weights stay float32: bfloat16 ones would lose most of what a small learning rate has changed.
    with torch.autocast("cuda", torch.bfloat16, enabled=decoder.device.type == "cuda"):
        out = decoder.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            encoder_outputs=padded,
            num_frames=lengths,
            language_mix=mix,
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=min(max_tokens, MAX_POSITIONS - ids.shape[1]),
            max_length=None,
        )
    end = decoder.generation_config.eos_token_id
    return [list(itertools.takewhile(lambda token: token != end, row[ids.shape[1] :])) for row in out.tolist()]


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Weights on the line between two models: start + alpha (end - start); 0 is the first, 1 the second.

    Raises:
        ValueError: if the two do not have the same weights.
    """
    if {name: w.shape for name, w in start.items()} != {name: w.shape for name, w in end.items()}:
        raise ValueError("the two models do not have the same weights and can't be interpolated")
    return {name: torch.lerp(weight, end[name], alpha) for name, weight in start.items()}
