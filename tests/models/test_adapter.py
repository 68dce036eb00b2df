"""A LoRA adapter as a model: against the model that PEFT itself merges, in encoder and decoder alike."""

import json
import shutil
import sys
from pathlib import Path

import peft
import pytest
import torch
from published import published_whisper, tokenizer
from safetensors.torch import load_file, save_file
from tiny import tiny_whisper
from transformers import WhisperForConditionalGeneration

from xlt_ray.errors import UserError
from xlt_ray.models import decoder, whisper
from xlt_ray.models.encoder import load_encoder

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "xlt_ray" / "models"


@pytest.fixture
def base(tmp_path):
    return tiny_whisper(tmp_path / "base")


def adapt(base, folder, **options):
    """Save an adapter that changes what it touches; the whole model with it."""
    torch.manual_seed(3)
    model = WhisperForConditionalGeneration.from_pretrained(base)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"]} | options
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()


def edit(folder, **changed):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    "options",
    [{}, {"use_dora": True}, {"use_rslora": True, "r": 8}, {"modules_to_save": ["layer_norm"]}, {"bias": "lora_only"}],
)
def test_encoder_and_decoder_are_those_that_peft_merges(base, tmp_path, options):
    expected = adapt(base, tmp_path / "adapter", **options).eval()
    model_dir = whisper.resolve_model(str(tmp_path / "adapter"))
    encoder = load_encoder(model_dir, "cpu", torch.float32)
    theirs = expected.model.encoder.state_dict()
    assert encoder.state_dict().keys() == theirs.keys()
    for name, weight in encoder.state_dict().items():
        torch.testing.assert_close(weight, theirs[name])
    ours, theirs = decoder.load_decoder(model_dir).state_dict(), expected.state_dict()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name])
    original = load_file(base / "model.safetensors")
    for stack in ("encoder", "decoder"):
        name = f"model.{stack}.layers.0.self_attn.q_proj.weight"
        assert not torch.allclose(original[name], theirs[name])
    assert whisper.resolve_model(str(tmp_path / "adapter")) == model_dir


@pytest.mark.parametrize("layer", ["proj_out", "embed_tokens"])
def test_an_adapter_of_one_of_two_tied_layers_changes_that_one_only(base, tmp_path, layer):
    """Logits are those of the adapter before it is merged, which is how it was trained."""
    adapt(base, tmp_path / "adapter", target_modules=["q_proj", layer])
    adapted = peft.PeftModel.from_pretrained(
        WhisperForConditionalGeneration.from_pretrained(base), tmp_path / "adapter"
    )
    merged = WhisperForConditionalGeneration.from_pretrained(whisper.resolve_model(str(tmp_path / "adapter")))
    inputs = {"input_features": torch.randn(1, 80, 3000), "decoder_input_ids": torch.tensor([[257, 260, 358, 363, 5]])}
    with torch.no_grad():
        ours, theirs = (model.eval()(**inputs).logits for model in (merged, adapted))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_it_leaves_alone_keeps_its_precision(base, tmp_path):
    weights = {name: weight.half() for name, weight in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    adapt(base, tmp_path / "adapter")
    merged = load_file(whisper.resolve_model(str(tmp_path / "adapter")) / "model.safetensors")
    assert merged.keys() == weights.keys()
    changed = {name for name, weight in merged.items() if weight.dtype == torch.float32}
    assert changed == {name for name in merged if name.endswith(("q_proj.weight", "v_proj.weight"))}
    assert all(torch.equal(merged[name], weights[name]) for name in merged.keys() - changed)


def test_the_identity_is_that_of_base_and_adapter(base, tmp_path):
    adapt(base, tmp_path / "adapter")
    first = whisper.weights_sha256(whisper.resolve_model(str(tmp_path / "adapter")))
    assert first != whisper.weights_sha256(base)
    copy = shutil.copytree(tmp_path / "adapter", tmp_path / "copy")
    assert whisper.weights_sha256(whisper.resolve_model(str(copy))) == first
    adapt(base, copy, r=8)
    second = whisper.weights_sha256(whisper.resolve_model(str(copy)))
    weights = load_file(base / "model.safetensors")
    weights["model.encoder.conv1.bias"] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    third = whisper.weights_sha256(whisper.resolve_model(str(copy)))
    assert len({first, second, third}) == 3


def test_the_base_lies_beside_it_or_where_the_job_runs(base, tmp_path, monkeypatch):
    adapt(base, tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path="base")
    expected = whisper.resolve_model(str(tmp_path / "adapter"))
    monkeypatch.chdir(tmp_path)
    assert whisper.weights_sha256(whisper.resolve_model("adapter")) == whisper.weights_sha256(expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_model_name_or_path": None}, "names no base model (base_model_name_or_path is None); write there"),
        ({"base_model_name_or_path": "/gone/base"}, "is '/gone/base': no model '/gone/base'; give"),
        ({"base_model_name_or_path": "openai/whisper-x"}, "is 'openai/whisper-x': model 'openai/whisper-x' is not on"),
        ({"peft_type": "IA3"}, "is of type 'IA3'; only LORA"),
        ({"revision": "v2"}, "asks for revision 'v2' of"),
        ({"r": 8}, "does not fit its base"),
        ({"target_modules": ["q_proj", "v_proj", "fc1"]}, "does not fit its base"),
        ({"target_modules": ["q_proj"]}, "does not fit its base"),
        ({"target_modules": ["query"]}, "does not fit its base"),
    ],
)
def test_an_adapter_that_cannot_be_merged(base, tmp_path, cache, changed, message, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    adapt(base, tmp_path / "adapter")
    edit(tmp_path / "adapter", **changed)
    with pytest.raises(UserError) as error:
        whisper.resolve_model(str(tmp_path / "adapter"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not cache.exists() or [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("other", [{"encoder_layers": 3}, {"decoder_layers": 1}, {"d_model": 32}])
def test_an_adapter_of_another_base(tmp_path, other):
    base = published_whisper(tmp_path / "base", "v2")
    adapt(base, tmp_path / "adapter")
    changed = published_whisper(tmp_path / "other", "v2", **other)
    edit(tmp_path / "adapter", base_model_name_or_path=str(changed))
    with pytest.raises(UserError, match="does not fit its base"):
        whisper.resolve_model(str(tmp_path / "adapter"))


def test_faults_of_its_files(base, tmp_path):
    folder = tmp_path / "adapter"
    adapt(base, folder)
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"adapter_model.safetensors is a git-lfs pointer"):
        whisper.resolve_model(str(folder))
    weights.write_bytes(content[:500])
    with pytest.raises(UserError, match=r"adapter_model.safetensors is cut short"):
        whisper.resolve_model(str(folder))
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="has a pickled adapter only, and a pickle can run any code"):
        whisper.resolve_model(str(folder))
    (folder / "adapter_config.json").write_text('{"peft_type": ')
    with pytest.raises(UserError, match=r"adapter_config.json is no valid JSON \(.* line 1"):
        whisper.resolve_model(str(folder))


def test_a_base_that_is_an_adapter(base, tmp_path):
    adapt(base, tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "adapter"))
    with pytest.raises(UserError, match="an adapter itself; merge that first"):
        whisper.resolve_model(str(tmp_path / "adapter"))


def test_its_own_tokenizer_goes_with_it(tmp_path):
    base = published_whisper(tmp_path / "base", "v2")
    adapt(base, tmp_path / "adapter")
    tokenizer("v3").save(str(tmp_path / "adapter" / "tokenizer.json"))
    with pytest.raises(UserError, match="51,866 tokens and the weights have 51,865"):
        whisper.resolve_model(str(tmp_path / "adapter"))
    tokenizer("v2").save(str(tmp_path / "adapter" / "tokenizer.json"))
    assert len(whisper.language_ids(whisper.resolve_model(str(tmp_path / "adapter")))) == 99


def test_a_whole_model_beside_an_adapter_config_is_the_model(base):
    (base / "adapter_config.json").write_text("{}")
    assert whisper.resolve_model(str(base)) == base


def test_what_every_node_must_see(base, tmp_path):
    adapt(base, tmp_path / "adapter")
    names = ["adapter_config.json", "adapter_model.safetensors"]
    files = whisper.files_to_see(str(tmp_path / "adapter"))
    assert files[:2] == [str(tmp_path / "adapter" / name) for name in names]
    assert files[2:] == whisper.files_to_see(str(base))
    assert all(Path(path).is_file() for path in files)


@pytest.mark.real
def test_the_wheels_as_base(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    base = whisper.resolve_model("wheels:whisper-base")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = adapt(base, tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path="wheels:whisper-base")
    model = WhisperForConditionalGeneration.from_pretrained(whisper.resolve_model(str(tmp_path / "adapter")))
    for name, weight in expected.float().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_model_name_or_path": ["x"]}, "names no base model"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "has a megatron_config"),
        ({"modules_to_save": [None]}, "does not fit its base"),
        ({"alora_invocation_tokens": [1]}, "does not fit its base"),
    ],
)
def test_a_config_that_asks_for_more_than_peft_can(base, tmp_path, changed, message):
    adapt(base, tmp_path / "adapter")
    edit(tmp_path / "adapter", **changed)
    with pytest.raises(UserError, match=message):
        whisper.resolve_model(str(tmp_path / "adapter"))
    assert "antigravity" not in sys.modules
