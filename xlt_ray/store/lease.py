"""One writer per artifact: the job that writes it keeps a file there, and renews the file while it runs.

    {artifact}/writer/{token}.json    host, process, since when; rewritten every few seconds

This works the same on disks and in object stores, which have no locks. A writer first writes its own file, then looks
for others. If two writers start at the same time, at least one sees the other, because each looks after it has written.
If it sees another writer that is also asking, it removes its own file and asks again a little later. If it sees another
writer that is working, it is refused with the name of that writer. A file that is no longer renewed belongs to a dead
writer, and is removed.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import random
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from xlt_ray.errors import UserError
from xlt_ray.store import patience, storage

RENEW_S = 10.0
STALE_S = 60.0

_FOLDER = "writer"
_POLL_S = 1.0
_ATTEMPTS = 5


class Taken(UserError):  # noqa: N818 - as the state is called
    """Another job is writing the artifact."""


@dataclasses.dataclass(slots=True)
class _Claim:
    """A file of a writer: its path, its content, and when it was written, by the clock of the store."""

    uri: str
    content: dict[str, Any]
    written: float

    @property
    def works(self) -> bool:
        return bool(self.content.get("works"))


_held: dict[str, _Claim] = {}
_lock = threading.RLock()


def held() -> list[str]:
    """The artifacts that this process is writing, in the order in which they were taken."""
    return list(_held)


def take(artifact: str) -> None:
    """Become the writer of an artifact. Does nothing if this process already is.

    If there is a file of another writer, and it is not known whether that writer is alive, this waits for the file to
    be renewed, for at most `STALE_S` seconds.

    Args:
        artifact: its path or URI.

    Raises:
        Taken: naming the current writer: host, process and since when.
        OSError: if the artifact can't be written.
    """
    with _lock:
        if artifact in _held:
            return
    while True:
        claim = _write(artifact, _about_us() | {"works": False})
        try:
            if _is_first(artifact, claim) and storage.exists(claim.uri):
                break
        except BaseException:
            _remove(claim.uri)
            raise
        _remove(claim.uri)
        time.sleep(random.uniform(0.1, 1.0))
    with _lock:
        _held[artifact] = _rewritten(claim, works=True)
    _start_renewing()


def _is_first(artifact: str, claim: _Claim) -> bool:
    """Whether no other writer is asking. Files of dead writers are removed.

    Raises:
        Taken: if another writer is working.
    """
    others = _others(claim)
    for other in others:
        if other.works and (_may_live(other, claim) and _is_renewed(other, claim)):
            raise Taken(_who(artifact, other))
    # Not watched: somebody who asks may work in the next moment, under the same file.
    if any(not other.works and _may_live(other, claim) for other in others):
        return False
    for other in others:
        _remove(other.uri)
    return True


def require_free(artifact: str) -> None:
    """Refuse an artifact that another process of this machine is writing. This is an early check; `take` decides.

    Raises:
        Taken: naming the current writer: host, process and since when.
    """
    if artifact in _held:
        return
    us = _about_us()
    for other in _claims(artifact):
        if other.works and other.content.get("kernel") == us["kernel"] and _is_alive(other):
            raise Taken(_who(artifact, other))


def give_back(artifact: str) -> None:
    """Let others write an artifact."""
    with _lock:
        claim = _held.pop(artifact, None)
        if claim:
            _remove(claim.uri)


def give_all_back() -> None:
    """Let others write all artifacts of this process. Called when it ends."""
    for artifact in held():
        give_back(artifact)


def require(artifact: str) -> None:
    """Refuse to continue if another writer has taken over the artifact, because this process was suspended too long.

    Raises:
        RuntimeError: if another writer has taken over.
    """
    with _lock:
        claim = _held.get(artifact)
    if claim and (not storage.exists(claim.uri) or any(other.works for other in _others(claim))):
        raise RuntimeError(
            f"another job has taken over {artifact}, because this one did not renew its lease; that job continues"
        )


def _about_us() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    me = {"pid": os.getpid(), "started": _started(os.getpid()), "kernel": _kernel()}
    return {"host": socket.gethostname(), **me, "since": since, "renewed": 0}


def _kernel() -> str:
    """The boot of this machine and its process namespace, which show whether a process number is one of ours."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _started(pid: int) -> str | None:
    """When a process started, in the units of its machine; None if there is no such process."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "alive"
        return "alive"
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else fields[18]


def _may_live(other: _Claim, own: _Claim) -> bool:
    """False if the writer of a file is known to be dead: a process of this machine, or silent for too long."""
    content = other.content
    if content.get("kernel") == own.content["kernel"]:
        return _is_alive(other)
    return own.written - other.written < STALE_S  # two times of one clock, that of the store


def _is_alive(other: _Claim) -> bool:
    """Whether a process of this machine is still the one that wrote the file."""
    pid, started = other.content.get("pid"), other.content.get("started")
    return isinstance(pid, int) and isinstance(started, str) and _started(pid) == started


def _is_renewed(other: _Claim, own: _Claim) -> bool:
    """Whether a writer renews its file, if it is a process of another machine."""
    if other.content.get("kernel") == own.content["kernel"]:
        return True
    deadline = time.monotonic() + STALE_S
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        now = _read(other.uri)
        if now is None:
            return False
        if now.content.get("renewed") != other.content.get("renewed"):
            return True
    return False


def _who(artifact: str, claim: _Claim) -> str:
    content = claim.content
    return (
        f"{artifact} is being written by another job (host {content.get('host')}, process {content.get('pid')}, since "
        f"{content.get('since')}); wait until it is done, or stop it, then run the same command again"
    )


def _others(claim: _Claim) -> list[_Claim]:
    artifact = claim.uri.rpartition("/")[0].rpartition("/")[0]
    return [other for other in _claims(artifact) if other.uri != claim.uri]


def _claims(artifact: str) -> list[_Claim]:
    found = (_read(uri) for uri in storage.list_files(storage.join(artifact, _FOLDER)) if uri.endswith(".json"))
    return [claim for claim in found if claim]


def _read(uri: str) -> _Claim | None:
    """A claim; None if it is gone. A file that is not JSON is a claim without content."""
    filesystem, path = storage.locate(uri)
    try:
        info = filesystem.get_file_info(path)
        content = json.loads(storage.read_bytes(uri))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        content = {}
    return _Claim(uri, content if isinstance(content, dict) else {}, info.mtime.timestamp())


def _write(artifact: str, content: dict[str, Any]) -> _Claim:
    uri = storage.join(artifact, _FOLDER, f"{uuid.uuid4().hex}.json")
    for attempt in range(_ATTEMPTS):
        try:
            storage.write_bytes(uri, json.dumps(content).encode())
            break
        except FileNotFoundError:  # somebody who left has taken the folder with him
            if attempt + 1 == _ATTEMPTS:
                raise
    filesystem, path = storage.locate(uri)
    return _Claim(uri, content, filesystem.get_file_info(path).mtime.timestamp())


def _rewritten(claim: _Claim, **changes: Any) -> _Claim:
    content = claim.content | changes
    storage.write_bytes(claim.uri, json.dumps(content).encode())
    return dataclasses.replace(claim, content=content)


def _remove(uri: str) -> None:
    filesystem, path = storage.locate(uri)
    with contextlib.suppress(OSError):  # somebody else has removed it, or nobody can
        filesystem.delete_file(path)
    if isinstance(filesystem, pafs.LocalFileSystem):
        with contextlib.suppress(OSError):  # others ask
            os.rmdir(os.path.dirname(path))


_renewing: list[threading.Thread] = []


def _start_renewing() -> None:
    with _lock:
        if not _renewing:
            thread = threading.Thread(target=_renew_for_ever, name="writer", daemon=True)
            _renewing.append(thread)
            thread.start()
            atexit.register(give_all_back)


def _renew_for_ever() -> None:
    while True:
        time.sleep(RENEW_S)
        for artifact in held():
            # A store that is down may be back in time. Whoever gives back, as at a signal, waits for this lock.
            with contextlib.suppress(OSError), patience.at_once(), _lock:
                _renew(artifact)


def _renew(artifact: str) -> None:
    """Rewrite the file, unless it is gone: then another writer has taken over, which `require` reports."""
    claim = _held.get(artifact)
    if claim and storage.exists(claim.uri):
        _held[artifact] = _rewritten(claim, renewed=claim.content["renewed"] + 1)
