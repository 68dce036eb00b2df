"""The front end against transformers' own, and every way in which `--model` can name a model or fail to."""

import hashlib
import json

import huggingface_hub
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import tiny_whisper
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from xlt_ray.errors import UserError
from xlt_ray.models import whisper
from xlt_ray.models.encoder import load_encoder, log_mel, mel_filters

torch.set_num_threads(1)

EXTRACTORS = {num_mels: WhisperFeatureExtractor(feature_size=num_mels) for num_mels in (80, 128)}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def filters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extractors")
    for num_mels, extractor in EXTRACTORS.items():
        extractor.save_pretrained(folder / str(num_mels))
    return {num_mels: mel_filters(folder / str(num_mels)) for num_mels in EXTRACTORS}


def sound(num_samples, kind, seed=0):
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(num_samples)
    tone = np.sin(2 * np.pi * 440 * np.arange(num_samples) / 16_000)
    waveform = {
        "noise": 0.1 * noise,
        "tone": 0.5 * tone + 1e-4 * noise,
        "burst": noise * (np.arange(num_samples) > num_samples - 100),
        "faint": 1e-6 * noise,
        "silent": 0 * noise,
    }
    return waveform[kind].astype(np.float32)


def reference(waveform, num_mels=80):
    features = EXTRACTORS[num_mels](waveform, sampling_rate=16_000, return_tensors="pt")
    return features.input_features[0]


@given(st.integers(1, 480_000))
@example(320)
@example(321)
@example(480_000)
def test_valid_frames_are_those_that_start_before_the_end(num_samples):
    assert whisper.valid_frames(num_samples) == len(range(0, num_samples, 320))


@pytest.mark.parametrize("num_samples", [-1, 0, 480_001])
def test_no_valid_frames_outside_of_whisper(num_samples):
    with pytest.raises(ValueError, match=f"^{num_samples} samples; Whisper takes 1 to 480000"):
        whisper.valid_frames(num_samples)


EDGES = [1, 2, 159, 160, 199, 200, 201, 319, 320, 321, 480_000 - 361, 480_000 - 360, 480_000 - 359]
EDGES += [480_000 - n for n in (321, 320, 241, 201, 200, 161, 160, 41, 40, 39, 2, 1, 0)]


@settings(max_examples=60, deadline=None)
@given(
    num_samples=st.sampled_from(EDGES) | st.integers(1, 480_000),
    kind=st.sampled_from(["noise", "tone", "burst", "faint", "silent"]),
    num_frames=st.integers(1, 1500),
)
def test_log_mel_equals_that_of_transformers(filters, num_samples, kind, num_frames):
    waveform = sound(num_samples, kind, seed=num_samples)
    mel = log_mel(torch.from_numpy(waveform), num_frames, filters[80])
    assert mel.shape == (80, 2 * num_frames)
    assert (mel - reference(waveform)[:, : 2 * num_frames]).abs().max() <= 1e-6


@pytest.mark.parametrize("num_samples", EDGES)
def test_log_mel_at_the_edges(filters, num_samples):
    waveform = sound(num_samples, "burst")
    mel = log_mel(torch.from_numpy(waveform), 1500, filters[80])
    assert (mel - reference(waveform)).abs().max() <= 1e-6


def test_log_mel_of_a_batch_is_that_of_each(filters):
    waveforms = [sound(length, kind) for length, kind in ((480_000, "noise"), (17_000, "tone"), (1, "noise"))]
    padded = torch.zeros(3, 1, 480_000)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[0, : len(waveform)] = torch.from_numpy(waveform)
    mel = log_mel(padded, 1500, filters[128])
    assert mel.shape == (3, 1, 128, 3000)
    for row, waveform in zip(mel, waveforms, strict=True):
        assert (row[0] - reference(waveform, 128)).abs().max() <= 1e-6


FLEURS = """
af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn cs_cz cy_gb da_dk
de_de el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu
hy_am id_id ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd
lo_la lt_lt luo_ke lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr
om_et or_in pa_in pl_pl ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in
tg_tj th_th tr_tr uk_ua umb_ao ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za
"""
WITHOUT_TOKEN = """
ast_es ceb_ph ckb_iq ff_sn ga_ie ig_ng kam_ke kea_cv ky_kg lg_ug luo_ke nso_za ny_mw om_et or_in umb_ao wo_sn
xh_za zu_za
"""
RESPELT = {"cmn_hans_cn": "zh", "yue_hant_hk": "yue", "nb_no": "no", "fil_ph": "tl", "jv_id": "jw"}


def test_languages_of_fleurs():
    known = {f"<|{code}|>" for code in LANGUAGES}
    without = set(WITHOUT_TOKEN.split())
    tokens = {config: whisper.language_token(config, known) for config in FLEURS.split()}
    assert (len(tokens), len(without)) == (102, 19)
    assert {config for config, token in tokens.items() if token is None} == without
    spelt = {config: RESPELT.get(config, config.split("_")[0]) for config in tokens.keys() - without}
    assert {config: tokens[config] for config in spelt} == {config: f"<|{code}|>" for config, code in spelt.items()}


def test_languages_of_a_model(model_dir):
    known = whisper.language_ids(model_dir)
    tokenizer = json.loads((model_dir / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert known == {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES if code != "yue"}
    codes = ["yue", "zh-CN", "zh_TW", "sv-SE", "NB", "haw", "kea", "e"]
    tokens = ["<|zh|>", "<|zh|>", "<|zh|>", "<|sv|>", "<|no|>", "<|haw|>", None, None]
    assert [whisper.language_token(code, known) for code in codes] == tokens


def same_encoder(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name].to(ours[name])) for name in ours)


def test_the_encoder_is_frozen_and_that_of_the_model(model_dir):
    encoder = load_encoder(model_dir, "cpu", torch.float32)
    assert same_encoder(encoder, WhisperForConditionalGeneration.from_pretrained(model_dir).model.encoder)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    half = load_encoder(model_dir, "cpu", torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert whisper.num_encoder_layers(model_dir) == len(encoder.layers) == 2


@pytest.mark.parametrize("cls", [WhisperForConditionalGeneration, WhisperModel])
def test_the_encoder_out_of_shards(model_dir, tmp_path, cls):
    model = cls.from_pretrained(model_dir)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert same_encoder(load_encoder(tmp_path, "cpu", torch.float32), model.get_encoder())


def test_only_the_encoder_is_read(model_dir, tmp_path):
    weights = load_file(model_dir / "model.safetensors")
    encoder = {name: tensor for name, tensor in weights.items() if name.startswith("model.encoder.")}
    (tmp_path / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    save_file(encoder, tmp_path / "model.safetensors")
    assert len(encoder) < len(weights)
    same = same_encoder(load_encoder(tmp_path, "cpu", torch.float32), load_encoder(model_dir, "cpu", torch.float32))
    assert same
    encoder.popitem()
    save_file(encoder, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="Missing key"):
        load_encoder(tmp_path, "cpu", torch.float32)


def test_the_identity_of_one_file_is_its_hash(model_dir, tmp_path):
    content = (model_dir / "model.safetensors").read_bytes()
    assert whisper.weights_sha256(model_dir) == hashlib.sha256(content).hexdigest()
    (tmp_path / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert whisper.weights_sha256(tmp_path) != whisper.weights_sha256(model_dir)


def test_the_identity_of_shards_sees_every_shard(model_dir, tmp_path):
    WhisperModel.from_pretrained(model_dir).save_pretrained(tmp_path, max_shard_size="100KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    seen = {whisper.weights_sha256(tmp_path)}
    for shard in shards:
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen.add(whisper.weights_sha256(tmp_path))
    assert len(seen) == len(shards) + 1
    (tmp_path / "other.safetensors").write_bytes(b"not of the model")
    assert whisper.weights_sha256(tmp_path) in seen


def test_a_whole_directory_is_used_as_it_is(model_dir, monkeypatch):
    assert whisper.resolve_model(str(model_dir)) == model_dir
    monkeypatch.chdir(model_dir.parent)
    assert whisper.resolve_model(model_dir.name) == model_dir
    monkeypatch.setenv("HOME", str(model_dir.parent))
    assert whisper.resolve_model(f"~/{model_dir.name}") == model_dir


def files_without(model_dir, tmp_path, *names):
    for path in model_dir.iterdir():
        if path.name not in names:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "no config.json;"),
        ("generation_config.json", "no generation_config.json;"),
        ("preprocessor_config.json", "no preprocessor_config.json or processor_config.json;"),
        ("tokenizer.json", "no tokenizer.json or vocab.json;"),
        ("model.safetensors", "no model.safetensors or model.safetensors.index.json;"),
    ],
)
def test_an_incomplete_directory_is_refused(model_dir, tmp_path, missing, message):
    with pytest.raises(UserError, match=message):
        whisper.resolve_model(str(files_without(model_dir, tmp_path, missing)))


def test_pickled_weights_are_refused(model_dir, tmp_path):
    files_without(model_dir, tmp_path, "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match="a pickle can run any code; where you trust it"):
        whisper.resolve_model(str(tmp_path))


def test_another_kind_of_model_is_refused(model_dir, tmp_path):
    files_without(model_dir, tmp_path, "config.json")
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(UserError, match="of type 'wav2vec2'; only whisper"):
        whisper.resolve_model(str(tmp_path))


@pytest.mark.parametrize("spec", ["whisper-base", "/no/such/place", "./openai/x", "wheels:other", "s3://bucket/x"])
def test_what_names_no_model(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a Hub id such as openai/whisper-base, or wheels:whisper-base"):
        whisper.resolve_model(spec)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_model_comes_from_the_cache(model_dir, hub_cache):
    repository = hub_cache / "models--someone--whisper-tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    files_without(model_dir, snapshot)
    assert whisper.resolve_model("someone/whisper-tiny") == snapshot
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"'someone/whisper-tiny' is neither .* no tokenizer.json"):
        whisper.resolve_model("someone/whisper-tiny")


def test_a_hub_model_that_cannot_be_had(hub_cache):
    with pytest.raises(
        UserError, match=r"'openai/whisper-base' is not on this machine .* `hf download openai/whisper-base`"
    ):
        whisper.resolve_model("openai/whisper-base")
    with pytest.raises(UserError, match="the Hub has no model 'a/b--c'"):
        whisper.resolve_model("a/b--c")
