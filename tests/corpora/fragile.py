"""A decoder that fails: code that its process, and no other, runs before it starts (`sitecustomize`)."""

import textwrap

import pytest

from xlt_ray.corpora import guarded

CRASHES_ON_NINE_CHANNELS = """
import os, signal
from xlt_ray.corpora import decoding
def read(frame):
    if frame.layout.nb_channels > 8:
        os.kill(os.getpid(), signal.SIGSEGV)
    return decoding._to_float(frame.to_ndarray().T)
decoding._frame_reader = lambda: read
"""
"""What PyAV does mostly, left to itself: it reads the planes behind the eighth from beyond the end of their array."""

_START = """
import sys
if "xlt_ray.corpora.decoder" in sys.orig_argv:
"""


def write(folder, code):
    """The module in a folder of its own, which belongs into the search path."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_START + textwrap.indent(textwrap.dedent(code), "    "))
    return folder


@pytest.fixture
def make_fragile(tmp_path, monkeypatch):
    """A function that makes the decoders of this test run some code."""
    monkeypatch.setattr(guarded, "_idle", idle := [])

    def make(code):
        monkeypatch.syspath_prepend(write(tmp_path / "site", code))

    yield make
    for process in idle:
        process.end()
