"""Finds the files of a data set of the Hugging Face `datasets` library, and the split of each."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import posixpath
import re
from typing import Any

from xlt_ray.corpora.tables import split_in
from xlt_ray.errors import UserError
from xlt_ray.store import storage

_REF = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@]+))?(?:@(?P<revision>.+))?")


def place(ref: str) -> str:
    """A Hub id unchanged; a path as an absolute path or URI.

    Raises:
        UserError: if it is neither.
    """
    if "://" in ref or ref.startswith(("/", "~", ".")) or "*" in ref or os.path.exists(ref):
        return storage.absolute(ref)
    if ref.endswith((".parquet", ".arrow")) or not _REF.fullmatch(ref):
        raise UserError(
            f"{ref!r} is neither a place nor a Hub id; give a folder, files or org/name[:config][@revision]"
        )
    return ref


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A Parquet or Arrow file of one split.

    Attributes:
        uri: of the file.
        split: of its rows, if known.
        name: prefix of the identifiers of its rows.
    """

    uri: str
    split: str | None
    name: str = ""


def tables(source: str) -> list[Table]:
    """The files of a data set.

    Args:
        source: from `place`.

    Raises:
        UserError: if there is no such data set, the Hub does not answer, or its files have another format.
    """
    return _named(_tables(source))


def _named(found: list[Table]) -> list[Table]:
    """Each table with its file name or, if two have the same one, with the folders that distinguish them.

    The Hub's Parquet branch calls the first file of every split 0000, save_to_disk data-00000-of-00001.
    """
    paths = [posixpath.splitext(table.uri)[0].split("/") for table in found]
    names = [path[-1] for path in paths]
    if len(set(names)) < len(names):
        levels = enumerate(zip(*paths, strict=False))
        first = next((level for level, folders in levels if len(set(folders)) > 1), 0)
        names = ["/".join(path[first:]) for path in paths]
    return [dataclasses.replace(table, name=name) for table, name in zip(found, names, strict=True)]


def _tables(source: str) -> list[Table]:
    if "*" in source or source.endswith((".parquet", ".arrow")):
        return _matching(source)
    if storage.is_remote(source) or source.startswith("/"):
        if not storage.exists(source):
            raise UserError(f"there is no folder {source!r}; give a folder, Parquet files or the id of a data set")
        if any(storage.exists(storage.join(source, name)) for name in ("dataset_dict.json", "state.json")):
            return _saved(source)
        return _below(source) if storage.is_remote(source) else _built(source, None, None)
    ref = _REF.fullmatch(source)
    return _built(ref["id"], ref["config"], ref["revision"]) if ref else []


def _matching(source: str) -> list[Table]:
    folder, name = posixpath.split(source)
    files = [uri for uri in storage.list_files(folder) if fnmatch.fnmatchcase(posixpath.basename(uri), name)]
    if not files:
        raise UserError(f"no file matches {source!r}")
    return [Table(uri, split_in(posixpath.basename(uri)) or split_in(posixpath.basename(folder))) for uri in files]


def _below(source: str) -> list[Table]:
    """The Parquet and Arrow files in a folder of a store and below it: the library reads only folders of a disk."""
    files = [uri for uri in storage.list_files(source, recursive=True) if uri.endswith((".parquet", ".arrow"))]
    if not files:
        raise UserError(f"no Parquet or Arrow file is in {source!r} or below")
    return [Table(uri, split_in(posixpath.basename(uri)) or split_in(uri.removeprefix(source))) for uri in files]


def _saved(source: str) -> list[Table]:
    """The Arrow files of a data set, or of a dictionary of them, as `save_to_disk` writes them."""
    if not storage.exists(storage.join(source, "dataset_dict.json")):
        return _saved_split(source, split_in(posixpath.basename(source)))
    splits = _written(storage.join(source, "dataset_dict.json"), "splits")
    return [table for name in splits for table in _saved_split(storage.join(source, name), split_in(name) or name)]


def _saved_split(folder: str, split: str | None) -> list[Table]:
    files = _written(storage.join(folder, "state.json"), "_data_files")
    state = json.loads(storage.read_bytes(storage.join(folder, "state.json")))
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise UserError(f"{folder!r} was saved with a selection of its rows; save it again after flatten_indices()")
    own = str(state.get("_split") or "")
    split = split or split_in(own) or own or None
    names = [_name(file) for file in files]
    if lost := sorted(set(names) - {posixpath.basename(uri) for uri in storage.list_files(folder)}):
        raise UserError(f"{folder!r} is not whole: {lost[0]} is missing; copy the data set again")
    return [Table(storage.join(folder, name), split) for name in names]


def _written(uri: str, name: str) -> Any:
    """A list in a JSON file that `save_to_disk` writes."""
    try:
        value = json.loads(storage.read_bytes(uri))[name]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{uri!r} is not what save_to_disk writes: there is no {name!r} in it") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in map(_name, value)):
        raise UserError(f"{uri!r} is not what save_to_disk writes: {name!r} is not a list of names")
    return value


def _name(item: Any) -> Any:
    return item.get("filename") if isinstance(item, dict) else item


def _built(path: str, config: str | None, revision: str | None) -> list[Table]:
    """The files of a data set, found by the rules of the library."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(path, config, revision=revision)
    except Exception as error:  # the library raises any error of its dependencies
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot read data set {path!r} ({type(error).__name__}: {reason})") from error
    files = builder.config.data_files or {}
    tables = [Table(str(uri), split_in(str(name)) or str(name)) for name, uris in files.items() for uri in uris]
    if other := [table.uri for table in tables if not table.uri.endswith((".parquet", ".arrow"))]:
        raise UserError(
            f"data set {path!r} is not of Parquet files but of {posixpath.basename(other[0])!r}; for a data set of the "
            "Hub give the revision refs/convert/parquet, else save it with to_parquet or write a manifest"
        )
    return tables
