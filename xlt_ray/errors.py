"""Errors with a meaning: whose fault it is, and the exit code with which a job ends."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message names the value, the valid ones and what to do.

    Raised before any work starts. Jobs print the message on one line and exit with `exit_code`.
    """

    exit_code = 2


class TooManyRejected(UserError):  # noqa: N818 - as the state is called
    """More recordings can't be used than the user allows, so nothing is committed."""

    exit_code = 3


class NoResources(UserError):  # noqa: N818 - as the state is called
    """The cluster can't give what was asked."""

    exit_code = 4


class Damaged(UserError):  # noqa: N818 - as the state is called
    """A file of an artifact is missing, or not what was written; the message says how to make it again."""

    exit_code = 1


class Unwritable(Exception):  # noqa: N818 - as the state is called
    """A result can't be written: no space is left, or the place may no longer be written.

    Attributes:
        path: the path or URI.
        reason: what the system says.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that a pickled copy is made again
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}"


class Unreachable(Exception):  # noqa: N818 - says nothing about the recording
    """A file cannot be read from here: it is not there, may not be read, or its store does not answer.

    Whether that is the fault of the row or of the place that looks for it cannot be known here: another node may see
    the file. So it is not a `RejectedRow`.

    Attributes:
        path: the path or URI.
        reason: what the system says.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that a pickled copy is made again
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read {self.path}: {self.reason}"


class RejectedRow(Exception):  # noqa: N818 - not an error of the program
    """One recording cannot be used; the message is the reason that goes into `rejected.parquet`."""
