"""Shared by the readers of public corpora: names of languages and splits, lines of text, rows of Parquet files."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import hashlib
import io
import json
import logging
import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from xlt_ray.errors import UserError
from xlt_ray.store import storage

_LOGGER = logging.getLogger(__name__)

HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""Names of `train`, `dev` and `test` on the Hugging Face Hub."""


def check_languages(corpus: str, languages: Iterable[str], valid: Collection[str]) -> None:
    """Refuse a language that the corpus does not have.

    Raises:
        UserError: naming the first such language, close matches and all valid values.
    """
    for language in languages:
        if language not in valid:
            close = difflib.get_close_matches(language, valid, cutoff=0.5)
            hint = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise UserError(f"{corpus} has no language {language!r}{hint}; valid are {', '.join(sorted(valid))}")


def canonical_split(split: str | None) -> str:
    """`train`, `dev` or `test`, from any spelling; `test` for None.

    Raises:
        UserError: for another name.
    """
    names = {None: "test", "validation": "dev", "train": "train", "dev": "dev", "test": "test"}
    if split not in names:
        raise UserError(f"no split {split!r}; valid are train, dev (or validation) and test")
    return names[split]


def sentence_id(corpus: str, text: str | None, otherwise: str) -> str:
    """The identifier of a sentence, from its text in one language: utterances with the same text there are parallel.

    Case, punctuation and quotation marks do not count. 16 hexadecimal digits: 1.8 million sentences collide with a
    probability of 1e-7.

    Args:
        corpus: prefix of the identifier.
        text: text of the sentence in the language that aligns the others.
        otherwise: the identifier to use if the text is missing or has no word.
    """
    folded = unicodedata.normalize("NFKC", text or "").casefold()
    words = "".join(character if character.isalnum() else " " for character in folded).split()
    key = " ".join(words) if words else otherwise
    return f"{corpus}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def text_lines(uri: str) -> Iterator[str]:
    """The lines of a UTF-8 file, read as a stream; only line feeds end a line (U+2028 and U+0085 occur in text).

    A byte order mark before the first line is dropped.
    """
    filesystem, path = storage.locate(uri)
    with filesystem.open_input_stream(path, compression=None) as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            with at_line(uri, number):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            yield text


@contextlib.contextmanager
def undamaged(uri: str) -> Iterator[None]:
    """Turn the error of a damaged Parquet, Arrow or gzip file into a UserError."""
    try:
        yield
    except (UnicodeDecodeError, pa.ArrowException, OSError) as error:
        # pyarrow reports damage also as an OSError; one with an errno is of the file system.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{uri!r} is damaged, or not of the format that its name says: {reason}") from error


@contextlib.contextmanager
def at_line(source: str, number: int) -> Iterator[None]:
    """Turn a ValueError, which includes broken JSON and broken UTF-8, into a UserError with the line."""
    try:
        yield
    except UnicodeDecodeError as error:
        found = "UTF-16" if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "not UTF-8"
        raise UserError(f"{source}, line {number}: the file is {found}; save it as UTF-8 ({error})") from error
    except ValueError as error:
        raise UserError(f"{source}, line {number}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{source}, line {number}: its JSON is nested too deeply") from error


def parsed(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if it is not JSON, or one of its strings is not Unicode: JSON can hold half of a surrogate pair.
    """
    value = json.loads(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def numbered_lines(uri: str) -> Iterator[tuple[int, str]]:
    """Lines with content, counted from 1; only line feeds end a line. `.gz` files are decompressed.

    Raises:
        UserError: if a line is not UTF-8; the message names it.
    """
    filesystem, path = storage.locate(uri)
    compression = "gzip" if uri.endswith(".gz") else None
    with undamaged(uri), filesystem.open_input_stream(path, compression=compression) as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            with at_line(uri, number):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if text:
                yield number, text


def json_lines(uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON-lines file with their line numbers.

    Raises:
        UserError: if a line is not a JSON object, or the file does not exist; the message names it.
    """
    try:
        for number, line in numbered_lines(uri):
            with at_line(uri, number):
                row = _object(line)
            yield number, row
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"there is no manifest {uri!r}; give the path of a file of JSON lines") from error


def _object(line: str) -> dict[str, Any]:
    try:
        row = parsed(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON object: {error.msg}, at character {error.pos + 1}") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of a Parquet or Arrow file has texts, which may be stored as categories."""
    kind = _of_values(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _of_values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def has_sound(kind: pa.DataType) -> bool:
    """Whether a column of a Parquet or Arrow file has sound in its cells (binary, or {bytes, path}), or else paths.

    Raises:
        ValueError: if it has neither, such as decoded samples.
    """
    kind = _of_values(kind)
    if is_text(kind) or pa.types.is_null(kind):
        return False
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    content = kind.field("bytes").type if is_struct else kind
    if pa.types.is_binary(content) or pa.types.is_large_binary(content) or pa.types.is_null(content):
        return True
    raise ValueError(f"audio must be sound files (binary, or a struct of bytes and path) or paths, not {kind!s:.100}")


def text_of(row: Mapping[str, Any], name: str) -> str | None:
    """A cell as text; None if it is empty or missing. A number becomes its digits, because it is an identifier.

    Raises:
        ValueError: for another type.
    """
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ValueError(f"{name} must be text, not {value!r}")
    return None if value in (None, "") else str(value)


def split_in(name: str) -> str | None:
    """`train`, `dev` or `test`, from the name of a file or split such as `tst-COMMON` or `valid`."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None)


_DEV = dict.fromkeys(("dev", "val", "valid", "validation"), "dev")
_SPLIT_WORDS = {"train": "train", **_DEV, "test": "test", "tst": "test"}


def split_of(name: str) -> str:
    """The name of a split in rows: `dev` for `val`, `valid` and `validation`, `test` for `tst-COMMON`, else `name`."""
    return {**_DEV, "tst-COMMON": "test"}.get(name, name)


def folders(uri: str) -> list[str]:
    """Names of the folders in a folder, sorted; none if it does not exist."""
    filesystem, path = storage.locate(uri)
    found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


def pivot(texts: Mapping[str, str]) -> str | None:
    """The text that aligns the translations of a sentence: the English text, else that of the first code."""
    return texts.get("en") or next((texts[code] for code in sorted(texts) if texts[code]), None)


def parquet_shards(folder: str, split: str) -> list[str]:
    """The Parquet files of one split (`train`, `dev` or `test`), in order; none if there are none.

    All layouts of the Hugging Face Hub are known: `test/0000.parquet`, `test-00000-of-00002.parquet` and
    `name-test.parquet`, the last also in parts. A warning counts missing parts.
    """
    hub = HUB_SPLITS[split]
    name = re.compile(rf"(?:\w+-)?{hub}(?:-\d+-of-\d+.*)?\.parquet")
    within = [uri for uri in storage.list_files(storage.join(folder, hub)) if uri.endswith(".parquet")]
    found = within or [uri for uri in storage.list_files(folder) if name.fullmatch(posixpath.basename(uri))]
    parts = [part for uri in found if (part := re.search(r"-\d+-of-(\d+)", posixpath.basename(uri)))]
    if parts and len(parts) < (num := int(parts[0][1])):
        _LOGGER.warning("only %d of %d parts are there of %s %s: the others are not read", len(parts), num, folder, hub)
    return found


def parquet_rows(uri: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, in order. Only `columns` are read, so never the audio.

    Raises:
        UserError: if one of `columns` or the column `audio` is missing, or if the file is damaged.
    """
    filesystem, path = storage.locate(uri)
    with undamaged(uri), filesystem.open_input_file(path) as file:
        parquet = pq.ParquetFile(file)
        if missing := {*columns, "audio"}.difference(parquet.schema_arrow.names):
            raise UserError(f"{uri} lacks the columns {sorted(missing)}; it has {parquet.schema_arrow.names}")
        for batch in parquet.iter_batches(columns=list(columns)):
            yield from batch.to_pylist()
