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
import importlib.metadata
import io
import json
import os
import platform
import subprocess
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
from xlt_ray.store.schema import REJECTED, SCHEMA_VERSION

_STALE_S = 600
_VERSIONS_OF = ("xlt_ray", "ray", "torch", "transformers", "pyarrow", "numpy", "mlflow")


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """One artifact directory. Small enough to travel to every worker."""

    uri: str
    stage: str
    name: str

    @classmethod
    def at(cls, root: str, stage: str, name: str) -> Artifact:
        """The artifact of that name, whether it is there or not."""
        return cls(storage.join(storage.absolute(root), stage, name), stage, name)

    def path(self, *parts: str) -> str:
        """The path or URI of something inside."""
        return storage.join(self.uri, *parts)

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return storage.exists(self.path("manifest.json"))

    def read_json(self, name: str) -> Any:
        """The content of a JSON file inside."""
        return json.loads(storage.read_bytes(self.path(name)))

    @property
    def identity(self) -> dict[str, Any]:
        """What this artifact was started with, as far as it decides what comes out."""
        return dict(self.read_json("config.json")["identity"])

    @property
    def settings(self) -> dict[str, Any]:
        """All the settings that this artifact was started with."""
        return dict(self.read_json("config.json")["settings"])

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

    def merge_rejected(self, rejected: Iterable[pa.Table] = ()) -> int:
        """Gather `rejected` and the units' own lists (`rejected/*.parquet`) in `rejected.parquet`; how many rows."""
        lists = [uri for uri in storage.list_files(self.path("rejected")) if _is_whole(Path(uri).name)]
        table = pa.concat_tables([REJECTED.empty_table(), *rejected, *(read_table(uri) for uri in lists)])
        self.write_table("rejected.parquet", table.sort_by("utterance_id"))
        return int(table.num_rows)

    def commit(
        self,
        *,
        units: Iterable[str],
        num_rows_in: int,
        inputs: Mapping[str, Any],
        seconds: float,
        others: Iterable[str] = (),
    ) -> None:
        """Account for every row and write the manifest: from here on the artifact exists.

        Args:
            units: names of all the units of the work, done or not.
            num_rows_in: rows that went in.
            inputs: identities of what was read (fingerprints, hashes).
            seconds: wall time of this run.
            others: files that belong to the result and hold no rows, such as weights, by their path inside.

        Raises:
            RuntimeError: if a file is missing, or rows in differ from rows out plus rows rejected.
        """
        files = [self._describe(f"data/{unit}.parquet") for unit in sorted(units)]
        num_rejected = read_table(self.path("rejected.parquet"), columns=[]).num_rows
        num_out = sum(file["rows"] for file in files)
        if num_rows_in != num_out + num_rejected:
            raise RuntimeError(f"{self.uri}: {num_rows_in} rows in, but {num_out} out and {num_rejected} rejected")
        manifest = {
            "stage": self.stage,
            "name": self.name,
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "wall_time_s": round(seconds, 1),
            "rows_in": num_rows_in,
            "rows_out": num_out,
            "rows_rejected": num_rejected,
            "inputs": dict(inputs),
            **provenance(),
            "files": files,
            "others": [self._describe(path) for path in sorted(others)],
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

    def _describe(self, relative: str) -> dict[str, Any]:
        filesystem, path = storage.locate(self.path(relative))
        info = filesystem.get_file_info(path)
        if info.type != pafs.FileType.File:
            raise RuntimeError(f"{self.uri}: {relative} is missing, so the work is not finished")
        described = {"path": relative, "bytes": info.size}
        if relative.endswith(".parquet"):
            described["rows"] = pq.read_metadata(path, filesystem=filesystem).num_rows
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


def read_table(uri: str, **options: Any) -> pa.Table:
    """Read one Parquet file; `options` go to pyarrow's `read_table`."""
    filesystem, path = storage.locate(uri)
    return pq.read_table(path, filesystem=filesystem, partitioning=None, **options)


def start(root: str, stage: str, name: str, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> Artifact:
    """Begin an artifact, or find the one that was begun with the same identity.

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
    asked = {"schema_version": SCHEMA_VERSION, **identity}
    try:
        if not storage.exists(artifact.path("config.json")):
            artifact.write_json("config.json", {"identity": asked, "settings": settings})
            return artifact
    except OSError as error:
        raise UserError(f"--root {root!r} can't be written ({error}); choose another --root") from error
    if drift := _differences(artifact.identity, json.loads(json.dumps(asked))):
        raise UserError(
            f"{artifact.uri} was made with other settings ({'; '.join(drift)}); choose another --name, or delete it"
        )
    return artifact


def find(root: str, stage: str, name: str) -> Artifact:
    """A finished artifact.

    Raises:
        UserError: if there is none of that name; the message lists those that are there.
    """
    artifact = Artifact.at(root, stage, name)
    if not artifact.is_complete:
        folder = storage.join(storage.absolute(root), stage)
        manifests = (uri for uri in storage.list_files(folder, recursive=True) if uri.endswith("/manifest.json"))
        names = ", ".join(sorted(uri.split("/")[-2] for uri in manifests)) or "none"
        raise UserError(f"no finished {stage} artifact {name!r} under {root}; finished ones: {names}")
    return artifact


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the identity as canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key in sorted(there.keys() | asked.keys()):
        old, new = there.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {_short(old)} there, {_short(new)} asked")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def provenance() -> dict[str, Any]:
    """What made it: git revision, package versions, hardware."""
    return {
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
