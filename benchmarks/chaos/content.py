"""What a root holds: every row of every table, every figure, every weight; without what the clock decides."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_CLOCK = re.compile(r"(^|_)(seconds|s|started|ended|created|mtime|per_s|run_id|time)$")
_PLACE = re.compile(r"""[^'"\s]*/(\w+)/chaos(?=['"/])""")
"""Where an artifact is, which a row of another may name."""
_READ = ("metrics.json", "log.json")


def rows(root: Path) -> Counter[str]:
    """Each row as text behind the name of its file."""
    found: Counter[str] = Counter()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if "/train/" in name or "mlruns" in name:
            continue
        if path.suffix == ".parquet":
            found.update(f"{name}: {_text(row)}" for row in pq.read_table(path).to_pylist())
        elif path.name in _READ:
            found.update(f"{name}: {line}" for line in _lines(json.loads(path.read_text())))
        elif path.suffix == ".safetensors":
            found[f"{name}: {hashlib.sha256(path.read_bytes()).hexdigest()}"] += 1
    return found


def unfinished(root: Path) -> list[str]:
    """Artifacts without a manifest."""
    folders = {path.parent for path in root.glob("*/*/config.json")}
    return sorted(folder.relative_to(root).as_posix() for folder in folders if not (folder / "manifest.json").exists())


def _lines(content: Any, key: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for name, value in content.items():
            if not _CLOCK.search(name):
                yield from _lines(value, f"{key}.{name}")
    elif isinstance(content, list):
        for place, value in enumerate(content):
            yield from _lines(value, f"{key}[{place}]")
    else:
        yield _PLACE.sub(r"\1/chaos", f"{key} = {content!r}")


def _text(row: dict[str, Any]) -> str:
    return _PLACE.sub(r"\1/chaos", repr({key: _short(value) for key, value in row.items() if not _CLOCK.search(key)}))


def _short(value: Any) -> Any:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
