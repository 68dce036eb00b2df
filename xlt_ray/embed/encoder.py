"""Whisper's encoder on batches of speech: one output vector every 20 ms."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import gelu

from xlt_ray.errors import UserError
from xlt_ray.models import whisper
from xlt_ray.models.attention import attend
from xlt_ray.models.encoder import load_encoder, log_mel, mel_filters

if TYPE_CHECKING:
    from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

FRAME_STEP = 32
"""Trimmed lengths are multiples of this, so that recordings of nearly the same length can share a batch."""

# On a CPU the states should stay in the cache: 4 x 256 frames run 3 % faster than 1 x 256, and 5 % than 12 x 256.
_BATCH_FRAMES = {"cpu": 1024, "cuda": 48_000}

_LIMIT = 65_280.0  # the largest number that float16 and bfloat16 both have

_Item = TypeVar("_Item")
FrameArray = npt.NDArray[np.float16]
Waveform = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """The frames of one recording.

    Attributes:
        final: float16 (num_frames, dim), after the last block and the final layer norm.
        num_valid: number of frames of speech; the rest is the silence after it.
        layers: hidden states of the same shape by layer: k is the output of block k, 0 the input of the first block.
            No final norm, as in `output_hidden_states` of transformers.
    """

    final: FrameArray
    num_valid: int
    layers: dict[int, FrameArray]


@dataclasses.dataclass(frozen=True, slots=True)
class _Begun:
    """A batch that is being encoded, with its pending outputs."""

    valid: list[int]
    kept: list[int]
    stored: dict[int, Tensor]  # (batch, frames, dim) float16 on the CPU
    done: torch.cuda.Event | None


class SpeechEncoder:
    """A frozen Whisper encoder.

    `exact` encodes 30 s, as in Whisper's training. `trimmed` encodes the speech and `context_margin` frames after it,
    rounded up to a multiple of 32. It is faster and slightly different, because in `exact` the speech attends to all of
    the silence. In both, the output depends only on the recording, up to rounding: recordings share a batch only if
    they have the same number of frames, so nothing is masked.

    Args:
        model_dir: Hugging Face directory.
        encoding: `exact` or `trimmed`.
        context_margin: with `trimmed`, frames of silence to encode after the speech.
        keep_margin: frames of silence to keep after the speech, if they were encoded; None: keep all.
        layers: hidden layers to keep in addition to the final one, 0 to number of blocks - 1.
        device: device to compute on.
        dtype: precision; None: float32 on a CPU, bfloat16 on a GPU (large models overflow float16).
        batch_frames: maximum number of frames in a batch of several recordings; None: a default for the device.

    Raises:
        UserError: if the encoder has no such layer.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        *,
        encoding: Literal["exact", "trimmed"] = "exact",
        context_margin: int = 100,
        keep_margin: int | None = 200,
        layers: Sequence[int] = (),
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        batch_frames: int | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._dtype = dtype or (torch.float32 if self._device.type == "cpu" else torch.bfloat16)
        self._filters = mel_filters(model_dir, self._device)
        self._model = load_encoder(model_dir, self._device, self._dtype)
        num_layers = len(self._model.layers)
        if beyond := [layer for layer in layers if not 0 <= layer < num_layers]:
            raise UserError(f"no encoder layers {beyond}; this model has 0 to {num_layers - 1}")
        self._context_margin = whisper.MAX_FRAMES if encoding == "exact" else context_margin
        self._keep_margin = whisper.MAX_FRAMES if keep_margin is None else keep_margin
        self._layers = frozenset(layers)
        self._batch_frames = batch_frames or _BATCH_FRAMES.get(self._device.type, _BATCH_FRAMES["cuda"])

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[Waveform]) -> list[Encoded]:
        """The frames of each recording, in the order of the input.

        Args:
            waveforms: float32 mono at 16 kHz, 1 to 480,000 samples each.

        Raises:
            ValueError: if one is empty or longer than 30 s.
        """
        encoded: dict[int, Encoded] = {}
        for part in self.batches(waveforms):
            encoded |= part
        return [encoded[i] for i in range(len(waveforms))]

    def batches(self, waveforms: Sequence[Waveform]) -> Iterator[dict[int, Encoded]]:
        """Yield the frames of each batch as it is computed, by the position of the recordings in the input.

        A GPU gets the next batch before the CPU copies the frames of the previous one, so it does not wait for the
        copy. Without this, a large encoder on an H100 encoded 109 recordings of 30 s per second.
        """
        begun: Iterator[tuple[list[int], _Begun]] = (
            (batch, self._begin([waveforms[i] for i in batch], num_frames))
            for num_frames, batch in self._batches([len(waveform) for waveform in waveforms])
        )
        if self._device.type == "cuda":
            begun = _one_ahead(begun)
        for batch, started in begun:
            yield dict(zip(batch, self._finish(started), strict=True))

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """(frames to encode, positions in `lengths`) of every batch: recordings of equal frames, ordered by length."""
        groups: dict[int, list[int]] = {}
        for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            groups.setdefault(self._context(lengths[i]), []).append(i)
        for num_frames, group in groups.items():
            size = max(1, self._batch_frames // num_frames)
            yield from ((num_frames, group[start : start + size]) for start in range(0, len(group), size))

    def _context(self, num_samples: int) -> int:
        wanted = whisper.valid_frames(num_samples) + self._context_margin
        return min(whisper.MAX_FRAMES, -(-wanted // FRAME_STEP) * FRAME_STEP)

    @torch.inference_mode()
    def _begin(self, waveforms: list[Waveform], num_frames: int) -> _Begun:
        """Start to encode a batch; on a GPU this only queues the work."""
        valid = [whisper.valid_frames(len(waveform)) for waveform in waveforms]
        kept = [min(num_frames, count + self._keep_margin) for count in valid]
        mel = log_mel(self._padded(waveforms), num_frames, self._filters).to(self._dtype)
        stored = {layer: self._stored(states, max(kept)) for layer, states in self._hidden_states(mel)}
        done = None
        if self._device.type == "cuda":
            done = torch.cuda.Event()
            done.record()
        return _Begun(valid, kept, stored, done)

    def _finish(self, begun: _Begun) -> list[Encoded]:
        """Wait for the frames of a batch and return them."""
        if begun.done:
            begun.done.synchronize()
        # A copy, so that the memory that the GPU writes to is free for another batch.
        frames = {k: states.numpy().copy() if begun.done else states.numpy() for k, states in begun.stored.items()}
        final = frames.pop(len(self._model.layers))
        return [
            Encoded(final[i, :count], num_valid, {k: states[i, :count] for k, states in frames.items()})
            for i, (num_valid, count) in enumerate(zip(begun.valid, begun.kept, strict=True))
        ]

    def _padded(self, waveforms: list[Waveform]) -> Tensor:
        on_gpu = self._device.type == "cuda"
        padded = torch.empty(len(waveforms), max(map(len, waveforms)), pin_memory=on_gpu)
        for row, waveform in zip(padded.numpy(), waveforms, strict=True):
            row[: len(waveform)] = waveform
            row[len(waveform) :] = 0
        return padded.to(self._device, non_blocking=on_gpu)

    def _stored(self, states: Tensor, num_frames: int) -> Tensor:
        """The first frames of each row, clipped to float16 (large models exceed its range) and on the CPU."""
        halves = states[:, :num_frames].clamp(-_LIMIT, _LIMIT).half()
        if self._device.type == "cpu":
            return halves
        return torch.empty(halves.shape, dtype=halves.dtype, pin_memory=True).copy_(halves, non_blocking=True)

    def _hidden_states(self, mel: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of blocks, states (batch, frames, dim)) of the wanted layers and the final one.

        The forward pass of transformers on its own modules, but for any length: transformers accepts only 30 s.
        """
        model = self._model
        # Contiguous, or every block adds to a transposed tensor: 4 % slower.
        states = gelu(model.conv2(gelu(model.conv1(mel)))).mT.contiguous()
        states = states + model.embed_positions.weight[: states.shape[1]]
        for k, block in enumerate(model.layers):
            if k in self._layers:
                yield k, states
            states = _block(block, states)
        yield len(model.layers), model.layer_norm(states)


def _block(block: WhisperEncoderLayer, states: Tensor) -> Tensor:
    """One block, like that of transformers, but without copies of queries, keys and values: 14 % of H100 time."""
    attention = block.self_attn
    normed = block.self_attn_layer_norm(states)
    query, key, value = (
        project(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    is_whole = states.shape[1] == whisper.MAX_FRAMES
    context = attend(query, key, value, scale=attention.scaling, shape_repeats=is_whole)
    states = states + attention.out_proj(context.transpose(1, 2).flatten(2))
    after: Tensor = states + block.fc2(block.activation_fn(block.fc1(block.final_layer_norm(states))))
    return after


def _one_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield each item after the next one has been made."""
    return (item for item, _ in itertools.pairwise(itertools.chain(items, [None])) if item is not None)
