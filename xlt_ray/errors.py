"""The two ways a run says no: a mistake of the user, and a recording that cannot be used."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message names the value, the valid ones and what to do.

    Raised before any work starts. Jobs print the message on one line and exit with code 2.
    """


class RejectedRow(Exception):  # noqa: N818 - not an error of the program
    """One recording cannot be used; the message is the reason that goes into `rejected.parquet`."""
