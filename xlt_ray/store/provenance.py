"""What made a result: command, git revision, package versions, hardware."""

from __future__ import annotations

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
    """What made it: command, git revision, package versions, hardware."""
    return {
        "command": command(),
        "git": _git(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _VERSIONS_OF if _installed(package)},
        "hardware": {
            "cpu": _processor(),
            "num_cpus": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "gpus": _gpus(),
        },
    }


def command() -> str:
    """The command of this process, as a user would type it."""
    return shlex.join(["python", *sys.argv])


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _git() -> dict[str, Any]:
    folder = Path(__file__).parent
    revision = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(folder), "status", "--porcelain")
    return {"sha": revision, "dirty": None if changed is None else bool(changed)}


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
