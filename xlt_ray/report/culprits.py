"""Which of several artifacts can't be shown: a file that is whole can still say what no job writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from xlt_ray.store import storage

Item = TypeVar("Item")
Shown = TypeVar("Shown")


def without_culprits(
    items: Sequence[Item], show: Callable[[Sequence[Item]], Shown]
) -> tuple[Shown, list[tuple[Item, Exception]]]:
    """What `show` makes of items, and those without which alone it can, each with its error.

    Nearly always it can of all. Else they are added one by one, so an item is left out that fails with those before it.

    What a disk or a store that fails raises is raised: no item is to blame.

    Args:
        items: in the order in which they are made from one another.
        show: of some of them; it must be able to of none.
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
