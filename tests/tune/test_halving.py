import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.tune.halving import Halving, depths, dominates, front

points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(points)
def test_a_depth_is_the_longest_chain_of_points_that_dominate(places):
    """A second way to say it: the fronts before a point are as many as the longest chain above it."""

    def longest(place):
        above = [other for other in places if all(a >= b for a, b in zip(other, place, strict=True)) and other != place]
        return max((1 + longest(other) for other in above), default=0)

    assert depths(places) == [longest(place) for place in places]


@given(points)
def test_the_front_is_what_no_other_point_beats(places):
    keyed = dict(enumerate(places))
    best = front(keyed)
    beaten = [
        i
        for i, j in itertools.permutations(range(len(places)), 2)
        if (np.array(places[j]) >= places[i]).all() and (np.array(places[j]) > places[i]).any()
    ]
    assert set(best) == set(keyed) - set(beaten)
    assert best == [key for key, depth in zip(keyed, depths(places), strict=True) if depth == 0]


def test_better_in_one_and_worse_in_the_other_is_no_domination():
    assert dominates((2, 1), (1, 1))
    assert not dominates((2, 0), (1, 1))
    assert not dominates((1, 1), (1, 1))


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30, unique=True), st.integers(2, 5))
def test_with_one_objective_the_best_part_of_those_before_goes_on(values, reduction):
    halving = Halving(1, reduction)
    for trial, value in enumerate(values):
        seen = sorted(values[: trial + 1], reverse=True)
        most = int(np.ceil(len(seen) / reduction))
        assert halving.goes_on(trial, 1, (value,)) == (value in seen[:most])


@given(st.lists(st.integers(-20, 20), min_size=9, max_size=9, unique=True).flatmap(st.permutations))
def test_the_best_of_all_is_never_stopped(values):
    halving = Halving(1, 3)
    best = values.index(max(values))
    for count in (1, 3, 9):
        assert all(halving.goes_on(trial, count, (value,)) for trial, value in enumerate(values) if trial == best)
        for trial, value in enumerate(values):
            halving.goes_on(trial, count, (value,))


def test_trials_of_one_front_all_go_on():
    halving = Halving(1, 3)
    assert all(halving.goes_on(i, 1, (i, 10 - i)) for i in range(9))
    assert not halving.goes_on(9, 1, (3, 5))


def test_only_rungs_decide_and_each_only_once():
    halving = Halving(2, 3)
    for trial in range(6):
        assert halving.goes_on(trial, 2, (10 + trial,))
    assert all(halving.goes_on(6, count, (0,)) for count in (1, 3, 4, 5, 7))
    assert not halving.goes_on(6, 2, (0,))
    assert halving.goes_on(6, 2, (0,))


def test_a_reduction_of_one_stops_nothing():
    halving = Halving(1, 1)
    assert all(halving.goes_on(trial, 1, (-trial,)) for trial in range(10))


@pytest.mark.parametrize("reduction", [2, 3])
def test_what_an_earlier_run_saw_counts(reduction):
    """A search that is told of the first trials decides as one that has seen them itself."""
    curves = [[(5,), (9,)], [(8,), (1,)], [(7,), (3,)], [(6,), (4,)], [(2,), (2,)]]
    whole, resumed = Halving(1, reduction), Halving(1, reduction)
    for trial, curve in enumerate(curves):
        for count, point in enumerate(curve, 1):
            whole.goes_on(trial, count, point)
        resumed.record(trial, curve)
    for value in range(10):
        assert whole.goes_on(10 + value, 1, (value,)) == resumed.goes_on(10 + value, 1, (value,))
