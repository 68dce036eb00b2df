"""Changes to a file that somebody might make who means harm, or a disk that fails: of its bytes, or of what it says."""

from __future__ import annotations

import gzip
import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

SECRET = "hunter22xyz"
"""A password, which nothing may show."""

DEEP, DIGITS, HUGE = "@DEEP@", "@DIGITS@", "@HUGE@"
_WRITTEN = {f'"{DEEP}"': "[" * 100_000 + "]" * 100_000, f'"{DIGITS}"': "9" * 400, f'"{HUGE}"': "1e400"}
"""What no Python value can be written as."""

TEXTS = [
    *("", " ", "0", "-1", "nan", "inf", "1e308", "-1e308", "9" * 400, "9" * 5000, "null", "~", "true", "[", "{}"),
    *(
        "\0",
        "a\0b",
        "\ud800",
        "\u202etxt.exe",
        "\u2066x\u2069",
        "\ufeff",
        "e\u0301",
        "\r\n",
        "a\tb",
        "\x1b[2J",
        "\u2028",
    ),
    *("../outside/secret.wav", "../../outside/secret.wav", "../../../outside/secret.wav", "OUTSIDE/secret.wav"),
    *(
        "file://OUTSIDE/secret.wav",
        "http://TRAP/a.wav",
        "hf://datasets/a/b",
        "~/a.wav",
        "~root/a.wav",
        "C:\\a.wav",
        "/",
    ),
    *(
        "/dev/zero",
        "/proc/self/mem",
        "..",
        ".",
        "a/../..",
        "x" * 300,
        "x" * 100_000,
        "🎧",
        "&a [*a, *a]",
        "*a",
        "!!python/x y",
    ),
    *("<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "javascript:alert(1)", "</style><svg onload=x>"),
    *("{{ 7 * 7 }}", "%s%n", f"s3://key:{SECRET}@bucket/a", f"https://me:{SECRET}@TRAP/a", "--root", "en,fr", "1..2"),
]
"""Texts that mean something to somebody. OUTSIDE is a folder that nothing may enter, TRAP an address that nobody may
call."""

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, 1.5, -0.0, 1e308, float("nan"), float("inf"), [], {}),
    *(DEEP, DIGITS, HUGE, [[]], [{}], [None], {"": None}, {"a": {"b": 1}}, [1, "a"], [1e9] * 3, list(range(1000))),
]
_NUMBERS = [0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
_TOKEN = re.compile(rb"[^\s,:=\"'{}\[\]<>]+")

Change = Callable[[random.Random, bytes, bytes], bytes]


def mutated(rng: random.Random, name: str, data: bytes, other: bytes) -> bytes:
    """A file with one to four changes.

    Args:
        rng: decides which.
        name: of the file; its suffix says what it holds.
        data: its content.
        other: that of another valid file, of which parts may be taken.
    """
    suffix = name.rpartition(".")[2]
    if suffix == "gz" and rng.random() < 0.7:  # else all that is ever met is a wrong checksum
        return gzip.compress(mutated(rng, name.removesuffix(".gz"), gzip.decompress(data), other), 1, mtime=0)
    if suffix == "safetensors" and rng.random() < 0.6:
        length = struct.unpack("<Q", data[:8])[0]
        header = _in_json(rng, data[8 : 8 + length], other)
        return struct.pack("<Q", len(header)) + header + data[8 + length :]
    changes = _CHANGES_OF_TEXT.get(suffix, _CHANGES_OF_BYTES)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(changes)(rng, data, other)
    return with_tar_checksums(data) if suffix == "tar" else data


def _flip(rng: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _flipped in range(rng.choice((1, 2, 8)) if data else 0):
        changed[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _place(rng: random.Random, data: bytes) -> int:
    """Mostly near the beginning, where headers are."""
    return min(int(rng.choice((rng.random(), rng.expovariate(1) / 50)) * len(data)), max(len(data) - 1, 0))


def _cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    start = _place(rng, data)
    return data[:start] + (data[start + rng.choice((1, 4, 64, 4096)) :] if rng.random() < 0.6 else b"")


def _insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    place, start = _place(rng, data), _place(rng, other)
    part = rng.choice((rng.randbytes(8), bytes(64), other[start : start + 200], data[: place // 2], _text(rng)))
    return data[:place] + part + data[place:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def _number(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Another number in place of what may be a length."""
    width, order = rng.choice((1, 2, 4, 8)), rng.choice("<>")
    number = rng.choice((rng.choice(_NUMBERS), len(data), len(data) - 8, rng.getrandbits(64))) % 2 ** (8 * width)
    place = _place(rng, data)
    return data[:place] + struct.pack(f"{order}{'BHIQ'[width.bit_length() - 1]}", number) + data[place + width :]


def _text(rng: random.Random) -> bytes:
    return rng.choice(TEXTS).encode("utf-8", "surrogatepass")


def _in_text(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Another word in place of one."""
    found = list(_TOKEN.finditer(data))
    if not found:
        return _text(rng)
    start, end = rng.choice(found).span()
    return data[:start] + _text(rng) + data[end:]


def _in_json(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Another value, type, key or depth in JSON; in one line of JSON lines."""
    lines = data.split(b"\n")
    is_lines = len(lines) > 1 and lines[0].startswith(b"{") and lines[0].endswith(b"}")
    number = rng.randrange(len([line for line in lines if line])) if is_lines else None
    try:
        value = json.loads(data if number is None else lines[number])
    except (ValueError, RecursionError):
        return _in_text(rng, data, other)
    text = json.dumps(_changed(rng, value), ensure_ascii=rng.random() < 0.5)
    for mark, written in _WRITTEN.items():
        text = text.replace(mark, written)
    if rng.random() < 0.1:
        text = text.replace('{"', '{"' + rng.choice(("name", "audio", "language", "files")) + '": 1, "', 1)
    new = text.encode("utf-8", "surrogatepass")
    return new if number is None else b"\n".join([*lines[:number], new, *lines[number + 1 :]])


def _changed(rng: random.Random, value: Any) -> Any:
    """A value with a change somewhere in it; the deeper, the likelier."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        place = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if rng.random() < 0.15:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            left = [(key, item) for key, item in items if key != place]
            return dict(left) if isinstance(value, dict) else [item for _, item in left]
        if isinstance(value, dict) and rng.random() < 0.08:
            return value | {rng.choice(TEXTS): value[place]}
        new = value.copy()
        new[place] = _changed(rng, value[place])
        return new
    return rng.choice((rng.choice(VALUES), rng.choice(TEXTS), [value], {"a": value}, str(value), [value] * 3))


def with_tar_checksums(data: bytes) -> bytes:
    """A tar archive whose headers are believed: each has the sum of its bytes."""
    changed = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            header = data[start : start + 148] + b" " * 8 + data[start + 156 : start + 512]
            changed[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(changed)


_CHANGES_OF_BYTES: list[Change] = [_flip, _cut, _insert, _splice, _number, _number]
_CHANGES_OF_JSON: list[Change] = [_in_json] * 6 + [_in_text, _cut, _flip]
_CHANGES_OF_WORDS: list[Change] = [_in_text] * 4 + [_cut, _insert, _flip, _splice]
_CHANGES_OF_TEXT = dict.fromkeys(("json", "jsonl"), _CHANGES_OF_JSON)
_CHANGES_OF_TEXT |= dict.fromkeys(("tsv", "csv", "yaml", "txt", "m3u8"), _CHANGES_OF_WORDS)
