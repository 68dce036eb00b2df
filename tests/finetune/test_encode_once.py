"""Training from shards is training with the encoder in the loop: same batches, same losses."""

import numpy as np
import torch
from tiny import tiny_whisper
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from xlt_ray.embed.encoder import SpeechEncoder
from xlt_ray.finetune.batch import collate
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.context import LocalContext
from xlt_ray.finetune.learner import Learner
from xlt_ray.finetune.loop import Step, Training
from xlt_ray.models.decoder import load_decoder

PROMPT = [257, 260, 358, 363]
TARGETS = [[5, 6, 256], [7, 8, 9, 10, 256], [11, 256], [12, 13, 14, 256]]


def sounds():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, length).astype(np.float32) for length in (4000, 9000, 16_000, 20_000)]


def from_shards(model_dir, folder):
    """Two steps of two examples each, on all 1500 frames as a shard holds them: encoded once, in half precision."""
    frames = [encoded.final for encoded in SpeechEncoder(model_dir, keep_margin=None).encode(sounds())]
    settings = FinetuneConfig(learning_rate=1e-2, warmup=0.0, train_embeddings=True)
    steps = []
    for i in (0, 2):
        batch = collate([PROMPT] * 2, TARGETS[i : i + 2], frames[i : i + 2])
        assert batch.frames.shape == (2, 1500, 32)
        steps.append(Step([batch], 1.0, len(batch.targets), 2))
    training = Training(Learner(load_decoder(model_dir), settings), settings, 2, LocalContext(folder))
    training.run(steps)
    return [row["loss"] for row in training.log]


def with_the_encoder(model_dir):
    """The usual recipe, by hand: log-mel of 30 s through the frozen encoder of transformers in every step."""
    model = WhisperForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32)
    model.freeze_encoder()
    extractor = WhisperFeatureExtractor.from_pretrained(model_dir)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], weight_decay=0.0
    )
    losses = []
    for step, i in enumerate((0, 2)):
        optimizer.param_groups[0]["lr"] = 1e-2 * (2 - step) / 2
        longest = max(map(len, TARGETS[i : i + 2])) + len(PROMPT) - 1
        tokens, labels = torch.zeros(2, longest, dtype=torch.long), torch.full((2, longest), -100)
        for row, target in enumerate(TARGETS[i : i + 2]):
            tokens[row, : len(PROMPT) + len(target) - 1] = torch.tensor([*PROMPT, *target[:-1]])
            labels[row, len(PROMPT) - 1 : len(PROMPT) + len(target) - 1] = torch.tensor(target)
        mels = extractor(sounds()[i : i + 2], sampling_rate=16_000, return_tensors="pt").input_features
        loss = model(input_features=mels, decoder_input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([parameter for parameter in model.parameters() if parameter.requires_grad], 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_encoding_once_changes_no_loss(tmp_path):
    model_dir = tiny_whisper(tmp_path / "model")
    np.testing.assert_allclose(from_shards(model_dir, tmp_path / "run"), with_the_encoder(model_dir), rtol=1e-4)
