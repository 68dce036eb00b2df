"""Writes hypotheses from frames: whose weights, in which batches. Pure torch, no Ray."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from xlt_ray import shards, storage
from xlt_ray.artifacts import Artifact
from xlt_ray.decoder import FrameDecoder, Prompter, Scheme, generate, interpolate, load_decoder, read_weights
from xlt_ray.schema import HYPOTHESIS, Direction


def local_model(checkpoint: Artifact) -> Path:
    """The Hugging Face directory of a finetune artifact on this machine.

    Files of a remote root are copied once to the user's cache, under the hash of the manifest: a checkpoint that was
    trained again under its old name is another one.
    """
    if not storage.is_remote(checkpoint.uri):
        return Path(checkpoint.path("model"))
    manifest = storage.read_bytes(checkpoint.path("manifest.json"))
    files = [entry["path"] for entry in json.loads(manifest)["others"] if entry["path"].startswith("model/")]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlt_ray" / "checkpoints"
    folder = cache / hashlib.sha256(manifest).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            for path in files:
                _copy(checkpoint.path(path), partial / path.removeprefix("model/"))
            partial.rename(folder)
    return folder


def _copy(uri: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    filesystem, place = storage.locate(uri)
    with filesystem.open_input_stream(place, compression=None) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 24)  # 16 MB at a time: weights need not fit in memory


def load(model_dir: Path, checkpoint_dir: Path | None, alpha: float, device: str) -> FrameDecoder:
    """The decoder on the line from a model to a checkpoint, in float32.

    Args:
        model_dir: Hugging Face directory of the model.
        checkpoint_dir: that of the model tuned from it; None: the model itself.
        alpha: 0 is the model, 1 the checkpoint.
        device: `cpu` or `cuda`.
    """
    decoder = load_decoder(checkpoint_dir or model_dir, device)
    if checkpoint_dir is not None and alpha != 1.0:
        between = interpolate(read_weights(model_dir, device), read_weights(checkpoint_dir, device), alpha)
        decoder.load_state_dict(between, strict=False)  # the output layer is not named: it is the token embedding
    return decoder


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Translator:
    """Translates rows of TASK.

    Attributes:
        decoder: from `load`.
        prompter: of the same model.
        scheme: prompt of directions that Whisper was not trained on.
        num_beams: 1 is greedy.
        max_tokens: most tokens of one text.
        batch_size: texts written at a time.
    """

    decoder: FrameDecoder
    prompter: Prompter
    scheme: Scheme
    num_beams: int
    max_tokens: int
    batch_size: int

    def translate(self, rows: pa.Table) -> pa.Table:
        """Rows of TASK that have a reference in, rows of HYPOTHESIS in the same order out."""
        tokens = self._write(rows)
        new = {
            "hypothesis": [self.prompter.text(tokens[i]) for i in range(rows.num_rows)],
            "num_tokens": [len(tokens[i]) for i in range(rows.num_rows)],
        }
        columns = [new[name] if name in new else rows[name] for name in HYPOTHESIS.names]
        return pa.table(columns, schema=HYPOTHESIS)

    def _write(self, rows: pa.Table) -> Mapping[int, list[int]]:
        """Tokens of each row by its number; a batch holds recordings of similar length, so little of it is padding."""
        places = list(zip(rows["shard"].to_pylist(), rows["row"].to_pylist(), strict=True))
        prompts = [self.prompter.prompt(Direction.parse(of), self.scheme) for of in rows["direction"].to_pylist()]
        lengths = rows["num_frames"].to_pylist()
        order = sorted(range(rows.num_rows), key=lengths.__getitem__)
        tokens: dict[int, list[int]] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            written = generate(
                self.decoder,
                shards.read_frames([places[i] for i in batch]),
                [prompts[i] for i in batch],
                num_beams=self.num_beams,
                max_tokens=self.max_tokens,
            )
            tokens.update(zip(batch, written, strict=True))
        return tokens
