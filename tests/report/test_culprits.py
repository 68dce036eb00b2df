"""Which artifacts can't be shown, and what is not their fault."""

import errno
import os

import pytest

from xlt_ray.report.culprits import without_culprits


def showing(bad, error):
    def show(items):
        if bad in items:
            raise error
        return sum(items)

    return show


def test_what_can_not_be_shown_is_left_out_with_its_error():
    error = KeyError("figures")
    assert without_culprits([1, 2, 4], showing(2, error)) == (5, [(2, error)])
    assert without_culprits([1, 2, 4], showing(8, error)) == (7, [])


@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), OSError("AWS Error NETWORK_CONNECTION")])
def test_a_disk_or_a_store_that_fails_is_no_fault_of_an_artifact(error):
    with pytest.raises(OSError, match=str(error)[:9].replace("[", r"\[")):
        without_culprits([1, 2, 4], showing(2, error))
