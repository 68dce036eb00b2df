"""Where a training shows how far it is. Imports nothing, because Ray starts a process of its own for it."""


class Board:
    """An actor that rank 0 writes to and the driver reads."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def put(self, figures: dict[str, float]) -> None:
        """Show the figures of a step."""
        self._last = figures

    def get(self) -> dict[str, float]:
        """The figures that were shown last; {} before the first step."""
        return self._last
