"""Prepares the next item in a thread while the caller works on the current one."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


def ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the same items, with at most one prepared ahead. Its error is raised when the item is taken."""
    iterator = iter(items)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, iterator, _END)
        while (item := following.result()) is not _END:
            following = thread.submit(next, iterator, _END)
            yield item  # type: ignore[misc]
