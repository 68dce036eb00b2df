"""Python reads this file at its start: the clock of every process jumps back a day, then forward two, then is right."""

import time

_START = time.monotonic()
_JUMPS = ((6.0, -86_400.0), (12.0, 86_400.0), (18.0, 0.0))
"""From so many seconds after the start of a process on, how many seconds its clock is wrong."""
_now, _now_ns = time.time, time.time_ns


def _wrong() -> float:
    age = time.monotonic() - _START
    return next((by for begins, by in reversed(_JUMPS) if age >= begins), 0.0)


time.time = lambda: _now() + _wrong()
time.time_ns = lambda: _now_ns() + int(_wrong() * 1e9)
