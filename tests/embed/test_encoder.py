"""The encoder against that of transformers, and its promise that a recording does not see the others of its batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_whisper
from transformers import WhisperFeatureExtractor, WhisperModel

from xlt_ray.corpora import asterisk, audio
from xlt_ray.embed.encoder import SpeechEncoder
from xlt_ray.errors import UserError
from xlt_ray.models import whisper
from xlt_ray.models.encoder import log_mel, mel_filters

torch.set_num_threads(1)

LENGTHS = [16_000, 100, 480_000, 320 * 77, 320 * 77 + 1, 16_000]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


def sounds(lengths, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 0.1, length).astype(np.float32) for length in lengths]


def reference(model_dir, waveform):
    """All hidden states of transformers, each (1500, dim): after 0, 1, ... blocks, the last with the final norm."""
    extractor = WhisperFeatureExtractor.from_pretrained(model_dir)
    features = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        out = WhisperModel.from_pretrained(model_dir).encoder(features, output_hidden_states=True)
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    return [states[0].numpy() for states in out.hidden_states]


def test_exact_is_what_transformers_computes(model_dir):
    waveforms = sounds(LENGTHS)
    encoder = SpeechEncoder(model_dir, encoding="exact", keep_margin=None, layers=(0, 1))
    for waveform, encoded in zip(waveforms, encoder.encode(waveforms), strict=True):
        *hidden, final = reference(model_dir, waveform)
        assert encoded.num_valid == math.ceil(len(waveform) / 320)
        assert encoded.final.dtype == np.float16
        assert encoded.final.shape == final.shape == (1500, 32)
        assert encoded.layers.keys() == {0, 1}
        for ours, theirs in [(encoded.final, final), (encoded.layers[0], hidden[0]), (encoded.layers[1], hidden[1])]:
            half = theirs.astype(np.float16).astype(np.float32)
            assert np.abs(ours - theirs).max() <= np.abs(half - theirs).max() + 1e-5
            assert np.abs(ours - theirs).max() <= 1e-3 * max(1, np.abs(theirs).max())


def test_before_storage_the_states_agree_to_float32(model_dir):
    waveform = sounds([50_000])[0]
    encoder = SpeechEncoder(model_dir)
    mel = log_mel(torch.from_numpy(waveform)[None], 1500, mel_filters(model_dir))
    states = dict(encoder._hidden_states(mel))
    assert np.abs(states[2][0].numpy() - reference(model_dir, waveform)[-1]).max() <= 1e-5


def naive_trimmed(model_dir, waveform, num_frames):
    """The encoder of transformers told that its context is short: it then computes as trimmed does, by definition."""
    extractor = WhisperFeatureExtractor.from_pretrained(model_dir)
    features = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features[..., : 2 * num_frames]
    encoder = WhisperModel.from_pretrained(model_dir).encoder
    encoder.config.max_source_positions = num_frames
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:num_frames])
    with torch.inference_mode():
        return [states[0].numpy() for states in encoder(features, output_hidden_states=True).hidden_states]


@pytest.mark.parametrize("margin", [0, 50, 1500])
def test_trimmed_is_the_encoder_with_a_short_context(model_dir, margin):
    waveforms = sounds(LENGTHS)
    encoder = SpeechEncoder(model_dir, encoding="trimmed", context_margin=margin, keep_margin=None, layers=(1,))
    for waveform, encoded in zip(waveforms, encoder.encode(waveforms), strict=True):
        num_frames = next(n for n in [*range(32, 1500, 32), 1500] if n >= min(1500, encoded.num_valid + margin))
        _, hidden, final = naive_trimmed(model_dir, waveform, num_frames)
        assert encoded.final.shape == encoded.layers[1].shape == (num_frames, 32)
        assert np.abs(encoded.final - final).max() <= 1e-3 * max(1, np.abs(final).max())
        assert np.abs(encoded.layers[1] - hidden).max() <= 1e-3 * max(1, np.abs(hidden).max())


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30_000), min_size=1, max_size=6),
    encoding=st.sampled_from(["exact", "trimmed"]),
    batch_frames=st.sampled_from([1, 64, 4000]),
)
def test_a_recording_does_not_see_the_others(model_dir, lengths, encoding, batch_frames):
    waveforms = sounds(lengths)
    encoder = SpeechEncoder(model_dir, encoding=encoding, layers=(0,), batch_frames=batch_frames)
    together = encoder.encode(waveforms)
    for waveform, one in zip(waveforms, together, strict=True):
        (alone,) = SpeechEncoder(model_dir, encoding=encoding, layers=(0,)).encode([waveform])
        assert one.num_valid == alone.num_valid
        for ours, theirs in ((one.final, alone.final), (one.layers[0], alone.layers[0])):
            assert ours.shape == theirs.shape
            # A product of another shape may round otherwise in float32, and so reach the next float16.
            np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), rtol=2**-10, atol=1e-5)


def test_batches_hold_equal_lengths_within_the_budget(model_dir, monkeypatch):
    seen = []
    encoder = SpeechEncoder(model_dir, encoding="trimmed", context_margin=0, batch_frames=100)
    hidden_states = encoder._hidden_states
    monkeypatch.setattr(encoder, "_hidden_states", lambda mel: seen.append(tuple(mel.shape)) or hidden_states(mel))
    frames = [3, 40, 32, 64, 10, 65, 33, 1500, 5]
    encoder.encode(sounds([320 * count for count in frames]))
    assert sorted(seen) == [
        (1, 80, 64),
        (1, 80, 128),
        (1, 80, 128),
        (1, 80, 128),
        (1, 80, 192),
        (1, 80, 3000),
        (3, 80, 64),
    ]


@pytest.mark.parametrize(
    ("encoding", "context_margin", "keep_margin", "kept"),
    [
        ("exact", 0, None, [1500, 1500, 1500]),
        ("exact", 0, 0, [1, 100, 1500]),
        ("exact", 0, 100, [101, 200, 1500]),
        ("trimmed", 0, None, [32, 128, 1500]),
        ("trimmed", 0, 10, [11, 110, 1500]),
        ("trimmed", 0, 100, [32, 128, 1500]),
        ("trimmed", 300, 100, [101, 200, 1500]),
        ("trimmed", 300, 0, [1, 100, 1500]),
    ],
)
def test_what_is_kept(model_dir, encoding, context_margin, keep_margin, kept):
    waveforms = sounds([320, 32_000, 480_000])
    options = {"context_margin": context_margin, "keep_margin": keep_margin, "encoding": encoding}
    encoded = SpeechEncoder(model_dir, layers=(1,), **options).encode(waveforms)
    everything = SpeechEncoder(model_dir, layers=(1,), **options | {"keep_margin": None}).encode(waveforms)
    assert [one.num_valid for one in encoded] == [1, 100, 1500]
    assert [len(one.final) for one in encoded] == [len(one.layers[1]) for one in encoded] == kept
    for one, whole in zip(encoded, everything, strict=True):
        assert np.array_equal(one.final, whole.final[: len(one.final)])
        assert np.array_equal(one.layers[1], whole.layers[1][: len(one.final)])


def test_nothing_in_nothing_out(model_dir):
    assert SpeechEncoder(model_dir).encode([]) == []


@pytest.mark.parametrize("num_samples", [0, 480_001])
def test_a_length_that_whisper_cannot_take(model_dir, num_samples):
    with pytest.raises(ValueError, match=f"{num_samples} samples"):
        SpeechEncoder(model_dir).encode(sounds([100, num_samples]))


@pytest.mark.parametrize("layers", [(2,), (-1,), (0, 7)])
def test_a_layer_that_is_not_there(model_dir, layers):
    with pytest.raises(UserError, match=r"no encoder layers .*; this model has 0 to 1"):
        SpeechEncoder(model_dir, layers=layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_beyond_float16_are_stored_as_its_limit(model_dir, dtype):
    encoder = SpeechEncoder(model_dir, layers=(0,), dtype=dtype)
    with torch.no_grad():
        encoder._model.embed_positions.weight[:, 0] = 1e6
        encoder._model.embed_positions.weight[:, 1] = -65_536.0
    (encoded,) = encoder.encode(sounds([1000]))
    assert (encoded.layers[0][:, 0] == 65_280).all()
    assert (encoded.layers[0][:, 1] == -65_280).all()
    assert np.isfinite(encoded.final).all()


@pytest.mark.real
def test_the_real_model():
    model_dir = whisper.resolve_model("wheels:whisper-base")
    rows = list(asterisk.asterisk("", ["it"], "test"))[:2]
    waveforms = [
        audio.decode(next(audio.read_recordings([audio.Place(row.audio, row.member)])), row.audio) for row in rows
    ]
    exact = SpeechEncoder(model_dir, encoding="exact", layers=(3,)).encode(waveforms)
    for waveform, encoded in zip(waveforms, exact, strict=True):
        states = reference(model_dir, waveform)
        for ours, theirs in ((encoded.final, states[-1]), (encoded.layers[3], states[3])):
            assert np.abs(ours - theirs[: len(ours)]).max() <= 1e-3 * max(1, np.abs(theirs).max())
    trimmed = SpeechEncoder(model_dir, encoding="trimmed", context_margin=300).encode(waveforms)
    for one, other in zip(exact, trimmed, strict=True):
        x, y = (frames.final[: one.num_valid].astype(np.float32) for frames in (one, other))
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert 0.9 < cosine.mean() < 1
