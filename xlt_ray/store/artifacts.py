"""Artifacts: the directories through which stages meet. The only module that writes them.

    {root}/{stage}/{name}/config.json       what was asked, and its identity
                          data/*.parquet    the result, one file a unit of work
                          rejected.parquet  rows that are not in it, and why
                          metrics.json      the figures
                          manifest.json     written last: no manifest, it did not happen

A unit of work is one file, named before the work starts. A file appears under its name only when it is whole, so a
file that is there is a unit that is done: a killed run goes on from what it finds, a unit that is done twice is written
twice with the same content, and nothing needs a log of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from xlt_ray.errors import UserError
from xlt_ray.store import storage
from xlt_ray.store.provenance import provenance
from xlt_ray.store.schema import REJECTED, versions_of

_STALE_S = 600


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """One artifact directory. Small enough to travel to every worker."""

    uri: str
    stage: str
    name: str
    asked: dict[str, Any] | None = dataclasses.field(default=None, compare=False, repr=False)
    """Content of config.json of an artifact that is planned, and may not be there yet."""

    @classmethod
    def at(cls, root: str, stage: str, name: str) -> Artifact:
        """The artifact of that name, whether it is there or not."""
        return cls(storage.join(storage.absolute(root), stage, name), stage, name)

    def path(self, *parts: str) -> str:
        """The path or URI of something inside."""
        return storage.join(self.uri, *parts)

    @property
    def root(self) -> str:
        """The root that the artifact is under."""
        return self.uri.removesuffix(f"/{self.stage}/{self.name}")

    def has(self, relative: str) -> bool:
        """Whether a file or folder is there."""
        return storage.exists(self.path(relative))

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return storage.exists(self.path("manifest.json"))

    @property
    def is_begun(self) -> bool:
        """Whether config.json is there."""
        return storage.exists(self.path("config.json"))

    def begin(self) -> None:
        """Write config.json, if it is not there: from here on the name is taken.

        Raises:
            UserError: if the root can't be written.
        """
        try:
            if not self.is_begun:
                self.write_json("config.json", self.asked)
        except OSError as error:
            raise UserError(f"{self.uri} can't be written ({error}); choose another --root") from error

    @property
    def named(self) -> dict[str, str]:
        """Name and fingerprint, as other artifacts record what they read."""
        return {"name": self.name, "fingerprint": self.fingerprint}

    def read_json(self, name: str) -> Any:
        """The content of a JSON file inside."""
        return json.loads(storage.read_bytes(self.path(name)))

    @property
    def identity(self) -> dict[str, Any]:
        """What this artifact was started with, as far as it decides what comes out."""
        return dict((self.asked or self.read_json("config.json"))["identity"])

    @property
    def settings(self) -> dict[str, Any]:
        """All the settings of the run that began this artifact."""
        is_there = self.asked is None or self.is_begun
        return dict((self.read_json("config.json") if is_there else self.asked)["settings"])  # type: ignore[index]

    @property
    def fingerprint(self) -> str:
        """The hash of the identity."""
        return fingerprint(self.identity)

    def files(self) -> list[str]:
        """The data files that the manifest lists, in order: the only ones that may be read."""
        return [self.path(entry["path"]) for entry in self.read_json("manifest.json")["files"]]

    def done(self, folder: str = "data") -> set[str]:
        """Names of the units whose file is in `folder`."""
        names = (Path(uri).name for uri in storage.list_files(self.path(folder)))
        return {name.removesuffix(".parquet") for name in names if _is_whole(name)}

    def write_table(self, relative: str, table: pa.Table, **options: Any) -> None:
        """Write a Parquet file that appears whole or not at all; `options` go to pyarrow's `write_table`."""
        filesystem, path = storage.locate(self.path(relative))
        with _Whole(filesystem, path) as sink:
            pq.write_table(table, sink, **options)

    def write_json(self, relative: str, value: Any) -> None:
        """Write a JSON file that appears whole or not at all."""
        self.write_bytes(relative, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Write a file that appears whole or not at all."""
        filesystem, path = storage.locate(self.path(relative))
        with _Whole(filesystem, path) as sink:
            sink.write(data)

    def copy_file(self, relative: str, source: Path) -> None:
        """Copy a local file of any size, in pieces; it appears whole or not at all."""
        filesystem, path = storage.locate(self.path(relative))
        is_local = isinstance(filesystem, pafs.LocalFileSystem)
        folder, name = os.path.split(path)
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}" if is_local else path
        if is_local:
            os.makedirs(folder, exist_ok=True)
        pafs.copy_files(
            str(source), temporary, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=filesystem
        )
        if is_local:
            os.replace(temporary, path)

    def remove(self, folder: str) -> None:
        """Delete a folder of intermediate files, if it is there."""
        filesystem, path = storage.locate(self.path(folder))
        if filesystem.get_file_info(path).type == pafs.FileType.Directory:
            filesystem.delete_dir(path)

    def remove_file(self, relative: str) -> None:
        """Delete a file, if it is there."""
        filesystem, path = storage.locate(self.path(relative))
        if filesystem.get_file_info(path).type == pafs.FileType.File:
            filesystem.delete_file(path)

    def merge_rejected(self, rejected: Iterable[pa.Table] = ()) -> int:
        """Gather `rejected` and the units' own lists (`rejected/*.parquet`) in `rejected.parquet`; how many rows."""
        lists = [uri for uri in storage.list_files(self.path("rejected")) if _is_whole(Path(uri).name)]
        table = pa.concat_tables([REJECTED.empty_table(), *rejected, *(read_table(uri) for uri in lists)])
        self.write_table("rejected.parquet", table.sort_by("utterance_id"))
        return int(table.num_rows)

    def commit(
        self,
        *,
        units: Mapping[str, int | None],
        num_rows_in: int,
        inputs: Mapping[str, Any],
        seconds: float,
        others: Iterable[str] = (),
    ) -> None:
        """Account for every row and write the manifest: from here on the artifact exists.

        Args:
            units: all the units of the work, done or not, each with its rows; None: as many as its file has.
            num_rows_in: rows that went in.
            inputs: identities of what was read (fingerprints, hashes).
            seconds: wall time of this run.
            others: files that belong to the result and hold no rows, such as weights, by their path inside.

        Raises:
            RuntimeError: if a file is missing, or rows in differ from rows out plus rows rejected.
        """
        sizes = storage.sizes(self.uri)  # one listing, because an artifact may have thousands of files
        files = self._described({f"data/{unit}.parquet": rows for unit, rows in units.items()}, sizes)
        num_rejected = read_table(self.path("rejected.parquet"), columns=[]).num_rows
        num_out = sum(file["rows"] for file in files)
        if num_rows_in != num_out + num_rejected:
            raise RuntimeError(f"{self.uri}: {num_rows_in} rows in, but {num_out} out and {num_rejected} rejected")
        manifest = {
            "stage": self.stage,
            "name": self.name,
            "schema": versions_of(self.stage),
            "fingerprint": self.fingerprint,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "wall_time_s": round(seconds, 1),
            "rows_in": num_rows_in,
            "rows_out": num_out,
            "rows_rejected": num_rejected,
            "inputs": dict(inputs),
            **provenance(),
            "files": files,
            "others": self._described(dict.fromkeys(others), sizes),
        }
        self.write_json("manifest.json", manifest)
        self.remove("rejected")
        self._sweep()

    def _sweep(self) -> None:
        """Delete what writers that were killed left half-written; no reader ever saw it.

        Only files of ten minutes ago: a younger one may belong to a writer that lives.
        """
        for uri in storage.list_files(self.path("data")):
            filesystem, path = storage.locate(uri)
            is_old = time.time() - filesystem.get_file_info(path).mtime.timestamp() > _STALE_S
            if Path(uri).name.startswith(".") and is_old:
                filesystem.delete_file(path)

    def _described(self, files: Mapping[str, int | None], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
        """Path, bytes and rows of files, sorted by path."""
        described = []
        for path, rows in sorted(files.items()):
            if path not in sizes:
                raise RuntimeError(f"{self.uri}: {path} is missing, so the work is not finished")
            entry: dict[str, Any] = {"path": path, "bytes": sizes[path]}
            if path.endswith(".parquet"):
                entry["rows"] = count_rows(self.path(path)) if rows is None else rows
            described.append(entry)
        return described


class _Whole:
    """A file that takes its name only after its last byte: rename on disks, one upload in object stores."""

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self._filesystem, self._path = filesystem, path
        self._local = isinstance(filesystem, pafs.LocalFileSystem)
        folder, name = path.rsplit("/", 1)
        self._temporary = f"{folder}/.{name}.{uuid.uuid4().hex}" if self._local else path
        self._folder = folder

    def __enter__(self) -> io.BytesIO:
        self._buffer = io.BytesIO()
        return self._buffer

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        if self._local:
            os.makedirs(self._folder, exist_ok=True)
        with self._filesystem.open_output_stream(self._temporary, compression=None) as stream:
            stream.write(self._buffer.getbuffer())
        if self._local:
            os.replace(self._temporary, self._path)


def _is_whole(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith(".")


def count_rows(uri: str) -> int:
    """How many rows a Parquet file has, by its footer."""
    filesystem, path = storage.locate(uri)
    return int(pq.read_metadata(path, filesystem=filesystem).num_rows)


def read_table(uri: str, **options: Any) -> pa.Table:
    """Read one Parquet file; `options` go to pyarrow's `read_table`."""
    filesystem, path = storage.locate(uri)
    return pq.read_table(path, filesystem=filesystem, partitioning=None, **options)


def plan(root: str, stage: str, name: str, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> Artifact:
    """An artifact that is to be made, or to be gone on with; nothing is written before `Artifact.begin`.

    Args:
        root: directory or URI that holds all artifacts.
        stage: name of the stage.
        name: name of the run.
        identity: nested settings and hashes that decide what comes out.
        settings: everything that was asked, for the reader of `config.json`.

    Raises:
        UserError: if the name is taken by another identity (with the fields that differ), or the root can't be written.
    """
    artifact = Artifact.at(root, stage, name)
    asked = json.loads(json.dumps({"identity": {"schema": versions_of(stage), **identity}, "settings": settings}))
    if not artifact.is_begun:
        _require_writable(root)
    elif drift := differences(artifact.identity, asked["identity"]):
        raise UserError(
            f"{artifact.uri} was made with other settings ({'; '.join(drift)}); choose another --name, or delete it"
        )
    return dataclasses.replace(artifact, asked=asked)


def _require_writable(root: str) -> None:
    """Refuse a local root that can't be made or written."""
    if storage.is_remote(root):
        return
    place = Path(storage.absolute(root))
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(f"--root {root!r} can't be written ({there} is no folder that you may write); choose another")


def all_of(root: str, stage: str) -> list[Artifact]:
    """Every artifact of a stage, finished or not, by name; the folders alone are listed, not what is in them."""
    names = storage.list_folders(storage.join(storage.absolute(root), stage))
    return [Artifact.at(root, stage, name) for name in names]


def find(root: str, stage: str, name: str) -> Artifact:
    """A finished artifact.

    Raises:
        UserError: if there is none of that name; the message lists those that are there.
    """
    artifact = Artifact.at(root, stage, name)
    if not artifact.is_complete:
        names = ", ".join(other.name for other in all_of(root, stage) if other.is_complete) or "none"
        raise UserError(f"no finished {stage} artifact {name!r} under {root}; finished ones: {names}")
    return artifact


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the identity as canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two identities differ, each with both values."""
    lines = []
    for key in sorted(there.keys() | asked.keys()):
        old, new = there.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {_short(old)} there, {_short(new)} asked")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
