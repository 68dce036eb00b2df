"""Operations and weights of a Whisper, against torch's own count and published sizes."""

import pytest
import torch
from tiny import tiny_whisper
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from xlt_ray.models.size import MODELS, ModelSize


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(tiny):
    """transformers' model with attention in plain matrix products, all of which torch counts."""
    return WhisperForConditionalGeneration.from_pretrained(tiny, attn_implementation="eager").eval()


def counted_flops(work):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def test_encoder_flops_are_those_that_torch_counts(tiny, whole):
    mel = torch.zeros(1, 80, 3000)
    assert ModelSize.read(tiny).encoder_flops(1500) == counted_flops(lambda: whole.model.encoder(mel))


@pytest.mark.parametrize(("num_tokens", "num_frames"), [(1, 1500), (7, 300), (60, 33)])
def test_decoder_flops_are_those_that_torch_counts(tiny, whole, num_tokens, num_frames):
    heard = BaseModelOutput(torch.zeros(1, num_frames, 32))
    tokens = torch.zeros(1, num_tokens, dtype=torch.long)
    work = counted_flops(lambda: whole(decoder_input_ids=tokens, encoder_outputs=heard, use_cache=False))
    assert ModelSize.read(tiny).decoder_flops(num_tokens, num_frames) == work


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 37.76), ("base", 72.59), ("small", 241.73), ("medium", 763.86), ("large-v2", 1543.30)],
)
def test_published_models_have_their_published_number_of_weights(name, millions):
    """All but biases and norms, which are below 1 %."""
    weights = MODELS[f"openai/whisper-{name}"].parameters
    assert 0.99 < weights / (millions * 1e6) < 1


def test_weights_of_the_decoder_are_those_of_the_model(tiny, whole):
    matrices = sum(parameter.numel() for parameter in whole.model.decoder.parameters() if parameter.dim() > 1)
    assert ModelSize.read(tiny).decoder_parameters == matrices
