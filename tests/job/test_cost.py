"""Sums of costs, and the table of a dry run."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.job import cost
from xlt_ray.job.cost import Cost, Speech

numbers = st.integers(0, 10**6)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, numbers), max_size=5))
def test_a_sum_of_costs_is_the_sum_of_every_field(rows):
    total = sum((Cost(*row) for row in rows), Cost())
    assert dataclasses.astuple(total) == tuple(sum(row[field] for row in rows) for field in range(5))


def test_the_table_has_every_stage_and_their_sum():
    found = {"embed": Cost(10, 1.5, 0.25, 40, 2_000_000), "finetune": Cost(20, 3.0, 0.5, 80, 999_999_999)}
    table = cost.as_table("x", found, "counted")
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["embed", "finetune", "in all"]
    assert cells[3] == ["0.25", "0.5", "0.75"]
    assert cells[4] == ["40", "80", "120"]
    assert cells[5] == ["2 MB", "1 GB", "1 GB"]


CODES, SPLITS = ("en", "fr", "zh"), ("train", "dev", "test")


@given(st.dictionaries(st.tuples(st.sampled_from(CODES), st.sampled_from(SPLITS)), numbers))
def test_recordings_are_counted_by_language_and_split(num):
    speech = Speech(num, {}, {}, "counted")
    for code in CODES:
        assert [speech.count(code, split) for split in SPLITS] == [num.get((code, split), 0) for split in SPLITS]
        assert speech.count(code) == sum(speech.count(code, split) for split in SPLITS)
