"""A tuned model as others read it: transformers loads it, CTranslate2 runs it, a reader of the card can use it."""

import functools
import json
import re
import shutil
import struct
import sys
from pathlib import Path

import ctranslate2 as engine
import numpy as np
import pytest
import soundfile
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import IDS, START, tiny_whisper
from tokenizers import Tokenizer
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from xlt_ray.corpora import asterisk, audio
from xlt_ray.errors import UserError
from xlt_ray.models import ctranslate2, decoder, export, whisper
from xlt_ray.models import write as model_write
from xlt_ray.models.encoder import load_encoder, log_mel, mel_filters
from xlt_ray.models.export import Card, Metric

torch.set_num_threads(1)

CARD = Card(
    name="whisper-base-en-zh",
    base_model="openai/whisper-base",
    directions=("en-zh", "en-ja"),
    scheme="tgt_translate",
    frozen=("encoder", "embed_tokens"),
    hyperparameters={"lr": 1e-5, "num_steps": 300, "precision": "float32"},
    corpus="asterisk",
    num_examples=172,
    attribution="Prompts © Digium, CC-BY-SA 3.0",
    metrics=(
        Metric(direction="en-zh", name="bleu", value=12.345678, split="dev"),
        Metric(direction="en-zh", name="chrf", value=0.01234, split="dev"),
        Metric(direction="fr-zh", name="bleu", value=9.5, split="test"),
    ),
    limits=("COMET", "speech with noise"),
    commit="0123abc",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that writes text alone: a timestamp would make transformers begin a second text."""
    folder = tiny_whisper(tmp_path_factory.mktemp("models") / "base")
    settings = json.loads((folder / "generation_config.json").read_text())
    num_tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    settings["suppress_tokens"] = [1, 2, *range(START, num_tokens)]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def tuned(base):
    """The decoder after training: no weight as before, and few that float16 could hold."""
    return noisy(load_file(base / "model.safetensors"), 0.4)  # enough to write more than one letter


@pytest.fixture(scope="module")
def saved(base, tuned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    export.save_model(folder, base, tuned)
    return folder


def noisy(weights, scale):
    generator = torch.Generator().manual_seed(1)
    decoder_weights = {name: weight.float() for name, weight in weights.items() if name.startswith("model.decoder.")}
    return {
        name: weight + scale * torch.randn(weight.shape, generator=generator)
        for name, weight in sorted(decoder_weights.items())
    }


def variant(base, folder, dtype=None, **options):
    """The base in another precision or in shards."""
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    WhisperForConditionalGeneration.from_pretrained(base, dtype=dtype).save_pretrained(folder, **options)
    return folder


def bytes_by_name(folder):
    """The bytes of every tensor, from the definition of safetensors: length of the header, header, data."""
    found = {}
    for path in folder.glob("*.safetensors"):
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        for name, tensor in json.loads(content[8 : 8 + size]).items():
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                found[name] = (tensor["dtype"], tensor["shape"], content[8 + size + begin : 8 + size + end])
    return found


def require_holds(folder, base_weights, tuned):
    """Transformers loads what was saved, bit by bit."""
    assert whisper.resolve_model(str(folder)) == folder
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    expected = {name: w.float() for name, w in base_weights.items() if name.startswith("model.encoder.")} | tuned
    loaded = model.state_dict()
    assert loaded.keys() - {"proj_out.weight"} == expected.keys()
    assert {weight.dtype for weight in loaded.values()} == {torch.float32}
    assert [name for name in expected if not torch.equal(loaded[name], expected[name])] == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_loading_gives_back_what_was_saved(base, tuned, tmp_path, dtype):
    source = variant(base, tmp_path / "base", getattr(torch, dtype))
    assert json.loads((source / "config.json").read_text())["dtype"] == dtype
    folder = tmp_path / "new" / "model"
    export.save_model(folder, source, tuned)
    require_holds(folder, load_file(source / "model.safetensors"), tuned)
    ours, theirs = bytes_by_name(folder), bytes_by_name(source)
    encoder = [name for name in theirs if name.startswith("model.encoder.")]
    assert len(encoder) > 20
    assert [name for name in encoder if ours[name] != theirs[name]] == []
    assert any((weight.half().float() != weight).any() for weight in tuned.values())


def test_our_own_readers_get_the_same(saved, base, tuned):
    assert all(torch.equal(weight, tuned[name]) for name, weight in decoder.read_weights(saved).items())
    ours, theirs = (load_encoder(path, "cpu", torch.float32).state_dict() for path in (saved, base))
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_the_former_name_of_dtype_cannot_win(base, tuned, tmp_path):
    source = variant(base, tmp_path / "base", torch.float16)
    config = json.loads((source / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    (source / "config.json").write_text(json.dumps(config))
    export.save_model(tmp_path / "model", source, tuned)
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert "torch_dtype" not in written
    require_holds(tmp_path / "model", load_file(source / "model.safetensors"), tuned)


def test_shards(base, tuned, tmp_path, monkeypatch):
    source = variant(base, tmp_path / "base", max_shard_size="40KB")
    assert len(list(source.glob("model-*.safetensors"))) > 2
    folder = tmp_path / "model"
    export.save_model(folder, source, tuned)
    require_holds(folder, load_file(base / "model.safetensors"), tuned)
    assert [path.name for path in folder.glob("model*")] == ["model.safetensors"]

    smaller = functools.partial(model_write.save_torch_state_dict, max_shard_size="100KB")
    monkeypatch.setattr(model_write, "save_torch_state_dict", smaller)
    export.save_model(folder, source, tuned)
    names = {path.name for path in folder.glob("model*")}
    assert "model.safetensors" not in names
    assert len(names) > 3
    assert set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values()) < names
    require_holds(folder, load_file(base / "model.safetensors"), tuned)
    monkeypatch.undo()
    export.save_model(folder, source, tuned)
    assert [path.name for path in folder.glob("model*")] == ["model.safetensors"]


def test_the_limit_of_a_shard_is_5_gb():
    split = model_write.save_torch_state_dict.__globals__["split_torch_state_dict_into_shards"]
    state = {str(i): torch.empty(2_000_000_000, dtype=torch.int8, device="meta") for i in range(5)}
    assert [len(names) for names in split(state).filename_to_tensors.values()] == [2, 2, 1]


def test_a_base_with_other_names(base, tuned, tmp_path):
    """`WhisperModel` saves without the prefix, and some publish the tied output layer as well."""
    source = tmp_path / "base"
    shutil.copytree(base, source)
    weights = load_file(source / "model.safetensors")
    bare = {name.removeprefix("model."): weight for name, weight in weights.items()}
    bare["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"].clone()
    save_file(bare, source / "model.safetensors", metadata={"format": "pt"})
    export.save_model(tmp_path / "model", source, tuned)
    require_holds(tmp_path / "model", weights, tuned)


@pytest.fixture
def untied(base, tmp_path):
    """The base with an output layer of its own."""
    folder = shutil.copytree(base, tmp_path / "untied")
    weights = load_file(base / "model.safetensors")
    output = weights["model.decoder.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights | {"proj_out.weight": output}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_an_output_layer_of_its_own_is_kept(untied, tuned, tmp_path):
    output = 2 * load_file(untied / "model.safetensors")["proj_out.weight"]
    with pytest.raises(ValueError, match=r"proj_out.weight is missing"):
        export.save_model(tmp_path / "model", untied, tuned)
    export.save_model(tmp_path / "model", untied, tuned | {"proj_out.weight": output})
    assert whisper.resolve_model(str(tmp_path / "model")) == tmp_path / "model"
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert torch.equal(model.proj_out.weight, output)
    assert torch.equal(model.model.decoder.embed_tokens.weight, tuned["model.decoder.embed_tokens.weight"])
    assert torch.equal(decoder.load_decoder(tmp_path / "model").proj_out.weight, output)
    export.to_ctranslate2(tmp_path / "model", tmp_path / "ct2", "float32")
    again = load_file(whisper.resolve_model(str(tmp_path / "ct2")) / "model.safetensors")
    assert torch.equal(again["proj_out.weight"], output)


def test_an_outdated_generation_config_is_completed(base, tuned, tmp_path):
    source = shutil.copytree(base, tmp_path / "base")
    expected = json.loads((base / "generation_config.json").read_text())
    gone = ("lang_to_id", "task_to_id", "is_multilingual")
    outdated = {name: value for name, value in expected.items() if name not in gone}
    (source / "generation_config.json").write_text(json.dumps(outdated))
    export.save_model(tmp_path / "model", source, tuned)
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text()) == expected


def test_weights_that_are_not_those_of_the_decoder(base, tuned, tmp_path):
    fc1, norm = "model.decoder.layers.0.fc1.weight", "model.decoder.layer_norm.bias"
    wrong = {name: weight for name, weight in tuned.items() if name != norm}
    wrong |= {"model.decoder.lora_A": torch.zeros(1), "proj_out.weight": torch.zeros(1), fc1: torch.zeros(48, 31)}
    with pytest.raises(ValueError, match="not the decoder of the base model") as error:
        export.save_model(tmp_path / "model", base, wrong)
    assert str(error.value).partition(": ")[2].split(", model.")[:1] == [f"{norm} is missing"]
    for fault in ("model.decoder.lora_A is unknown", "proj_out.weight is unknown", f"{fc1} is (48, 31), not (48, 32)"):
        assert fault in str(error.value)
    assert not (tmp_path / "model").exists()


def test_small_files_are_copied(base, tuned, tmp_path):
    source = tmp_path / "base"
    shutil.copytree(base, source)
    for name in ("README.md", "optimizer.bin", "pytorch_model.bin.index.json", "model.fp32.safetensors", "merges.txt"):
        (source / name).write_text("{}")
    folder = tmp_path / "model"
    export.save_model(folder, source, tuned)
    small = {path.name for path in base.iterdir() if path.name != "model.safetensors"} | {"merges.txt"}
    assert {path.name for path in folder.iterdir()} == small | {"model.safetensors"}
    for name in small - {"config.json"}:
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (folder, source))
    assert ours == theirs | {"dtype": "float32", "tie_word_embeddings": True}


def test_an_adapter_beside_the_base_is_not_applied_again(base, tuned, tmp_path):
    """`merge_and_unload().save_pretrained(folder)` leaves the adapter beside the merged model."""
    source = shutil.copytree(base, tmp_path / "base")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "target_modules": ["q_proj"]}
    (source / "adapter_config.json").write_text(json.dumps(adapter))
    others = ("model.safetensors.index.fp32.json", "trainer_state.json", "requirements.txt")
    for name in others:
        (source / name).write_text("{}")
    folder = tmp_path / "model"
    export.save_model(folder, source, tuned)
    assert not {path.name for path in folder.iterdir()} & {"adapter_config.json", *others}
    loaded = WhisperForConditionalGeneration.from_pretrained(folder).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in tuned.items())


def test_others_may_read_the_weights(saved):
    assert (saved / "model.safetensors").stat().st_mode == (saved / "generation_config.json").stat().st_mode


def test_the_base_is_never_overwritten(base, tuned):
    before = bytes_by_name(base)
    with pytest.raises(shutil.SameFileError):
        export.save_model(base, base, tuned)
    assert bytes_by_name(base) == before


def test_trained_parameters_need_no_preparation(base, tuned, saved, tmp_path):
    """They may want gradients, and a merged weight may be a transposed view."""
    parameters = {
        name: torch.nn.Parameter(weight.T.contiguous().T if weight.dim() == 2 else weight)
        for name, weight in tuned.items()
    }
    assert not all(weight.is_contiguous() for weight in parameters.values())
    export.save_model(tmp_path / "model", base, parameters)
    assert bytes_by_name(tmp_path / "model") == bytes_by_name(saved)


def test_the_metadata_reads_back(saved):
    card = ModelCard(export.model_card(CARD, saved))
    assert card.data.base_model == "openai/whisper-base"
    assert card.data.language == ["en", "ja", "zh"]
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "automatic-speech-recognition"
    assert card.data.model_name == "whisper-base-en-zh"
    same = {"task_type": "automatic-speech-recognition", "task_name": "Speech translation"}
    same |= {"dataset_type": "asterisk", "dataset_name": "asterisk"}
    expected = [("en-zh", "dev", "bleu", 12.345678), ("en-zh", "dev", "chrf", 0.01234), ("fr-zh", "test", "bleu", 9.5)]
    assert card.data.eval_results == [
        EvalResult(
            **same,
            dataset_config=direction,
            dataset_split=split,
            metric_type=name,
            metric_name=name,
            metric_value=value,
        )
        for direction, split, name, value in expected
    ]


def test_the_card_says_all_that_is_known(saved):
    text = ModelCard(export.model_card(CARD, saved)).text
    for line in (
        "# whisper-base-en-zh",
        "Whisper `openai/whisper-base`, fine-tuned on 172 examples of `asterisk` for en-zh, en-ja.",
        "Prompts © Digium, CC-BY-SA 3.0",
        "- prompt scheme: `tgt_translate`",
        "- frozen: encoder, embed_tokens",
        "- lr: 1e-05",
        "- num_steps: 300",
        "- precision: float32",
        "- commit of xlt_ray: `0123abc`",
        "| en-zh | dev | bleu | 12.35 |",
        "| en-zh | dev | chrf | 0.01234 |",
        "| fr-zh | test | bleu | 9.5 |",
        "## What was not measured",
        "- speech with noise",
        "- en-zh: `<|startoftranscript|><|zh|><|translate|><|notimestamps|>`",
        "- en-ja: `<|startoftranscript|><|ja|><|translate|><|notimestamps|>`",
        "- fr-zh: `<|startoftranscript|><|zh|><|translate|><|notimestamps|>`",
    ):
        assert f"\n{line}\n" in text
    assert not re.search("None|\n\n\n", text)


def test_the_card_leaves_out_what_is_not_known(saved):
    known = {name: getattr(CARD, name) for name in ("name", "directions", "scheme", "corpus")}
    bare = Card(**known, base_model="wheels:whisper-base", frozen=(), hyperparameters={})
    text = export.model_card(bare, saved)
    assert yaml.safe_load(text.split("---")[1]) == {
        "language": ["en", "ja", "zh"],
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["whisper", "speech-translation"],
        "model_name": "whisper-base-en-zh",
    }
    assert "fine-tuned on `asterisk` for en-zh, en-ja.\n\n## How to use it" in text
    assert text.endswith("## Training\n\n- prompt scheme: `tgt_translate`\n- frozen: nothing\n")


def test_a_directory_is_no_model_of_the_hub(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    elsewhere = ("/data/base", "data/models/base", "data")
    for name in ("models/base", str(tmp_path / "models" / "base"), "./models/base", *elsewhere):
        text = export.model_card(Card(**fields() | {"base_model": name}), saved)
        assert ModelCard(text).data.base_model is None
        assert f"Whisper `{name}`" in text


def fields():
    return {name: getattr(CARD, name) for name in CARD.__dataclass_fields__}


def greedy(model, mel, prompt, num_tokens):
    """Greedy decoding by its definition: the whole text through the decoder for each new token."""
    config, tokens = model.generation_config, list(prompt)
    while len(tokens) < len(prompt) + num_tokens:
        logits = model(input_features=mel, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
        logits[config.suppress_tokens] = -torch.inf
        if len(tokens) == len(prompt):
            logits[config.begin_suppress_tokens] = -torch.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == config.eos_token_id:
            break
    return tokens[len(prompt) :]


@pytest.mark.parametrize(
    ("scheme", "direction", "language", "task"),
    [
        ("src_translate", "en-zh", "en", "translate"),
        ("tgt_transcribe", "en-zh", "zh", "transcribe"),
        ("tgt_translate", "en-zh", "zh", "translate"),
        ("tgt_translate", "cmn-nb", "no", "translate"),
        ("tgt_translate", "fr-en", "fr", "translate"),  # Whisper's own tasks keep their prompt
        ("tgt_translate", "fr-fr", "fr", "transcribe"),
    ],
)
def test_the_snippet_runs_and_prompts_as_trained(
    saved, tmp_path, monkeypatch, capsys, scheme, direction, language, task
):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    settings = json.loads((folder / "generation_config.json").read_text()) | {"max_length": 24}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    card = Card(**fields() | {"directions": (direction,), "scheme": scheme, "metrics": ()})
    code = re.search("```python\n(.*?)```", export.model_card(card, folder), re.DOTALL)[1]
    sound = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    soundfile.write(folder / "speech.wav", sound, 16_000, subtype="FLOAT")
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)

    prompt = [IDS[token] for token in ("<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>", "<|notimestamps|>")]
    mel = mel_of(sound, folder)
    expected = greedy(names["model"], mel, prompt, 24)
    text = WhisperProcessor.from_pretrained(folder).decode(expected, skip_special_tokens=True)
    assert len(text) > 5
    assert capsys.readouterr().out.endswith(f"{text}\n")


def test_a_direction_without_a_token_has_no_card(saved):
    with pytest.raises(UserError, match="'kea'"):
        export.model_card(Card(**fields() | {"directions": ("en-kea",)}), saved)


def mel_of(waveform, model_dir):
    return log_mel(torch.from_numpy(waveform), 1500, mel_filters(model_dir))[None]


def engine_tokens(ct2_dir, mel, prompt, num_tokens):
    model = engine.models.Whisper(str(ct2_dir), compute_type="float32", intra_threads=1)
    features = engine.StorageView.from_array(mel.numpy())
    return model.generate(features, [prompt], beam_size=1, max_length=num_tokens)[0].sequences_ids[0]


@pytest.mark.slow
def test_the_engine_writes_the_same_tokens(saved, tmp_path):
    export.to_ctranslate2(saved, tmp_path / "ct2", "float32")
    model = WhisperForConditionalGeneration.from_pretrained(saved)
    written = set()
    for seed, task in enumerate(("translate", "transcribe") * 2):
        prompt = [IDS[token] for token in ("<|startoftranscript|>", "<|zh|>", f"<|{task}|>", "<|notimestamps|>")]
        mel = mel_of(np.random.default_rng(seed).normal(0, 10.0**-seed, 60_000).astype(np.float32), saved)
        theirs = engine_tokens(tmp_path / "ct2", mel, prompt, 60)
        assert theirs == greedy(model, mel, prompt, len(theirs))
        written.add(tuple(theirs))
    assert len(written) > 1
    assert max(len(set(tokens)) for tokens in written) > 8


@pytest.mark.parametrize(("options", "dtype"), [({}, torch.float16), ({"quantization": "float32"}, torch.float32)])
def test_our_reader_gets_the_weights_back(saved, tmp_path, monkeypatch, options, dtype):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    export.to_ctranslate2(saved, tmp_path / "ct2", **options)
    weights = load_file(ctranslate2.from_directory(tmp_path / "ct2") / "model.safetensors")
    expected = load_file(saved / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert {weight.dtype for weight in weights.values()} == {dtype}
    assert [name for name in expected if not torch.equal(weights[name], expected[name].to(dtype))] == []


def test_integers_are_made_from_all_bits(base, tuned, tmp_path):
    """A weight between two steps of int8 goes to the nearer one, which after a rounding to float16 it may not."""
    row = torch.zeros(32)
    row[0], row[1] = 127.0, 0.5001  # float16 keeps it apart from the half; with a step of 1 it is 1, not 0
    row[2] = 2.50001  # float16 would make 2.5 of it, and half to even 2
    weights = {name: weight.clone() for name, weight in tuned.items()}
    weights["model.decoder.layers.0.fc1.weight"][0] = row
    export.save_model(tmp_path / "model", base, weights)
    export.to_ctranslate2(tmp_path / "model", tmp_path / "ct2", "int8")
    stored = ctranslate2.read_variables(tmp_path / "ct2" / "model.bin")["decoder/layer_0/ffn/linear_0/weight"][0]
    assert stored[:3].tolist() == [127, 1, 3]


def test_the_files_that_faster_whisper_reads(saved, tmp_path):
    export.to_ctranslate2(saved, tmp_path / "new" / "ct2")
    names = {"model.bin", "config.json", "tokenizer.json", "preprocessor_config.json", "vocabulary.json"}
    assert {path.name for path in (tmp_path / "new" / "ct2").iterdir()} == names
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ct2"]
    for name in ("tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / "new" / "ct2" / name).read_bytes() == (saved / name).read_bytes()
    vocabulary = json.loads((tmp_path / "new" / "ct2" / "vocabulary.json").read_text())
    assert [vocabulary[IDS[token]] for token in IDS] == list(IDS)


def test_a_base_that_names_its_files_otherwise(saved, tmp_path):
    """Newer directories have processor_config.json, older ones vocab.json and merges.txt."""
    source = tmp_path / "model"
    shutil.copytree(saved, source)
    WhisperProcessor.from_pretrained(saved).save_pretrained(source)
    (source / "preprocessor_config.json").unlink()
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    (source / "tokenizer.json").unlink()
    letters = tokenizer.get_vocab(with_added_tokens=False)
    (source / "vocab.json").write_text(json.dumps(letters))
    (source / "merges.txt").write_text("#version: 0.2\n")
    added = {t.content: id_ for id_, t in tokenizer.get_added_tokens_decoder().items() if t.content not in letters}
    (source / "added_tokens.json").write_text(json.dumps(added))

    export.to_ctranslate2(source, tmp_path / "ct2")
    extractor = json.loads((tmp_path / "ct2" / "preprocessor_config.json").read_text())
    assert extractor == json.loads((saved / "preprocessor_config.json").read_text())
    written = Tokenizer.from_file(str(tmp_path / "ct2" / "tokenizer.json"))
    text = " Ça va? 你好"
    assert written.encode(text, add_special_tokens=False).ids == list(
        tokenizer.encode(text, add_special_tokens=False).ids
    )
    assert [written.token_to_id(token) for token in IDS] == list(IDS.values())


def test_a_mistake_stops_before_any_work(saved, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no quantization 'fp16'; choose one of .*float16"):
        export.to_ctranslate2(saved, tmp_path / "ct2", "fp16")
    (tmp_path / "ct2").mkdir()
    (tmp_path / "ct2" / "thesis.txt").touch()
    with pytest.raises(UserError, match="already exists; give a new directory or remove it"):
        export.to_ctranslate2(saved, tmp_path / "ct2")
    assert [path.name for path in (tmp_path / "ct2").iterdir()] == ["thesis.txt"]
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(UserError, match=r'needs the package ctranslate2: pip install "xlt_ray\[ctranslate2\]"'):
        export.to_ctranslate2(saved, tmp_path / "other")


def test_a_failed_export_leaves_nothing_behind(saved, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(export, "_save_processor", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export.to_ctranslate2(saved, tmp_path / "ct2")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "ct2.partial").mkdir()  # as a run leaves it that is killed
    (tmp_path / "ct2.partial" / "stale").touch()
    export.to_ctranslate2(saved, tmp_path / "ct2")
    assert [path.name for path in tmp_path.iterdir()] == ["ct2"]
    assert not (tmp_path / "ct2" / "stale").exists()


@pytest.mark.real
def test_the_real_model(tmp_path):
    """Both engines write the same with a decoder that is a little off the original, by about 1% of its weights."""
    model_dir = whisper.resolve_model("wheels:whisper-base")
    weights = load_file(model_dir / "model.safetensors")
    tuned = noisy(weights, 5e-4)
    export.save_model(tmp_path / "model", model_dir, tuned)
    require_holds(tmp_path / "model", weights, tuned)
    export.to_ctranslate2(tmp_path / "model", tmp_path / "ct2", "float32")
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model")
    processor = WhisperProcessor.from_pretrained(tmp_path / "model")
    sentences = ("agent-incorrect", "vm-tooshort")
    rows = [row for row in asterisk.asterisk("", ["en", "fr"], None) if row.sentence_id in sentences]
    assert len(rows) == 4
    for row in rows:
        mel = mel_of(audio.decode(Path(row.audio).read_bytes(), row.audio), model_dir)
        for task in ("transcribe", "translate"):
            tokens = model.generate(mel, language=row.language, task=task)[0].tolist()
            prompt = ["<|startoftranscript|>", f"<|{row.language}|>", f"<|{task}|>", "<|notimestamps|>"]
            assert tokens == engine_tokens(
                tmp_path / "ct2", mel, processor.tokenizer.convert_tokens_to_ids(prompt), 448
            )


@pytest.mark.real
def test_the_real_model_in_float16(tmp_path):
    """Its weights are float16 to begin with, so the default rounds nothing: the file says what the original says."""
    model_dir = whisper.resolve_model("wheels:whisper-base")
    export.to_ctranslate2(model_dir, tmp_path / "ct2")
    variables = ctranslate2.state_dict(ctranslate2.read_variables(tmp_path / "ct2" / "model.bin"))
    with safe_open(model_dir / "model.safetensors", framework="pt") as original:
        assert variables.keys() == set(original.keys())
        assert all(torch.equal(weight, original.get_tensor(name)) for name, weight in variables.items())
    row = next(row for row in asterisk.asterisk("", ["fr"], None) if row.sentence_id == "agent-incorrect")
    mel = mel_of(audio.decode(Path(row.audio).read_bytes(), row.audio), model_dir)
    tokens = WhisperForConditionalGeneration.from_pretrained(model_dir).generate(mel, language="fr", task="transcribe")
    tokenizer = WhisperProcessor.from_pretrained(model_dir).tokenizer
    prompt = ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>", "<|notimestamps|>"]
    ids = tokenizer.convert_tokens_to_ids(prompt)
    assert tokens[0].tolist() == engine_tokens(tmp_path / "ct2", mel, ids, 448)
