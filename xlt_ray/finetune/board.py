"""Shows the progress of a training run. Imports nothing, because Ray starts a process of its own for it."""


class Board:
    """An actor that rank 0 writes to and the driver reads."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def put(self, figures: dict[str, float]) -> None:
        """Show the figures of a step."""
        self._last = figures

    def get(self) -> dict[str, float]:
        """The latest figures; {} before the first step."""
        return self._last
