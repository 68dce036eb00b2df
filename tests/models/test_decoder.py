"""The decoder against transformers' whole model: prompts, masks, greedy and beam search, weights."""

import copy
import itertools
import json
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import CODES, IDS, START, tiny_whisper
from transformers import WhisperForConditionalGeneration, WhisperTokenizer
from transformers.modeling_outputs import BaseModelOutput

from xlt_ray.errors import UserError
from xlt_ray.languages import Direction
from xlt_ray.metrics import bleu
from xlt_ray.models import decoder
from xlt_ray.models.decoder import generate, language_probabilities, load_decoder, read_weights
from xlt_ray.models.encoder import pad_frames
from xlt_ray.models.prompts import Prompter


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def own(model_dir):
    return load_decoder(model_dir)


@pytest.fixture(scope="module")
def whole(model_dir):
    return WhisperForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32).eval()


def frames(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, 32)).astype(np.float16) for length in lengths]


@pytest.mark.parametrize(
    ("direction", "scheme", "language", "task"),
    [
        ("fr-fr", "tgt_translate", "fr", "transcribe"),
        ("zh-zh", "src_translate", "zh", "transcribe"),
        ("fr-en", "tgt_transcribe", "fr", "translate"),
        ("en-en", "tgt_translate", "en", "transcribe"),
        ("fr-zh", "src_translate", "fr", "translate"),
        ("fr-zh", "tgt_transcribe", "zh", "transcribe"),
        ("fr-zh", "tgt_translate", "zh", "translate"),
        ("kea-zh", "tgt_translate", "zh", "translate"),
    ],
)
def test_a_prompt_says_language_and_task(model_dir, direction, scheme, language, task):
    prompt = Prompter(model_dir).prompt(Direction.parse(direction), scheme)
    expected = ["<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>", "<|notimestamps|>"]
    assert prompt == [IDS[token] for token in expected]
    # As transformers asks for the same thing.
    tokenizer = WhisperTokenizer.from_pretrained(model_dir, language=language, task=task, predict_timestamps=False)
    assert prompt == tokenizer.prefix_tokens


def test_a_language_without_a_token_is_named(model_dir):
    prompter = Prompter(model_dir)
    with pytest.raises(UserError, match=r"direction kea-zh: the model has no token for language 'kea'; it knows .* zh"):
        prompter.prompt(Direction.parse("kea-zh"), "src_translate")


def test_another_language_can_stand_for_the_source_of_whispers_own_tasks(model_dir):
    prompter = Prompter(model_dir)
    for direction, language, task in (("kea-en", "pt", "translate"), ("kea-kea", "pt", "transcribe")):
        expected = ["<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>", "<|notimestamps|>"]
        prompt = prompter.prompt(Direction.parse(direction), "tgt_translate", "pt")
        assert prompt == [IDS[token] for token in expected]
    for scheme in ("src_translate", "tgt_transcribe", "tgt_translate"):
        learned = Direction.parse("fr-zh")
        assert prompter.prompt(learned, scheme, "pt") == prompter.prompt(learned, scheme)
    with pytest.raises(UserError, match="direction fr-en: the model has no token for language 'kea'"):
        prompter.prompt(Direction.parse("fr-en"), "tgt_transcribe", "kea")


def test_languages_and_their_tokens(model_dir):
    prompter = Prompter(model_dir)
    assert prompter.languages == sorted(CODES)
    for code in CODES:
        assert prompter.language_id(code) == IDS[f"<|{code}|>"]
        assert prompter.language(IDS[f"<|{code}|>"]) == code
    assert prompter.language_id("zh-CN") == IDS["<|zh|>"]
    assert prompter.language_id("kea") is None


@pytest.mark.parametrize("text", ["fr", "fr-", "-zh", "fr-zh-en", "fr zh", ""])
def test_what_is_no_direction_is_refused(text):
    with pytest.raises(UserError, match="is not two language codes"):
        Direction.parse(text)


def test_text_begins_with_a_space_where_the_language_has_them(model_dir):
    prompter = Prompter(model_dir)
    tokenizer = WhisperTokenizer.from_pretrained(model_dir)
    end = IDS["<|endoftext|>"]
    assert prompter.target(" hello ", "fr") == [*tokenizer.encode(" hello", add_special_tokens=False), end]
    assert prompter.target("你好", "zh") == [*tokenizer.encode("你好", add_special_tokens=False), end]
    assert prompter.end == end


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=20))
def test_text_comes_back(model_dir, text):
    prompter = Prompter(model_dir)
    assert prompter.text(prompter.target(text, "zh")) == unicodedata.normalize("NFC", text.strip())


@pytest.mark.parametrize("written", ["Đây là tiếng Việt", "पढ़ाई का घोड़ा है"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_text_in_another_unicode_form_scores_as_the_same_text(model_dir, written, form):
    """References are in NFC. Whisper also writes other forms, as the one letter for the two of NFC in Hindi."""
    reference = unicodedata.normalize("NFC", written)
    tokens = Prompter(model_dir).target(unicodedata.normalize(form, written).replace("\u0922\u093c", "\u095d"), "hi")
    hypothesis = Prompter(model_dir).text(tokens)
    assert hypothesis == reference
    assert bleu([hypothesis], [reference], "hi") == pytest.approx(100)


def test_logits_are_those_of_transformers(own, whole):
    tokens = torch.tensor([[257, 260, 358, 363, 5, 9]] * 2)
    padded, _ = pad_frames(frames(30, 30))
    with torch.no_grad():
        theirs = whole(decoder_input_ids=tokens, encoder_outputs=(padded,)).logits
        assert torch.equal(own(tokens, padded).logits, theirs)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_frames_behind_the_end_are_not_seen(own, whole, lengths):
    tokens = torch.tensor([[257, 260, 358, 363, 5, 9]] * len(lengths))
    sound = frames(*lengths)
    padded, counts = pad_frames(sound)
    behind = torch.arange(padded.shape[1]) >= counts[:, None]
    padded[behind] = 1000.0  # where anything looked at the padding, it would show
    with torch.no_grad():
        together = own(tokens, padded, counts).logits
        for i, heard in enumerate(sound):
            alone = whole(decoder_input_ids=tokens[i : i + 1], encoder_outputs=(torch.from_numpy(heard).float()[None],))
            torch.testing.assert_close(together[i], alone.logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("named", ["sdpa", "eager"])
def test_an_attention_that_the_config_names_does_not_see_the_padding_either(model_dir, own, tmp_path, named):
    """Some checkpoints have `_attn_implementation` in config.json, so that transformers takes it by default."""
    named_dir = shutil.copytree(model_dir, tmp_path / "model")
    config = json.loads((named_dir / "config.json").read_text())
    (named_dir / "config.json").write_text(json.dumps(config | {"_attn_implementation": named}))
    sound, tokens = frames(25, 40, 7), torch.tensor([[257, 260, 358, 363, 5, 9]] * 3)
    padded, counts = pad_frames(sound)
    with torch.no_grad():
        assert torch.equal(load_decoder(named_dir)(tokens, padded, counts).logits, own(tokens, padded, counts).logits)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_are_those_that_transformers_writes(own, whole, num_beams):
    """Recordings of different lengths in one batch, against one after another through the whole model."""
    sound = frames(25, 40, 7)
    prompts = [[257, 260, 358, 363], [257, 265, 359, 363], [257, 260, 359, 363]]
    written = generate(own, sound, prompts, num_beams=num_beams, max_tokens=12)
    for tokens, heard, prompt in zip(written, sound, prompts, strict=True):
        states = BaseModelOutput(last_hidden_state=torch.from_numpy(heard).float()[None])
        # The search of every model; Whisper's own generate works on 30 s of sound only.
        theirs = (
            super(type(whole).__mro__[1], whole)
            .generate(
                decoder_input_ids=torch.tensor([prompt]),
                encoder_outputs=states,
                num_beams=num_beams,
                do_sample=False,
                max_new_tokens=12,
                max_length=None,
            )[0, 4:]
            .tolist()
        )
        assert tokens == list(itertools.takewhile(lambda token: token != IDS["<|endoftext|>"], theirs))
    assert len({tuple(tokens) for tokens in written}) == 3


MIXED = ["fr", "zh", "sw"]
LANGUAGE_IDS = [IDS[f"<|{code}|>"] for code in CODES]


def detected_alone(whole, heard):
    """Logits after the start token, and the language that transformers detects, of one recording by the whole model."""
    states = BaseModelOutput(last_hidden_state=torch.from_numpy(heard).float()[None])
    with torch.no_grad():
        logits = whole(decoder_input_ids=torch.tensor([[START]]), encoder_outputs=states).logits[0, -1]
    return logits.numpy().astype(np.float64), whole.detect_language(encoder_outputs=states).item()


def naive_softmax(logits, tokens):
    weights = {token: np.exp(logits[token]) for token in tokens}
    return [weights.get(token, 0.0) / sum(weights.values()) for token in range(len(logits))]


def test_languages_are_those_that_transformers_detects(own, whole):
    sound = frames(25, 40, 7, 300, 3, seed=3)
    probabilities = language_probabilities(own, sound)
    found = set()
    for heard, row in zip(sound, probabilities, strict=True):
        logits, language = detected_alone(whole, heard)
        assert row.argmax() == language
        np.testing.assert_allclose(row.numpy(), naive_softmax(logits, LANGUAGE_IDS), rtol=1e-4, atol=1e-7)
        found.add(language)
    assert len(found) > 1  # were they all the same, mistakes would not show


@settings(max_examples=20, deadline=None)
@given(hidden=st.sets(st.sampled_from(LANGUAGE_IDS), max_size=len(LANGUAGE_IDS) - 1), seed=st.integers(0, 3))
def test_what_is_hidden_is_not_detected_and_the_rest_share_its_part(own, hidden, seed):
    sound = frames(20, 5, seed=seed)
    everything, seen = language_probabilities(own, sound).double(), language_probabilities(own, sound, hidden).double()
    assert seen[:, list(hidden)].sum() == 0
    left = everything.clone()
    left[:, list(hidden)] = 0
    torch.testing.assert_close(seen, left / left.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-7)


def test_some_language_must_be_left(own):
    with pytest.raises(ValueError, match="every language is hidden"):
        language_probabilities(own, frames(5), LANGUAGE_IDS)


def weights_of(decoder, *mixtures):
    """A row of weights for each recording: what each language has in its mixture."""
    rows = torch.zeros(len(mixtures), decoder.config.vocab_size)
    for row, mixture in zip(rows, mixtures, strict=True):
        for code, weight in mixture.items():
            row[IDS[f"<|{code}|>"]] = weight
    return rows


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_mixture_of_one_language_is_its_token(own, num_beams):
    sound, search = frames(25, 40, 7), {"num_beams": num_beams, "max_tokens": 12}
    named, others = ([[START, IDS[f"<|{code}|>"], 358, 363] for code in codes] for codes in (MIXED, ["en"] * 3))
    mixed = generate(own, sound, others, languages=weights_of(own, *({code: 1} for code in MIXED)), **search)
    assert mixed == generate(own, sound, named, **search)
    assert mixed != generate(own, sound, others, **search)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_mixture_of_two_is_a_token_of_the_mean_embedding(own, num_beams):
    """Against a model in whose table a token that nothing uses holds the mean, one recording after another."""
    sound, search = frames(25, 40, 7), {"num_beams": num_beams, "max_tokens": 12}
    mixtures = [{"fr": 0.5, "zh": 0.5}, {"fr": 0.9, "sw": 0.1}, {"ru": 0.2, "de": 0.3, "it": 0.5}]
    prompts = [[START, IDS["<|fr|>"], 358, 363]] * 3
    mixed = generate(own, sound, prompts, languages=weights_of(own, *mixtures), **search)
    other = copy.deepcopy(own)
    other.proj_out.weight = torch.nn.Parameter(own.proj_out.weight.clone())  # the table only, not the logits
    table = other.get_input_embeddings().weight
    for heard, mixture, written in zip(sound, mixtures, mixed, strict=True):
        mean = sum(weight * table[IDS[f"<|{code}|>"]] for code, weight in mixture.items())
        with torch.no_grad():
            table[IDS["<|startoflm|>"]] = mean
        assert [written] == generate(other, [heard], [[START, IDS["<|startoflm|>"], 358, 363]], **search)
    assert mixed != generate(own, sound, prompts, **search)


def test_no_text_is_longer_than_asked_or_than_the_decoder(own):
    sound = frames(10)
    assert all(len(tokens) <= 3 for tokens in generate(own, sound, [[257, 260, 358, 363]], max_tokens=3))
    assert all(len(tokens) <= 444 for tokens in generate(own, sound, [[257, 260, 358, 363]], max_tokens=10_000))


def test_weights_are_those_of_the_file_without_the_encoder(model_dir, own):
    stored = load_file(model_dir / "model.safetensors")
    weights = read_weights(model_dir)
    assert weights.keys() == {name for name in stored if name.startswith("model.decoder.")}
    loaded = dict(own.named_parameters())
    for name, tensor in weights.items():
        assert torch.equal(tensor, stored[name].float())
        assert torch.equal(loaded[name], tensor)
    assert not any("model.encoder." in name for name in loaded)
    assert own.proj_out.weight is own.model.decoder.embed_tokens.weight


def test_between_two_models_lies_a_line():
    start, end = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 0.0])}
    assert decoder.interpolate(start, end, 0.25)["w"].tolist() == [1.0, 1.5]
    assert decoder.interpolate(start, end, 0.0)["w"].tolist() == [0.0, 2.0]
    assert decoder.interpolate(start, end, 1.0)["w"].tolist() == [4.0, 0.0]
    with pytest.raises(ValueError, match="do not have the same weights"):
        decoder.interpolate(start, {"w": torch.zeros(3)}, 0.5)


def test_an_output_layer_of_its_own_is_used(model_dir, tmp_path):
    """Against the whole model of transformers, whose output layer was drawn anew."""
    folder = shutil.copytree(model_dir, tmp_path / "untied")
    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    model.config.tie_word_embeddings = False
    torch.manual_seed(1)
    model.proj_out.weight = torch.nn.Parameter(torch.randn(model.proj_out.weight.shape))
    model.save_pretrained(folder)
    own = load_decoder(folder)
    assert read_weights(folder).keys() - read_weights(model_dir).keys() == {"proj_out.weight"}
    assert torch.equal(own.proj_out.weight, model.proj_out.weight)
    assert torch.equal(own.get_input_embeddings().weight, model.model.decoder.embed_tokens.weight)
    tokens = torch.tensor([[257, 260, 358, 363, 5, 9]])
    padded, _ = pad_frames(frames(30))
    with torch.no_grad():
        theirs = model.eval()(decoder_input_ids=tokens, encoder_outputs=(padded,)).logits
        assert torch.equal(own(tokens, padded).logits, theirs)


def test_weights_that_do_not_fit_are_refused(model_dir):
    own, weights = decoder.empty_decoder(model_dir), read_weights(model_dir)
    gone = {name: weight for name, weight in weights.items() if name != "model.decoder.layer_norm.bias"}
    with pytest.raises(UserError, match=r"model.decoder.layer_norm.bias on one side alone"):
        decoder.set_weights(own, gone)
    with pytest.raises(UserError, match="extra on one side alone"):
        decoder.set_weights(own, weights | {"extra": torch.zeros(1)})
