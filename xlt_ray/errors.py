"""Errors, by cause, with the exit code of a job."""


class UserError(ValueError):
    """An error that the user can fix. The message names the value, the valid values and the fix.

    Raised before any work starts, except some subclasses. Jobs print the message on one line and exit with
    `exit_code`.
    """

    exit_code = 2


class TooManyRejected(UserError):  # noqa: N818 - as the state is called
    """More recordings are rejected than the user allows, so nothing is committed."""

    exit_code = 3


class NoResources(UserError):  # noqa: N818 - as the state is called
    """The cluster can't provide the requested resources."""

    exit_code = 4


class Damaged(UserError):  # noqa: N818 - as the state is called
    """A file of an artifact is missing or has changed. The message has the command that makes it again."""

    exit_code = 1


class Unwritable(Exception):  # noqa: N818 - as the state is called
    """A result can't be written: no space is left, or there is no permission.

    Attributes:
        path: the path or URI.
        reason: message of the system.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that a pickled copy is made again
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}"


class Unreachable(Exception):  # noqa: N818 - says nothing about the recording
    """A file cannot be read from this machine: it does not exist, is not readable, or its store does not answer.

    Another node may be able to read the file, so this is not a `RejectedRow`.

    Attributes:
        path: the path or URI.
        reason: message of the system.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that a pickled copy is made again
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read {self.path}: {self.reason}"


class RejectedRow(Exception):  # noqa: N818 - not an error of the program
    """A recording cannot be used. The message is the reason in `rejected.parquet`."""
