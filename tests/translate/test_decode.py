"""Hypotheses against transformers' own generate, one recording at a time; weights against the files they come from."""

import copy
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from tiny import CODES, END, IDS, START, tiny_whisper
from transformers import GenerationMixin, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.modeling_outputs import BaseModelOutput

from xlt_ray.errors import UserError
from xlt_ray.models.prompts import Prompter
from xlt_ray.store import reading, shards
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import HYPOTHESIS, embedding_schema
from xlt_ray.translate import decode
from xlt_ray.translate import scores as results

torch.set_num_threads(1)

MAX_TOKENS = 20
LENGTHS = [40, 1500, 3, 90, 41, 90, 700]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The tiny model, and one whose decoder is another."""
    base = tiny_whisper(tmp_path_factory.mktemp("base"))
    tuned = tmp_path_factory.mktemp("tuned")
    model = WhisperForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.model.decoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(tuned)
    return base, tuned


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Recordings of different lengths in two shards, as rows of TASK in two directions."""
    embeddings = Artifact.at(str(tmp_path_factory.mktemp("root")), "embed", "noise")
    generator = np.random.default_rng(0)
    recordings = []
    for number, length in enumerate(LENGTHS):
        frames = (0.7 * generator.standard_normal((length, 32))).astype(np.float16)
        counts = {"num_samples": 320 * length, "num_valid": length, "num_frames": length, "dim": 32}
        ids = {"utterance_id": f"fr-{number}", "sentence_id": f"s{number}", "language": "fr", "audio": "/x.wav"}
        text = {"member": "", "text": None if number == 2 else f"texte {number}", "translations": [], "split": "test"}
        recordings.append({**ids, **text, "speaker": None, **counts, "frames": frames.tobytes()})
    for unit, part in (("fr-00000", recordings[:4]), ("fr-00001", recordings[4:])):
        table = pa.Table.from_pylist(part, schema=embedding_schema())
        embeddings.write_table(f"data/{unit}.parquet", table, row_group_size=1)
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    tasks = []
    for number, recording in enumerate(recordings):
        unit, row = places[number]
        shard = embeddings.path("data", f"fr-{unit:05d}.parquet")
        where = {"direction": "fr-en" if number % 2 else "fr-zh", "reference": f"r{number}", "shard": shard, "row": row}
        tasks.append({**{key: recording[key] for key in shards.TASK.names if key in recording}, **where})
    frames = [np.frombuffer(recording["frames"], np.float16).reshape(-1, 32) for recording in recordings]
    return pa.Table.from_pylist(tasks, schema=shards.TASK), frames


def prompt_of(direction, scheme):
    """The prompt, by hand: English is a task that Whisper knows, Chinese is not."""
    language, task = ("fr", "translate") if direction == "fr-en" else scheme
    return [IDS[token] for token in ("<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>", "<|notimestamps|>")]


def witness(model_dir, frames, prompt, num_beams):
    """Text and number of tokens of one recording alone, by transformers' whole model and its general generate.

    Whisper's own generate would begin a new segment after each timestamp, and a random model writes them at random.
    """
    return written_by(WhisperForConditionalGeneration.from_pretrained(model_dir), model_dir, frames, prompt, num_beams)


def written_by(model, model_dir, frames, prompt, num_beams):
    with torch.inference_mode():
        out = GenerationMixin.generate(
            model,
            encoder_outputs=BaseModelOutput(torch.from_numpy(frames.astype(np.float32))[None]),
            decoder_input_ids=torch.tensor([prompt]),
            num_beams=num_beams,
            max_new_tokens=MAX_TOKENS,
        )
    tokens = [token for token in out[0, len(prompt) :].tolist() if token != END]
    return WhisperTokenizer.from_pretrained(model_dir).decode(tokens, skip_special_tokens=True).strip(), len(tokens)


def translator(model_dir, decoder, **options):
    how = {"scheme": "tgt_translate", "source_prompt": None, "hidden": ()}
    asked = {**how, "num_beams": 1, "max_tokens": MAX_TOKENS, "batch_size": 3} | options
    return decode.Translator(decoder=decoder, prompter=Prompter(model_dir), **asked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_beams", "scheme", "prompt"),
    [
        (1, "tgt_translate", ("zh", "translate")),
        (3, "tgt_translate", ("zh", "translate")),
        (1, "tgt_transcribe", ("zh", "transcribe")),
        (1, "src_translate", ("fr", "translate")),
    ],
)
def test_hypotheses_are_those_of_transformers(models, rows, num_beams, scheme, prompt):
    base, _ = models
    table, frames = rows
    decoder = decode.load(base, None, 1.0, "cpu")
    written = translator(base, decoder, num_beams=num_beams, scheme=scheme).translate(table)
    assert written.schema == HYPOTHESIS
    expected = [
        witness(base, sound, prompt_of(direction, prompt), num_beams)
        for sound, direction in zip(frames, table["direction"].to_pylist(), strict=True)
    ]
    assert list(zip(written["hypothesis"].to_pylist(), written["num_tokens"].to_pylist(), strict=True)) == expected
    assert len({text for text, _ in expected}) > 3  # a witness that says the same of all would see no mistake


def detect(model, frames, hidden):
    """Probability of each language by transformers' whole model, one recording at a time: by code, hidden ones not."""
    states = BaseModelOutput(torch.from_numpy(frames.astype(np.float32))[None])
    with torch.inference_mode():
        logits = model(decoder_input_ids=torch.tensor([[START]]), encoder_outputs=states).logits[0, -1].double()
    weights = {code: logits[IDS[f"<|{code}|>"]].exp().item() for code in CODES if code not in hidden}
    if not hidden:
        assert IDS[f"<|{max(weights, key=weights.get)}|>"] == model.detect_language(encoder_outputs=states).item()
    return {code: weight / sum(weights.values()) for code, weight in weights.items()}


def mixed_model(model_dir, mixture):
    """The whole model with the mean of language embeddings in the place of <|fr|>, and the output as it was."""
    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    other = WhisperForConditionalGeneration(config)
    other.load_state_dict(model.state_dict())
    other.generation_config = model.generation_config
    with torch.no_grad():
        other.proj_out.weight = torch.nn.Parameter(model.proj_out.weight.clone())
        table = model.model.decoder.embed_tokens.weight
        mean = sum(weight * table[IDS[f"<|{code}|>"]].double() for code, weight in mixture.items())
        other.model.decoder.embed_tokens.weight[IDS["<|fr|>"]] = mean.float()
    return other.eval()


def expected_text(base, frames, direction, source_prompt, probabilities):
    """Text of one recording: the source prompt counts into English, and Chinese keeps its scheme."""
    model = WhisperForConditionalGeneration.from_pretrained(base)
    prompt = prompt_of(direction, ("zh", "translate"))
    if direction == "fr-en" and source_prompt == "soft":
        model = mixed_model(base, probabilities)
    elif direction == "fr-en":
        named = {"auto": max(probabilities, key=probabilities.get), None: "fr"}
        prompt[1] = IDS[f"<|{named.get(source_prompt, source_prompt)}|>"]
    return written_by(model, base, frames, prompt, 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source_prompt", "hidden"), [("es", ()), ("auto", ()), ("auto", "most"), ("soft", ()), ("soft", "most")]
)
def test_source_prompts_are_heeded_in_whispers_own_tasks(models, rows, source_prompt, hidden):
    """Into English and, in the same batches, into Chinese, which is no task of Whisper's; against its whole model."""
    base, _ = models
    table, frames = rows
    directions = table["direction"].to_pylist()
    model = WhisperForConditionalGeneration.from_pretrained(base)
    likeliest = [max(detect(model, sound, ()).items(), key=lambda item: item[1])[0] for sound in frames]
    hidden = sorted(set(likeliest)) if hidden else []
    probabilities = [detect(model, sound, hidden) for sound in frames]
    tokens = [IDS[f"<|{code}|>"] for code in hidden]
    decoder = decode.load(base, None, 1.0, "cpu")
    written = translator(base, decoder, source_prompt=source_prompt, hidden=tokens).translate(table)
    expected = [
        expected_text(base, *case) for case in zip(frames, directions, [source_prompt] * 7, probabilities, strict=True)
    ]
    assert written["hypothesis"].to_pylist() == expected
    ordinary = translator(base, decoder).translate(table)["hypothesis"].to_pylist()
    differs = [direction for direction, one, other in zip(directions, expected, ordinary, strict=True) if one != other]
    assert set(differs) == {"fr-en"}
    found = Counter(
        max(shares, key=shares.get) for shares, name in zip(probabilities, directions, strict=True) if name == "fr-en"
    )
    counts = results.detected([written])
    if source_prompt == "es":
        assert counts is None
    else:
        assert counts == {"fr-en": {code: number / 3 for code, number in found.items()}}
        assert not set(hidden) & counts["fr-en"].keys()


@pytest.mark.parametrize("source_prompt", ["auto", "soft"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_detection_is_of_each_recording_alone(models, rows, source_prompt, num_beams):
    base, _ = models
    table, _ = rows
    decoder = decode.load(base, None, 1.0, "cpu")
    asked = {"source_prompt": source_prompt, "num_beams": num_beams}
    alone, together = (translator(base, decoder, batch_size=size, **asked).translate(table) for size in (1, 100))
    assert alone == together
    assert results.detected([alone]) == results.detected([together])


def test_a_related_language_is_named(models, rows):
    base, _ = models
    table, _ = rows
    renamed = table.set_column(0, "direction", pa.array(["ceb-en"] * table.num_rows))
    decoder = decode.load(base, None, 1.0, "cpu")
    related, tagalog = (
        translator(base, decoder, source_prompt=prompt).translate(renamed) for prompt in ("related", "tl")
    )
    assert related == tagalog
    with pytest.raises(UserError, match="no related language is known for 'fr'"):
        translator(base, decoder, source_prompt="related").translate(table)


def test_counts_of_detection_lie_in_the_files_with_the_texts(tmp_path, models, rows):
    """Where the run goes on after a crash, they are read with the rows; the rows are read as ever."""
    base, _ = models
    table, _ = rows
    asked = translator(base, decode.load(base, None, 1.0, "cpu"), source_prompt="auto")
    artifact = Artifact.at(str(tmp_path), "translate", "run")
    whole = asked.translate(table)
    for number, part in enumerate((table.slice(0, 3), table.slice(3))):
        artifact.write_table(f"data/{number}.parquet", asked.translate(part))
    files = [reading.table_of(artifact.path("data", f"{number}.parquet")) for number in range(2)]
    assert results.detected(files) == results.detected([whole])
    gathered = results.by_direction([*files, translator(base, asked.decoder).translate(table).slice(0, 0)])
    assert sum(part.num_rows for part in gathered.values()) == table.num_rows


def test_what_is_not_written_is_passed_on(models, rows):
    base, _ = models
    table, _ = rows
    written = translator(base, decode.load(base, None, 1.0, "cpu"), max_tokens=1).translate(table)
    for name in ("direction", "utterance_id", "sentence_id", "text", "reference"):
        assert written[name].to_pylist() == table[name].to_pylist()
    assert max(written["num_tokens"].to_pylist()) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_size_of_a_batch_changes_nothing(models, rows, batch_size):
    base, _ = models
    table, _ = rows
    decoder = decode.load(base, None, 1.0, "cpu")
    expected = translator(base, decoder).translate(table)
    assert translator(base, decoder, batch_size=batch_size).translate(table) == expected


def test_a_batch_holds_recordings_of_similar_length(models, rows, monkeypatch):
    base, _ = models
    table, _ = rows
    seen = []

    def generate(_, frames, prompts, **__):
        seen.append([len(sound) for sound in frames])
        return [[] for _ in prompts]

    monkeypatch.setattr(decode, "generate", generate)
    translator(base, decode.load(base, None, 1.0, "cpu")).translate(table)
    assert seen == [[3, 40, 41], [90, 90, 700], [1500]]


def decoder_weights(model_dir):
    """Straight from the file."""
    state = load_file(model_dir / "model.safetensors")
    return {name: value for name, value in state.items() if name.startswith("model.decoder.")}


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, 1.5])
def test_weights_lie_on_the_line_from_model_to_checkpoint(models, alpha):
    start, end = map(decoder_weights, models)
    state = decode.load(*models, alpha, "cpu").state_dict()
    assert start.keys() <= state.keys()
    for name, value in start.items():
        torch.testing.assert_close(state[name], (1 - alpha) * value + alpha * end[name], rtol=1e-5, atol=1e-6)
        if alpha in (0, 1):
            assert torch.equal(state[name], end[name] if alpha else value)
    assert torch.equal(state["proj_out.weight"], state["model.decoder.embed_tokens.weight"])


def test_without_a_checkpoint_the_model_is_taken(models):
    state = decode.load(models[0], None, 1.0, "cpu").state_dict()
    assert all(torch.equal(state[name], value) for name, value in decoder_weights(models[0]).items())
