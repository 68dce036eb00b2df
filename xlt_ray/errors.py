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


class Unreachable(Exception):  # noqa: N818 - reads as a state
    """A file or store can't be read from here: a fault of the place, not of the row. The job stops."""


class RejectedRow(Exception):  # noqa: N818 - not an error of the program
    """One recording cannot be used; the message is the reason that goes into `rejected.parquet`."""
