"""The decoder in training: trained weights, loss, and the final weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from xlt_ray.finetune.batch import Batch
from xlt_ray.finetune.parameters import ADAPTED, EMBEDDINGS
from xlt_ray.models import decoder
from xlt_ray.models.decoder import FrameDecoder

if TYPE_CHECKING:
    from xlt_ray.finetune.config import FinetuneConfig


class Learner(nn.Module):
    """A decoder with its loss.

    Args:
        model: from `load_decoder`; requires_grad is set for the weights to train only.
        config: settings that select the weights to train.
    """

    def __init__(self, model: FrameDecoder, config: FinetuneConfig) -> None:
        super().__init__()
        self.decoder = model.requires_grad_(config.lora_rank is None)
        if config.lora_rank is None:
            self.adapted = None
        else:
            import peft  # it takes seconds, and few runs train adapters

            torch.manual_seed(config.seed)
            # alpha = 2 x rank, so that the step does not depend on the rank; no dropout, so that a run repeats.
            lora = peft.LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules=list(ADAPTED))
            self.adapted = [peft.get_peft_model(model, lora)]  # in a list: not a second time among the modules
        for name in EMBEDDINGS:
            model.get_parameter(name).requires_grad_(config.train_embeddings)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.train()

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The weights to train, by name."""
        return {name: parameter for name, parameter in self.decoder.named_parameters() if parameter.requires_grad}

    def forward(self, batch: Batch) -> Tensor:
        """The cross entropy of the target tokens, summed: a scalar.

        Logits are computed only at positions that predict a target token.
        """
        states = self.decoder.hidden_states(batch.tokens, batch.frames, batch.num_frames)
        return cross_entropy(self.decoder.proj_out(states[batch.predicts]).float(), batch.targets, reduction="sum")

    def sampled(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with target tokens sampled from the model, each given the reference tokens before it."""
        with torch.no_grad():
            states = self.decoder.hidden_states(batch.tokens, batch.frames, batch.num_frames)
            odds = self.decoder.proj_out(states[batch.predicts]).float().softmax(-1)
        return dataclasses.replace(batch, targets=torch.multinomial(odds, 1, generator=generator)[:, 0])


def tuned_weights(
    model_dir: str | os.PathLike[str], config: FinetuneConfig, trained: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The full decoder after training: fp32, by the names in transformers, adapters merged.

    Args:
        model_dir: the model that training began with.
        config: as in training.
        trained: the trained weights, by the names of `Learner.trained`.

    Raises:
        ValueError: if these are not exactly the weights to train.
    """
    learner = Learner(decoder.load_decoder(model_dir), config)
    if wrong := sorted(trained.keys() ^ learner.trained.keys()):
        raise ValueError(f"not the weights that were trained: {', '.join(wrong[:3])} on one side alone")
    learner.decoder.load_state_dict(trained, strict=False)  # those that did not train are left as they are
    if learner.adapted is not None:
        learner.adapted[0].merge_and_unload()
    tied = learner.decoder.proj_out.weight is learner.decoder.get_input_embeddings().weight
    left_out = {"proj_out.weight"} if tied else set()
    return {name: weight for name, weight in learner.decoder.state_dict().items() if name not in left_out}
