"""Runs benchmarks one after another, each in a process of its own, and keeps what they print beside commit and machine.

python -m benchmarks                    # every benchmark that needs no GPU
python -m benchmarks seqsim shards
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from xlt_ray.store.provenance import provenance

HERE = Path(__file__).parent
NEEDS_GPU = "gpu"


def names() -> list[str]:
    """Of all benchmarks."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def main() -> None:
    """Run those that are named; the exit code is 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(names())}")
    asked = parser.parse_args().names
    if unknown := sorted(set(asked) - set(names())):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    chosen = asked or [name for name in names() if name != NEEDS_GPU]
    kept = Path("build", "bench", f"{time.strftime('%Y-%m-%dT%H%M%S')}.txt")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("w", encoding="utf-8") as file:
        _tell(file, _head())
        failed = [name for name in chosen if not _run(name, file)]
    print(f"bench: kept in {kept}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


def _head() -> str:
    made = provenance()
    hardware, git = made["hardware"], made["git"]
    when = f"commit {git['sha']}{', with changes' if git['dirty'] else ''}; {time.strftime('%Y-%m-%d %H:%M')}"
    what = f"{hardware['cpu']}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    gpus = ", ".join(hardware["gpus"]) or "none"
    return f"{when}\n{what}; GPUs: {gpus}; Python {platform.python_version()}\n"


def _run(name: str, file: IO[str]) -> bool:
    _tell(file, f"\nbench: {name}\n")
    command = [sys.executable, str(HERE / f"{name}.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            _tell(file, line)
    return process.returncode == 0


def _tell(file: IO[str], text: str) -> None:
    print(text, end="", flush=True)
    file.write(text)


if __name__ == "__main__":
    main()
