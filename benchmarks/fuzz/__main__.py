r"""Gives changed files to the readers of the package, counts what comes of them, and keeps what is a fault.

    python -m benchmarks.fuzz --seed 1 --seconds 30
    python -m benchmarks.fuzz --seed 2 --seconds 300 --only manifest,archive --folder /data/findings
    python -m benchmarks.fuzz --again /data/findings/manifest-1a2b3c4d

An input ends in one of four ways: accepted; UserError, with one line; some of its rows are rejected, with a reason;
or it is a finding: any other error, the end of the process, more than 10 s or 1 GB, a file or address opened or written
that is none of its own, an element of HTML that a text has made, a password shown. The exit code is 1 if there is one.
Each kind of finding is kept once, in a folder of its own: the file and `finding.txt`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._origin import origin
from benchmarks.fuzz.targets import TARGETS
from benchmarks.fuzz.trials import ACCEPTED, FINDING, REJECTED, USER_ERROR, Result, Trials

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "AWS_EC2_METADATA_DISABLED": "true"}
_ENVIRONMENT |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "x"}


def main() -> None:
    """Try, keep, print the table."""
    options = _options()
    kept = Path(options.folder or tempfile.mkdtemp(prefix="findings-"))
    kept.mkdir(parents=True, exist_ok=True)
    if options.again:
        sys.exit(_again(Path(options.again)))
    counts = {name: _try_target(name, options.seed, options.seconds, kept) for name in options.only}
    _show(counts, options.seed)
    sys.exit(any(count[FINDING] for count in counts.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="other seeds are other inputs (1)")
    parser.add_argument("--seconds", type=float, default=30, help="for each target, without its start (30)")
    parser.add_argument("--only", type=_names, default=list(TARGETS), help=f"some of {','.join(TARGETS)} (all)")
    parser.add_argument("--folder", help="where findings are kept (a new temporary folder)")
    parser.add_argument("--again", help="the folder of a finding: try its file again")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    if unknown := [name for name in text.split(",") if name not in TARGETS]:
        raise argparse.ArgumentTypeError(f"no target {unknown[0]!r}; valid are {', '.join(TARGETS)}")
    return text.split(",")


def _try_target(name: str, seed: int, seconds: float, kept: Path) -> collections.Counter[str]:
    """Outcomes of as many inputs as the time allows."""
    counts: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    with _opened(name) as trials:
        trials.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            file, data = trials.input(f"{seed}/{name}/{counts.total()}")
            result = trials.attempt(file, data)
            counts[result.outcome] += 1
            if result.outcome == FINDING:
                kinds[result.kind] += 1
                if kinds[result.kind] == 1:
                    _keep(kept, name, file, data, result)
    for kind, number in kinds.most_common():
        print(f"fuzz: {name}: {number} times {kind}", flush=True)
    counts["kinds"] = len(kinds)
    return counts


@contextlib.contextmanager
def _opened(name: str) -> Iterator[Trials]:
    """The trials of a target in a temporary folder, in an environment of their own."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:
        places = dict.fromkeys(("XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR", "HOME"), f"{folder}/work/cache")
        os.environ.update(_ENVIRONMENT | places | {"TMPDIR": f"{folder}/work/tmp"})
        trials = Trials(TARGETS[name], Path(folder, "work"))
        try:
            yield trials
        finally:
            trials.end()


def _keep(kept: Path, name: str, file: str, data: bytes, result: Result) -> None:
    folder = kept / f"{name}-{hashlib.sha256(result.kind.encode()).hexdigest()[:8]}"
    (folder / "input" / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / "input" / file).write_bytes(data)
    command = f"python -m benchmarks.fuzz --again {folder}"
    (folder / "finding.txt").write_text(f"{result.kind}\n{command}\n\n{result.details}", errors="replace")
    print(f"fuzz: {name}: {result.kind}: {command}", flush=True)


def _again(folder: Path) -> bool:
    """Try the file of a finding once more; whether it still is one."""
    (file,) = (path for path in (folder / "input").rglob("*") if path.is_file())
    data, name = file.read_bytes(), folder.name.rpartition("-")[0]
    with _opened(name) as trials:
        result = trials.attempt(str(file.relative_to(folder / "input")), data)
    print(f"fuzz: {name}: {result.outcome}: {result.kind}\n{result.details}")
    return result.outcome == FINDING


def _show(counts: dict[str, collections.Counter[str]], seed: int) -> None:
    title = f"fuzz: seed {seed}, {origin()}"
    table = Table(title=title, title_justify="left")
    for column in ("target", "inputs", ACCEPTED, USER_ERROR, REJECTED, "findings", "kinds"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for name, count in counts.items():
        kinds = count.pop("kinds")
        outcomes = (str(count[key]) for key in (ACCEPTED, USER_ERROR, REJECTED, FINDING))
        table.add_row(name, str(count.total()), *outcomes, str(kinds))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
