"""Python reads this file at its start: the clock of every process jumps back a day, then forward two, then is right."""

import time

_START = time.monotonic()
_JUMPS = ((6.0, -86_400.0), (12.0, 86_400.0), (18.0, 0.0))
"""From so many seconds after the start of a process on, how many seconds its clock is wrong."""


def _wrong_clock(name: str, per_second: int) -> None:
    right = getattr(time, name)

    def clock() -> float:
        age = time.monotonic() - _START
        wrong = next((by for begins, by in reversed(_JUMPS) if age >= begins), 0.0)
        return right() + type(right())(wrong * per_second)

    clock.__module__, clock.__name__, clock.__qualname__ = "time", name, name  # pickled by name, as the right one is
    setattr(time, name, clock)


_wrong_clock("time", 1)
_wrong_clock("time_ns", 10**9)
