"""The provenance of a result: command, git revision, package versions, hardware.

A checkout is uploaded to a cluster without `.git`. The revision then comes from XLT_RAY_COMMIT, which `make submit` and
the image set. The hash of the source always comes from the files; `git rev-parse COMMIT:xlt_ray` prints the same hash.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

_VERSIONS_OF = ("xlt_ray", "ray", "torch", "transformers", "pyarrow", "numpy", "mlflow")


def provenance() -> dict[str, Any]:
    """Command, git revision, package versions and hardware of this process."""
    return {
        "command": command(),
        "git": _git(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _VERSIONS_OF if _installed(package)},
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """Hardware of this machine: `cpu`, `num_cpus`, `memory_gb`, and the names of its `gpus`."""
    return {
        "cpu": _processor(),
        "num_cpus": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": _gpus(),
    }


def command() -> str:
    """The command of this process, as a user would type it."""
    if Path(sys.argv[0]).name == "xlt-ray":
        return shlex.join(["xlt-ray", *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def _git() -> dict[str, Any]:
    package = Path(__file__).parents[1]
    return {**_revision(package), "source": tree_hash(package)}


def _revision(package: Path) -> dict[str, Any]:
    """Commit, and whether files have changed since; None if unknown."""
    # An installed package may lie in the repository of somebody else, which does not track it.
    if _output("git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py") is None:
        sha, _, dirty = os.environ.get("XLT_RAY_COMMIT", "").partition("-")
        return {"sha": sha or None, "dirty": dirty == "dirty" if sha else None}
    changed = _output("git", "-C", str(package), "status", "--porcelain")
    return {
        "sha": _output("git", "-C", str(package), "rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
    }


def tree_hash(folder: Path) -> str | None:
    """The tree hash of git for a folder: SHA-1 over names, modes and contents; None for a folder without files."""
    # git sorts folders as if their names ended in a slash.
    entries = sorted(folder.iterdir(), key=lambda path: path.name + "/" * path.is_dir())
    lines = [_tree_entry(path) for path in entries if path.name != "__pycache__"]
    return _object_hash(b"tree", b"".join(lines)) if any(lines) else None


def _tree_entry(path: Path) -> bytes:
    """A line of a tree; none for a folder without files, which git ignores."""
    if path.is_dir():
        mode, found = b"40000", tree_hash(path)
    else:
        mode = b"100755" if os.access(path, os.X_OK) else b"100644"
        found = _object_hash(b"blob", path.read_bytes())
    return mode + b" " + path.name.encode() + b"\0" + bytes.fromhex(found) if found else b""


def _object_hash(kind: bytes, content: bytes) -> str:
    return hashlib.sha1(kind + b" %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpus() -> list[str]:
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines() if names else []
