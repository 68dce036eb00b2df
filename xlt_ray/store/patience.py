"""Repeats requests to an object store that fails for a while, and prints what the job waits for."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_S = 180.0
TELL_S = 20.0
FIRST_S, MOST_S = 0.25, 20.0
"""Seconds between two tries, which double from the first to the maximum, with random jitter, as S3 recommends."""

# Arrow and the SDK try ten times within half a minute, or six seconds where no connection can be made. They give up at
# once where the text of an error is longer than the object that was asked for ("Failed to flush response stream"), and
# where an object is replaced while it is read. A host that has no address (curl's code 6) is misspelt.
_PASSING = re.compile(
    r"AWS Error (INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT|"
    r"NETWORK_CONNECTION(?!.*curlCode: 6,))|HTTP status 5\d\d"
)


class _Thread(threading.local):
    has_patience = True


_in_thread = _Thread()


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """While inside, this thread asks only once, for work that is repeated anyway and that others wait for."""
    _in_thread.has_patience = False
    try:
        yield
    finally:
        _in_thread.has_patience = True


def patient(ask: Callable[P, R]) -> Callable[P, R]:
    """Repeat a function that accesses an object store while the store fails, for at most `LONGEST_S` seconds."""

    @functools.wraps(ask)
    def asks_again(*args: P.args, **kwargs: P.kwargs) -> R:
        began = told = time.monotonic()
        pause = FIRST_S
        while True:
            try:
                return ask(*args, **kwargs)
            except OSError as error:
                waited = time.monotonic() - began
                if waited > LONGEST_S or not _in_thread.has_patience or not _PASSING.search(str(error)):
                    raise
                if time.monotonic() - told > TELL_S:
                    told = time.monotonic()
                    print(f"the store fails, trying again for {LONGEST_S - waited:.0f} s: {error}", flush=True)
            time.sleep(random.uniform(0.5, 1) * pause)
            pause = min(2 * pause, MOST_S)

    return asks_again
