"""Fisher and penalty against closed forms and against autograd."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from xlt_ray.finetune.ewc import Consolidation, squared_gradients


def logistic(num_examples=40, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_examples, dim, generator=generator, dtype=torch.float64)
    labels = (torch.rand(num_examples, generator=generator) < 0.5).double()
    weight = torch.randn(dim, generator=generator, dtype=torch.float64, requires_grad=True)
    return inputs, labels, weight


def losses(inputs, labels, weight):
    for x, y in zip(inputs, labels, strict=True):
        yield binary_cross_entropy_with_logits(x @ weight, y, reduction="sum")


def test_the_fisher_of_a_logistic_model_has_a_closed_form():
    inputs, labels, weight = logistic()
    sums, count = squared_gradients({"w": weight}, losses(inputs, labels, weight))
    # The gradient of -log p(y | x) is (sigmoid(x.w) - y) x.
    error = torch.sigmoid(inputs @ weight.detach()) - labels
    expected = ((error[:, None] * inputs) ** 2).mean(0)
    assert count == len(inputs)
    torch.testing.assert_close(sums["w"] / count, expected.float())


def test_the_mean_over_examples_is_not_the_square_of_their_mean():
    inputs, labels, weight = logistic()
    sums, count = squared_gradients({"w": weight}, losses(inputs, labels, weight))
    mean = torch.stack([torch.autograd.grad(loss, weight)[0] for loss in losses(inputs, labels, weight)]).mean(0)
    assert float((sums["w"] / count).sum()) > 5 * float(mean.square().sum())


@settings(max_examples=20, deadline=None)
@given(cuts=st.sets(st.integers(1, 39), max_size=6))
def test_parts_of_any_size_add_up(cuts):
    inputs, labels, weight = logistic()
    whole, count = squared_gradients({"w": weight}, losses(inputs, labels, weight))
    edges = [0, *sorted(cuts), 40]
    parts = [
        squared_gradients({"w": weight}, losses(inputs[i:j], labels[i:j], weight)) for i, j in itertools.pairwise(edges)
    ]
    assert sum(num for _, num in parts) == count
    torch.testing.assert_close(sum(squares["w"] for squares, _ in parts), whole["w"], rtol=1e-5, atol=1e-6)


def consolidated(strength=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: nn.Parameter(torch.randn(4, 3, generator=generator)) for name in ("a", "b")}
    anchor = {name: torch.randn(4, 3, generator=generator) for name in parameters}
    fisher = {name: torch.rand(4, 3, generator=generator) for name in parameters}
    return parameters, anchor, fisher, Consolidation(parameters, anchor, fisher, strength)


def test_penalty_and_gradient_are_those_of_the_formula():
    parameters, anchor, fisher, ewc = consolidated()
    before = {name: torch.full_like(parameter, 0.5) for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        parameter.grad = before[name].clone()
    value = ewc.pull()
    loss = sum(
        3.0 / 2 * (fisher[name] * (parameter - anchor[name]) ** 2).sum() for name, parameter in parameters.items()
    )
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    assert value == pytest.approx(loss.item(), rel=1e-6)
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameters[name].grad, before[name] + gradient)


def test_a_weight_that_the_loss_did_not_reach_is_pulled_too():
    """As in a layer that layerdrop skipped: its gradient is that of the penalty alone."""
    parameters, anchor, fisher, ewc = consolidated()
    parameters["a"].grad = torch.zeros_like(parameters["a"])
    ewc.pull()
    unreached = parameters["b"]
    torch.testing.assert_close(unreached.grad, 3.0 * fisher["b"] * (unreached.detach() - anchor["b"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_at_the_anchor_nothing_pulls(dtype):
    """Also where the weights were stored in half precision, as Whisper's are."""
    stored = torch.randn(50, generator=torch.Generator().manual_seed(1)).to(dtype)
    parameter = nn.Parameter(stored.float())
    parameter.grad = torch.zeros(50)
    ewc = Consolidation({"w": parameter}, {"w": stored}, {"w": torch.full((50,), 1e6)}, 1e6)
    assert ewc.pull() == 0.0
    assert not parameter.grad.any()


def test_the_fisher_may_be_rounded_but_not_the_anchor():
    parameters, anchor, fisher, exact = consolidated()
    rounded = Consolidation(parameters, anchor, {name: squares.bfloat16() for name, squares in fisher.items()}, 3.0)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    assert rounded.pull() == pytest.approx(exact.pull(), rel=2**-8)


@pytest.mark.slow
def test_a_larger_lambda_holds_closer():
    """Gradient descent on a quadratic loss ends where the closed form says: between the optimum and the anchor."""
    target, fisher = torch.tensor([2.0]), torch.tensor([0.5])
    ends = []
    for strength in (0.0, 1.0, 10.0, 100.0):
        parameter = nn.Parameter(torch.zeros(1))
        ewc = Consolidation({"w": parameter}, {"w": torch.zeros(1)}, {"w": fisher}, strength)
        for _ in range(4000):
            (0.5 * (parameter - target).square().sum()).backward()
            ewc.pull()
            with torch.no_grad():
                parameter -= 0.01 * parameter.grad
            parameter.grad = None
        ends.append(float(parameter))
        assert ends[-1] == pytest.approx(float(target / (1 + strength * fisher)), rel=1e-3)
    assert np.all(np.diff(ends) < 0)
