"""Finds the artifacts that can't be shown: an undamaged file can still have content that no job writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from xlt_ray.store import storage

Item = TypeVar("Item")
Shown = TypeVar("Shown")


def without_culprits(
    items: Sequence[Item], show: Callable[[Sequence[Item]], Shown]
) -> tuple[Shown, list[tuple[Item, Exception]]]:
    """The result of `show` for as many items as possible, and the items that had to be left out, each with its error.

    Nearly always `show` succeeds for all items. If not, items are added one by one, and an item is left out if `show`
    fails for it together with the items before it.

    An error of a disk or a store is raised, because it is not the fault of an item.

    Args:
        items: in the order in which they depend on one another.
        show: takes some of the items; it must succeed for none.
    """
    try:
        return show(items), []
    except Exception as error:  # somebody may have written anything into them
        if storage.is_at_fault(error):
            raise
    kept: list[Item] = []
    wrong: list[tuple[Item, Exception]] = []
    for item in items:
        try:
            show([*kept, item])
            kept.append(item)
        except Exception as error:
            if storage.is_at_fault(error):
                raise
            wrong.append((item, error))
    return show(kept), wrong
