import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.finetune.fisher import distance

values = st.lists(st.floats(0, 1e3, width=32), min_size=4, max_size=4).filter(lambda drawn: sum(drawn) > 1e-3)


def fisher(numbers):
    return {"first": torch.tensor(numbers[:3]), "second": torch.tensor(numbers[3:])}


@given(values, values)
def test_it_is_the_squared_distance_of_the_square_roots(one, other):
    """The definition itself, in float64, against the shorter form that is computed."""
    a, b = (torch.tensor(numbers, dtype=torch.float64) for numbers in (one, other))
    expected = 0.5 * ((a / a.sum()).sqrt() - (b / b.sum()).sqrt()).square().sum().item()
    assert distance(fisher(one), fisher(other)) == pytest.approx(expected, abs=1e-6)


def test_the_same_task_is_at_0_whatever_its_scale_and_a_disjoint_one_at_1():
    assert distance(fisher([1.0, 2.0, 3.0, 4.0]), fisher([10.0, 20.0, 30.0, 40.0])) == pytest.approx(0.0, abs=1e-12)
    assert distance(fisher([1.0, 2.0, 0.0, 0.0]), fisher([0.0, 0.0, 3.0, 4.0])) == 1.0
    with pytest.raises(ValueError, match="0 everywhere"):
        distance(fisher([0.0] * 4), fisher([1.0] * 4))
