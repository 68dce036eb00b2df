"""The loop against transformers' own loss and a plain training loop, and against itself only where it is resumed."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from speech_frames import batch, examples
from tiny import tiny_whisper
from torch.nn.functional import cross_entropy
from transformers import WhisperForConditionalGeneration

from xlt_ray.finetune.batch import collate
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.context import LocalContext
from xlt_ray.finetune.ewc import Consolidation
from xlt_ray.finetune.learner import Learner, tuned_weights
from xlt_ray.finetune.loop import Step, Training, learning_rate, read_trained
from xlt_ray.finetune.parameters import count_parameters
from xlt_ray.models import decoder

GOLDEN = Path(__file__).parent.parent / "golden" / "finetune_loss.json"
EMBEDDINGS = "model.decoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


def learner(model_dir, **settings):
    return Learner(decoder.load_decoder(model_dir), FinetuneConfig(**settings))


def steps(count, micro=1, seed=0):
    """As many steps, each of 4 examples in `micro` micro-batches."""
    made = []
    for i in range(count):
        prompts, targets, frames = examples(seed=seed + i)
        cut = [slice(j, j + 4 // micro) for j in range(0, 4, 4 // micro)]
        parts = [collate(prompts[part], targets[part], frames[part]) for part in cut]
        made.append(Step(parts, 1.0, sum(len(target) for target in targets), 4))
    return made


def train(model_dir, folder, made, consolidation=None, **settings):
    own = learner(model_dir, **settings)
    context = LocalContext(folder)
    training = Training(own, FinetuneConfig(**settings), len(made), context, consolidation)
    with context.resume() as last:
        if last:
            training.restore(last)
    training.run(made[training.step :])
    return training, own


def test_the_loss_is_that_of_transformers(model_dir):
    """Where all recordings are equally long, WhisperForConditionalGeneration computes the same mean from labels."""
    given = batch((9, 9, 9))
    whole = WhisperForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32).eval()
    labels = torch.full_like(given.tokens, -100)
    labels[given.predicts] = given.targets
    with torch.no_grad():
        theirs = whole(decoder_input_ids=given.tokens, labels=labels, encoder_outputs=(given.frames,)).loss
        ours = learner(model_dir)(given) / len(given.targets)
    torch.testing.assert_close(ours, theirs)


def test_padding_changes_nothing(model_dir):
    prompts, targets, frames = examples((5, 14, 9))
    own = learner(model_dir)
    with torch.no_grad():
        together = own(collate(prompts, targets, frames))
        alone = sum(own(collate([p], [t], [f])) for p, t, f in zip(prompts, targets, frames, strict=True))
    torch.testing.assert_close(together, alone)


def test_a_run_is_that_of_a_plain_loop(model_dir, tmp_path):
    """AdamW on transformers' model, clipped, with the rate of the formula: the same losses and weights."""
    made = steps(4, micro=2)
    settings = {"learning_rate": 1e-2, "train_embeddings": True, "clip": 0.5}
    training, own = train(model_dir, tmp_path / "ours", made, **settings)

    plain = WhisperForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32)
    weights = list(plain.model.decoder.parameters())
    optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
    losses = []
    for i in range(4):
        optimizer.param_groups[0]["lr"] = 1e-2 * [1.0, 1.0, 2 / 3, 1 / 3][i]
        prompts, targets, frames = examples(seed=i)
        total = torch.zeros(())
        for prompt, target, heard in zip(prompts, targets, frames, strict=True):
            tokens = torch.tensor([[*prompt, *target[:-1]]])
            heard = torch.from_numpy(heard).float()[None]
            logits = plain(decoder_input_ids=tokens, encoder_outputs=(heard,)).logits[0, len(prompt) - 1 :]
            total = total + cross_entropy(logits, torch.tensor(target), reduction="sum")
        loss = total / sum(map(len, targets))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose([row["loss"] for row in training.log], losses, rtol=1e-5)
    theirs = {f"model.decoder.{name}": parameter for name, parameter in plain.model.decoder.named_parameters()}
    for name, parameter in own.trained.items():
        # Adam divides by the root of the gradient's square: where a gradient is all but 0, its rounding shows.
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-3, atol=1e-4)


def test_micro_batches_change_nothing(model_dir, tmp_path):
    losses = [
        [row["loss"] for row in train(model_dir, tmp_path / str(micro), steps(3, micro))[0].log] for micro in (1, 2, 4)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}, {"train_embeddings": True}])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_resumed_run_ends_in_the_same_bits(model_dir, tmp_path, settings, stop):
    made = steps(6)
    calm, _ = train(model_dir, tmp_path / "calm", made, checkpoint_every=1, **settings)
    first = learner(model_dir, **settings)
    context = LocalContext(tmp_path / "killed")
    killed = Training(first, FinetuneConfig(checkpoint_every=1, **settings), 6, context)

    def until_killed():
        yield from made[:stop]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.run(until_killed())
    again, _ = train(model_dir, tmp_path / "killed", made, checkpoint_every=1, **settings)
    assert [row["loss"] for row in again.log] == [row["loss"] for row in calm.log]
    states = [
        load_file(sorted((tmp_path / run_name).iterdir(), key=lambda path: int(path.name))[-1] / "state.safetensors")
        for run_name in ("calm", "killed")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_loss_of_the_tiny_model_is_the_golden_one(model_dir, tmp_path):
    """A change of any digit that this shows is a change of what training does. Other processors round otherwise."""
    training, _ = train(model_dir, tmp_path, steps(8), learning_rate=3e-3)
    golden = json.loads(GOLDEN.read_text())
    np.testing.assert_allclose([row["loss"] for row in training.log], golden, rtol=1e-4)
    assert golden[-1] < golden[0]


def test_the_rate_rises_in_a_line_and_falls_in_a_line():
    rates = [learning_rate(step, 20, 0.25, 1.0) for step in range(20)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(rates[5:], np.arange(15, 0, -1) / 15)
    assert learning_rate(0, 10, 0.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("settings", "trains"),
    [
        ({}, lambda name: name != EMBEDDINGS),
        ({"train_embeddings": True}, lambda name: True),
        ({"lora_rank": 2}, lambda name: "lora_" in name),
        ({"lora_rank": 2, "train_embeddings": True}, lambda name: "lora_" in name or name == EMBEDDINGS),
    ],
)
def test_what_trains_is_what_was_asked(model_dir, tmp_path, settings, trains):
    _, own = train(model_dir, tmp_path, steps(2), learning_rate=1e-2, **settings)
    fresh = dict(learner(model_dir, **settings).decoder.named_parameters())
    moved = {name for name, parameter in own.decoder.named_parameters() if not torch.equal(parameter, fresh[name])}
    assert moved == {name for name in fresh if trains(name)}
    assert set(own.trained) == moved
    trained, whole = count_parameters(model_dir, FinetuneConfig(**settings))
    assert trained == sum(fresh[name].numel() for name in moved)
    assert whole == sum(parameter.numel() for parameter in decoder.load_decoder(model_dir).parameters())


def test_adapters_have_the_size_of_their_rank(model_dir):
    """2 x 32 x rank for a square matrix; 2 layers of 8 attention matrices, fc1 and fc2 (32 by 48)."""
    trained, _ = count_parameters(model_dir, FinetuneConfig(lora_rank=3))
    assert trained == 2 * (8 * 3 * (32 + 32) + 2 * 3 * (32 + 48))


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}])
def test_the_weights_that_come_out_do_what_the_trained_ones_did(model_dir, tmp_path, settings):
    training, own = train(model_dir, tmp_path, steps(3), learning_rate=1e-2, **settings)
    trained, log = read_trained(tmp_path / "0")
    assert log == training.log
    out = tuned_weights(model_dir, FinetuneConfig(**settings), trained)
    fresh = decoder.load_decoder(model_dir)
    assert set(out) == set(decoder.read_weights(model_dir))
    fresh.load_state_dict(out, strict=False)
    given = batch((6, 11))
    inputs = {"input_ids": given.tokens, "encoder_outputs": given.frames, "num_frames": given.num_frames}
    with torch.no_grad():
        before = decoder.load_decoder(model_dir)(**inputs).logits
        tuned = own.decoder.eval()(**inputs).logits
        torch.testing.assert_close(fresh(**inputs).logits, tuned, rtol=1e-4, atol=1e-4)
    assert (tuned - before).abs().max() > 0.01


def test_consolidation_holds_from_the_first_step_and_through_a_resume(model_dir, tmp_path):
    made = steps(6)
    base = {name: parameter.detach().clone() for name, parameter in learner(model_dir).trained.items()}

    def distance(strength, folder, stop=6):
        own = learner(model_dir, learning_rate=1e-2, checkpoint_every=1)
        fisher = {name: torch.ones_like(parameter) for name, parameter in own.trained.items()}
        anchor = {name: parameter.detach().clone() for name, parameter in own.trained.items()}
        context = LocalContext(tmp_path / folder)
        ewc = Consolidation(own.trained, anchor, fisher, strength)
        training = Training(own, FinetuneConfig(learning_rate=1e-2, checkpoint_every=1), 6, context, ewc)
        with context.resume() as last:
            if last:
                training.restore(last)
        training.run(made[training.step : stop])
        moved = math.sqrt(
            sum(float((parameter - base[name]).square().sum()) for name, parameter in own.trained.items())
        )
        return moved, training.log

    free, log = distance(0.0, "free")
    pinned, _ = distance(1e6, "pinned")
    assert pinned < 0.2 * free
    assert log[0]["penalty"] == 0.0
    soft, calm = distance(1.0, "calm")
    assert pinned < soft < free
    assert calm[1]["penalty"] > 0
    distance(1.0, "killed", stop=3)
    again, resumed = distance(1.0, "killed")
    assert again == soft
    assert [row["penalty"] for row in resumed] == [row["penalty"] for row in calm]


def test_a_restored_optimizer_counts_where_its_weights_are(model_dir, tmp_path):
    """A fused optimizer refuses a step count on another device than its parameter."""
    train(model_dir, tmp_path, steps(2))
    own = learner(model_dir)
    training = Training(own, FinetuneConfig(), 4, LocalContext(tmp_path))
    training.restore(tmp_path / "0")
    fresh = torch.optim.AdamW(own.trained.values(), fused=True)
    loss = own(batch())
    loss.backward()
    fresh.step()
    for parameter in own.trained.values():
        mine, theirs = (optimizer.state[parameter] for optimizer in (training._optimizer, fresh))
        assert mine.keys() == theirs.keys()
        assert all((mine[key].device, mine[key].dtype) == (theirs[key].device, theirs[key].dtype) for key in theirs)
        assert mine["step"] == 2


def test_dev_bleu_is_also_measured_at_the_end(model_dir, tmp_path):
    own = learner(model_dir)
    training = Training(own, FinetuneConfig(evaluate_every=3), 4, LocalContext(tmp_path), None, lambda: {"en-zh": 1.0})
    training.run(steps(4))
    assert [row["step"] for row in training.log if "dev_bleu" in row] == [3, 4]


def test_dev_bleu_keeps_the_best_weights_and_stops(model_dir, tmp_path):
    scores = iter([3.0, 5.0, 4.0, 4.5, 9.0])
    own = learner(model_dir)
    seen = []

    def evaluate():
        seen.append({name: parameter.detach().clone() for name, parameter in own.trained.items()})
        return {"en-zh": next(scores), "es-en": 100.0 - len(seen)}

    config = FinetuneConfig(evaluate_every=1, patience=2, learning_rate=1e-2)
    training = Training(own, config, 8, LocalContext(tmp_path), None, evaluate)
    training.run(steps(8))
    assert [row["dev_bleu"] for row in training.log] == [3.0, 5.0, 4.0, 4.5]
    assert [row["dev_bleu/es-en"] for row in training.log] == [99.0, 98.0, 97.0, 96.0]
    trained, _ = read_trained(tmp_path / "0")
    assert all(torch.equal(trained[name], parameter) for name, parameter in seen[1].items())
    assert not all(torch.equal(trained[name], parameter) for name, parameter in seen[3].items())


def test_gradient_checkpointing_changes_no_bit_of_the_loss(model_dir, tmp_path):
    plain, _ = train(model_dir, tmp_path / "plain", steps(2))
    saving, _ = train(model_dir, tmp_path / "saving", steps(2), gradient_checkpointing=True)
    assert [row["loss"] for row in saving.log] == pytest.approx([row["loss"] for row in plain.log], rel=1e-6)


@pytest.mark.slow
def test_sampled_labels_follow_the_models_own_odds(model_dir):
    own = learner(model_dir).eval()
    given = batch((8,))
    with torch.no_grad():
        states = own.decoder.hidden_states(given.tokens, given.frames, given.num_frames)
        odds = own.decoder.proj_out(states[given.predicts]).softmax(-1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([own.sampled(given, generator).targets for _ in range(3000)])
    for place in range(drawn.shape[1]):
        share = torch.bincount(drawn[:, place], minlength=odds.shape[1]) / len(drawn)
        likely = odds[place].topk(5).indices
        torch.testing.assert_close(share[likely], odds[place][likely], atol=0.035, rtol=0)


@pytest.mark.parametrize("settings", [{"train_embeddings": True}, {}, {"lora_rank": 2}])
def test_an_output_layer_of_its_own_trains_with_the_embeddings(model_dir, tmp_path, settings):
    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    model.config.tie_word_embeddings = False
    model.proj_out.weight = torch.nn.Parameter(model.proj_out.weight.flip(0).clone())
    shutil.copytree(model_dir, tmp_path / "untied")
    model.save_pretrained(tmp_path / "untied")
    own = learner(tmp_path / "untied", **settings)
    trains = settings.get("train_embeddings", FinetuneConfig().train_embeddings)
    assert {"proj_out.weight", EMBEDDINGS} & own.trained.keys() == (
        {"proj_out.weight", EMBEDDINGS} if trains else set()
    )
    trained = {name: weight.detach() + 1 for name, weight in own.trained.items()}
    out = tuned_weights(tmp_path / "untied", FinetuneConfig(**settings), trained)
    stored = load_file(tmp_path / "untied" / "model.safetensors")["proj_out.weight"]
    assert torch.equal(out["proj_out.weight"], stored + 1 if trains else stored)


def test_weights_of_another_run_are_refused(model_dir):
    trained = {name: weight.detach() for name, weight in learner(model_dir).trained.items()}
    name, weight = trained.popitem()
    with pytest.raises(ValueError, match=f"not the weights that were trained: {name} on one side alone"):
        tuned_weights(model_dir, FinetuneConfig(), trained)
    with pytest.raises(ValueError, match="extra on one side alone"):
        tuned_weights(model_dir, FinetuneConfig(), trained | {name: weight, "extra": weight})
