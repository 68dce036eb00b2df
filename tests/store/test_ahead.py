import threading

import pytest

from xlt_ray.store.ahead import ahead


def test_the_next_item_is_made_while_the_caller_works_on_this_one():
    begun, may_end = {n: threading.Event() for n in range(4)}, {n: threading.Event() for n in range(4)}

    def made():
        for item in range(4):
            begun[item].set()
            assert may_end[item].wait(10)
            yield item * item

    may_end[0].set()
    found = []
    for item, value in enumerate(ahead(made())):
        found.append(value)
        if item < 3:
            assert begun[item + 1].wait(10)  # in the background
            may_end[item + 1].set()
        if item < 2:
            assert not begun[item + 2].is_set()  # and no further
    assert found == [0, 1, 4, 9]
    assert list(ahead([])) == []


def test_what_can_not_be_made_is_raised_where_it_is_wanted():
    def made():
        yield 0
        raise OSError("gone")

    found = ahead(made())
    assert next(found) == 0
    with pytest.raises(OSError, match="gone"):
        next(found)
