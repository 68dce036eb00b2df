"""RAY_ADDRESS: which Ray cluster a job joins, and whether it answers.

Ray itself waits minutes for a head that is gone, and its error names neither the variable nor a fix.
"""

from __future__ import annotations

import os
import socket
import time
from urllib.parse import urlsplit

from xlt_ray.errors import NoResources

_NAME = "RAY_ADDRESS"
_PROBES = 3
_PROBE_S = 4.0
_HERE = "unset RAY_ADDRESS to run on this machine"
_FORM = "a head that runs, as HOST:6379"


def is_given() -> bool:
    """Whether the job joins a cluster: RAY_ADDRESS is set, and neither empty nor `local`."""
    return os.environ.get(_NAME, "") not in ("", "local")


def hosts() -> list[str]:
    """The host of the cluster to join, if RAY_ADDRESS names one."""
    host = urlsplit(_with_scheme(os.environ[_NAME])).hostname if is_given() else None
    return [host] if host and host != "auto" else []


def require_answer(found: str | None = None) -> None:
    """Refuse a RAY_ADDRESS at which nothing answers within 15 s.

    Args:
        found: the address that Ray finds for `auto`; None: `auto` is not checked.

    Raises:
        NoResources: naming the address, what it means, and how to unset it.
    """
    given = os.environ.get(_NAME, "")
    if not is_given() or (given == "auto" and found is None):
        return
    scheme = urlsplit(_with_scheme(given)).scheme
    if scheme in ("http", "https"):
        raise NoResources(
            f"{_NAME}={given} is the address to submit jobs to: ray job submit --address {given} -- python ...; a "
            f"script joins a cluster by {_FORM}; {_HERE}"
        )
    host, port = _place(found or given)
    if problem := _problem(host, port):
        raise NoResources(
            f"{_NAME}={given} names a Ray cluster to join, but nothing answers at {host}:{port} ({problem}): it is "
            f"gone or out of reach; {_HERE}, or set it to {_FORM}"
        )


def no_answer(error: Exception) -> NoResources:
    """The error for a RAY_ADDRESS that answers but that Ray can't join."""
    given = os.environ.get(_NAME, "")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = "lets Ray look for a cluster on this machine" if given == "auto" else "names a Ray cluster to join"
    return NoResources(
        f"{_NAME}={given} {what}, but none could be joined ({type(error).__name__}: {(lines or [''])[0][:200]}); "
        f"{_HERE}, or set it to {_FORM} with the same versions of Ray and Python"
    )


def _with_scheme(given: str) -> str:
    return given if "://" in given else f"//{given}"


def _place(given: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or ray://HOST:PORT."""
    try:
        parts = urlsplit(_with_scheme(given))
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else None)
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme not in ("", "ray"):
        raise NoResources(f"{_NAME}={given!r} is no address of a Ray cluster; {_HERE}, or set it to {_FORM}")
    return host, port


def _problem(host: str, port: int) -> str | None:
    """Why no connection can be made; a head that is restarting gets a few seconds."""
    problem = ""
    for probe in range(_PROBES):
        if probe:
            time.sleep(1)
        try:
            socket.create_connection((host, port), timeout=_PROBE_S).close()
        except OSError as error:
            problem = error.strerror or str(error)
        else:
            return None
    return problem
