"""What a try does beside its result: files and addresses that it opens or writes outside its folder.

Three witnesses. The system tells of every file of `outside/` that anybody opens, also in C (`Canaries`). A port of this
machine takes every call that a hostile address names (`Canaries` too). And Python tells of every file and address that
it opens itself, wherever that is (`Audit`).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import sysconfig
from pathlib import Path
from typing import Any

_OPEN, _MODIFY, _MOVED, _CREATE, _DELETE, _IS_FOLDER = 0x20, 0x2, 0xC0, 0x100, 0x200, 0x40000000
_WRITES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/opt", "/var/lib")


class Canaries:
    """A folder that nothing may touch, and a port that nobody may call.

    Attributes:
        folder: with one sound file, `secret.wav`.
        listener: of the port.
        address: of the port, `host:port`.
    """

    def __init__(self, folder: Path, others: list[Path]) -> None:
        """Watch them, and that nothing comes into or out of `others`."""
        self.folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = self._libc.inotify_init1(os.O_NONBLOCK)
        for path, mask in [(folder, _OPEN | _MODIFY), *((other, 0) for other in others)]:
            kinds = mask | _MOVED | _CREATE | _DELETE
            if self._libc.inotify_add_watch(self._events, os.fsencode(path), kinds) < 0:
                raise OSError(ctypes.get_errno(), f"cannot watch {path}")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = "{}:{}".format(*self.listener.getsockname())

    def touched(self) -> list[str]:
        """What happened since this was last asked."""
        found = ["called an address"] if self._answer() else []
        try:
            data = os.read(self._events, 1 << 16)
        except BlockingIOError:
            return found
        while data:
            _, mask, _, length = struct.unpack("iIII", data[:16])
            name, data = data[16 : 16 + length].rstrip(b"\0").decode(errors="replace"), data[16 + length :]
            if not (mask & _OPEN and mask & _IS_FOLDER):
                found.append(f"{'opened' if mask & _OPEN else 'changed'} {name} outside")
        return list(dict.fromkeys(found))

    def _answer(self) -> bool:
        """Hang up on whoever calls."""
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


class Audit:
    """What this process opens, writes and calls outside of some folders. A hook stays, so there is one a process."""

    def __init__(self, own: list[Path], *, foreign: bool) -> None:
        """Begin.

        Args:
            own: folders that may be written.
            foreign: whether files elsewhere may be read and addresses called, because the input is there to name them.
        """
        self.found: list[str] | None = None
        self._own = tuple(f"{path}/" for path in own)
        installed = (*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
        self._readable = (*self._own, *(f"{path}/" for path in installed), *_SYSTEM)
        self._foreign = foreign
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.found is None:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, mode, flags = arguments
            is_write = any(c in "wax+" for c in mode or "") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            self._look(path, bool(is_write))
        elif event in _WRITES:
            for path in arguments[: 2 if event == "os.rename" else 1]:
                self._look(path, True)
        elif event in ("socket.connect", "socket.getaddrinfo", "os.system", "os.exec") and not self._foreign:
            self.found.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]!r}")
        elif event == "pickle.find_class":
            self.found.append(f"unpickled {arguments}")

    def _look(self, path: Any, is_write: bool) -> None:
        if isinstance(path, int) or self.found is None:
            return
        where = os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(path)))
        if is_write and not f"{where}/".startswith((*self._own, "/dev/null/", "/dev/shm/", "/proc/self/")):
            self.found.append(f"wrote {where}")
        elif not is_write and not self._foreign and not f"{where}/".startswith(self._readable):
            self.found.append(f"opened {where}")
