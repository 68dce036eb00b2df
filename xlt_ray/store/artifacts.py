"""Artifacts: the directories through which stages meet. The only module that writes them.

    {root}/{stage}/{name}/config.json       what was asked, and its identity
                          data/*.parquet    the result, one file a unit of work
                          rejected.parquet  rows that are not in it, and why
                          metrics.json      the figures
                          manifest.json     written last: no manifest, it did not happen
                          writer/           the job that writes it now (`lease`)
                          sums/             checksums of what is written, until the manifest has them (`sums`)
                          workers/          machines that computed, until the manifest has them (`workers`)

A unit of work is one file, named before the work starts. A file appears under its name only when it is complete, so an
existing file is a finished unit. A killed run resumes from the files it finds, a unit that is computed twice has the
same content, and no log of finished units is needed.

The manifest has size and checksum of every file. An artifact with a missing file, or one of another size, is not
finished either: its job makes that file again, and a reader gets an error that names the file and the command.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xlt_ray.errors import Damaged, Unwritable, UserError
from xlt_ray.store import lease, manifest, reading, storage, sums, workers
from xlt_ray.store.patience import patient
from xlt_ray.store.provenance import command, provenance
from xlt_ray.store.schema import REJECTED, versions_of

_STALE_S = 600


class Overtaken(UserError):  # noqa: N818 - as the state is called
    """Another job has finished the artifact, or added to it, since this one planned its work."""


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """One artifact directory. Small enough to travel to every worker."""

    uri: str
    stage: str
    name: str
    asked: dict[str, Any] | None = dataclasses.field(default=None, compare=False, repr=False)
    """Content of config.json of an artifact that is planned, and may not be there yet."""
    seen: str | None = dataclasses.field(default=None, compare=False, repr=False)
    """Which manifest was there when it was planned."""

    @classmethod
    def at(cls, root: str, stage: str, name: str) -> Artifact:
        """The artifact of that name, whether it is there or not."""
        return cls(storage.join(storage.absolute(root), stage, name), stage, name)

    def path(self, *parts: str) -> str:
        """The path or URI of something inside."""
        return storage.join(self.uri, *parts)

    @property
    def label(self) -> str:
        """Stage and name."""
        return f"{self.stage}/{self.name}"

    @property
    def root(self) -> str:
        """The root that the artifact is under."""
        return self.uri.removesuffix(f"/{self.stage}/{self.name}")

    def has(self, relative: str) -> bool:
        """Whether a file or folder is there."""
        return storage.exists(self.path(relative))

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there, and every file that it lists."""
        return self.is_committed and not self.damage()

    @property
    def is_committed(self) -> bool:
        """Whether the manifest is there, whatever became of the files since."""
        return storage.exists(self.path(manifest.NAME))

    @property
    def is_begun(self) -> bool:
        """Whether config.json is there."""
        return storage.exists(self.path(manifest.CONFIG))

    def damage(self, *, verify: bool = False) -> dict[str, str]:
        """What is wrong with files of a committed artifact, by their path inside; {} if nothing is.

        Args:
            verify: whether to read every byte; else files of rows are only listed.
        """
        try:
            content = manifest.read(self.uri)
            return (manifest.damaged_bytes if verify else manifest.damage)(self.uri, content)
        except Damaged:
            return {manifest.NAME: "is damaged"}

    def require_whole(self, *, verify: bool = False) -> None:
        """Refuse a committed artifact of which a file is missing or damaged.

        Args:
            verify: whether to read every byte; else files of rows are only listed.

        Raises:
            Damaged: naming the first such file, and the command that makes it again.
        """
        for path, problem in self.damage(verify=verify).items():
            raise reading.damaged(self.path(path), problem)

    def planned(self, asked: dict[str, Any]) -> Artifact:
        """The same, to be made or gone on with, as it stands now.

        Args:
            asked: content of config.json.
        """
        mark = self._mark()
        if mark is None:
            _to_be_made.add(self.uri)
        return dataclasses.replace(self, asked=asked, seen=mark)

    def begin(self) -> None:
        """Become the only writer, clear away what is damaged, and write config.json if it is not there.

        From here on the name is taken. `commit` lets others write again, and so does the end of the process.

        Raises:
            Overtaken: if another job has finished it since it was planned; it is not taken then.
            UserError: if another job works on it, or has begun it with other settings; if the root can't be written.
        """
        try:
            lease.take(self.uri)
            self._require_as_planned()
            self._clear_damaged()
            if not self.is_begun:
                self.write_json(manifest.CONFIG, {**(self.asked or {}), "command": command()})
        except (OSError, Unwritable) as error:
            raise UserError(f"{self.uri} can't be written ({error}); choose another --root") from error

    def _mark(self) -> str | None:
        """What tells one manifest from another."""
        try:
            return sums.of_file(self.path(manifest.NAME)).sha256
        except FileNotFoundError:
            return None

    def _require_as_planned(self) -> None:
        """Refuse to go by a plan that another job has overtaken."""
        mark = self._mark()
        if self.asked and mark not in (None, self.seen, _written.get(self.uri)):
            lease.give_back(self.uri)
            raise Overtaken(f"{self.uri} was finished by another job meanwhile; run the same command again to use it")
        if self.asked and mark is None and self.is_begun:
            try:
                _require_same(self, self.asked["identity"])
            except UserError:
                lease.give_back(self.uri)
                raise

    def _clear_damaged(self) -> None:
        """Delete files that are not what was written, so that they are made again; says so."""
        if self.is_committed:
            problems = self.damage()
        else:
            problems = sums.wrong_sizes(sums.noted(self.uri), storage.sizes(self.uri))
            problems = {path: problem for path, problem in problems.items() if self.has(path)}
        self.discard(problems)

    def discard(self, problems: Mapping[str, str]) -> None:
        """Delete damaged files, so that they are made again, and say so.

        Args:
            problems: what is wrong, by path inside.
        """
        for path, problem in problems.items():
            print(f"warning: {self.path(path)} {problem}; it is made again", flush=True)
            self.remove_file(path)

    @property
    def named(self) -> dict[str, str]:
        """Name and fingerprint, as other artifacts record what they read."""
        return {"name": self.name, "fingerprint": self.fingerprint}

    def read_json(self, name: str) -> Any:
        """The content of a JSON file inside.

        Raises:
            Damaged: if it is missing, or no JSON.
        """
        return manifest.read(self.uri) if name == manifest.NAME else reading.json_of(self.path(name))

    @property
    def identity(self) -> dict[str, Any]:
        """What this artifact was started with, as far as it decides what comes out."""
        return self._recorded("identity", self.asked or self.read_json(manifest.CONFIG))

    @property
    def settings(self) -> dict[str, Any]:
        """All the settings of the run that began this artifact."""
        is_there = self.asked is None or self.is_begun
        return self._recorded("settings", self.read_json(manifest.CONFIG) if is_there else self.asked)

    def _recorded(self, part: str, config: Any) -> dict[str, Any]:
        """A part of config.json; a file that has none is not what was written."""
        found = config.get(part) if isinstance(config, dict) else None
        if not isinstance(found, dict):
            raise reading.damaged(self.path(manifest.CONFIG), f"has no {part}")
        return dict(found)

    @property
    def fingerprint(self) -> str:
        """The hash of the identity."""
        return fingerprint(self.identity)

    def files(self) -> list[str]:
        """The data files that the manifest lists, in order: the only ones that may be read."""
        return [self.path(entry["path"]) for entry in self.read_json(manifest.NAME)["files"]]

    def read_bytes(self, relative: str) -> bytes:
        """The content of a file that the manifest lists; it is checked.

        Raises:
            Damaged: if it is missing, or not what was written.
        """
        expected = manifest.listed(self.read_json(manifest.NAME)).get(relative)
        return reading.bytes_of(self.path(relative), expected)

    def tables(self) -> Iterator[pa.Table]:
        """The content of the data files that the manifest lists, in order; each is checked.

        Raises:
            Damaged: naming the first that is missing, or not what was written.
        """
        for path, expected in sums.in_entries(self.read_json(manifest.NAME)["files"]).items():
            yield reading.table_of(self.path(path), expected)

    def table(self, relative: str) -> pa.Table:
        """The content of one Parquet file that the manifest lists; it is checked.

        Raises:
            Damaged: if it is missing, or not what was written.
        """
        return reading.table_of(self.path(relative), manifest.listed(self.read_json(manifest.NAME)).get(relative))

    def done(self, folder: str = "data") -> set[str]:
        """Names of the units whose file is in `folder`."""
        names = (Path(uri).name for uri in storage.list_files(self.path(folder)))
        return {name.removesuffix(".parquet") for name in names if _is_whole(name)}

    def write_table(self, relative: str, table: pa.Table, **options: Any) -> None:
        """Write a Parquet file that appears whole or not at all; `options` go to pyarrow's `write_table`.

        Each page has a checksum, so that a reader of some rows notices damage too.
        """
        sink = io.BytesIO()
        pq.write_table(table, sink, **{"write_page_checksum": True, **options})
        self._write(relative, sink.getbuffer())

    def write_json(self, relative: str, value: Any) -> None:
        """Write a JSON file that appears whole or not at all."""
        self.write_bytes(relative, _json(value))

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Write a file that appears whole or not at all.

        Raises:
            Unwritable: if no space is left.
        """
        self._write(relative, data)

    def _write(self, relative: str, data: bytes | memoryview) -> None:
        sums.note(self.uri, relative, sums.of_bytes(data))
        storage.write_bytes(self.path(relative), data)

    def copy_file(self, relative: str, source: Path) -> None:
        """Copy a local file of any size, in pieces; it appears whole or not at all."""
        sums.note(self.uri, relative, sums.of_file(str(source)))
        storage.copy_file(source, self.path(relative))

    def remove(self, folder: str) -> None:
        """Delete a folder of intermediate files, if it is there; of "", all of the artifact."""
        if not folder:
            lease.give_back(self.uri)
        storage.remove_folder(self.path(folder))

    def remove_file(self, relative: str) -> None:
        """Delete a file, if it is there."""
        storage.remove_file(self.path(relative))

    def reopen(self) -> None:
        """Undo a commit before its results are updated; the record of machines that computed is kept."""
        workers.carry(self.uri, self.read_json(manifest.NAME).get("workers", []))
        self.remove_file(manifest.NAME)

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
        working: Iterable[str] = (),
    ) -> None:
        """Account for every row and write the manifest: from here on the artifact exists, and others may write it.

        Args:
            units: all the units of the work, done or not, each with its rows; None: as many as its file has.
            num_rows_in: rows that went in.
            inputs: identities of what was read (fingerprints, hashes).
            seconds: wall time of this run.
            others: files that belong to the result and hold no rows, such as weights, by their path inside; figures and
                what every artifact has need not be named.
            working: files and folders that only the work needed; they are deleted.

        Raises:
            RuntimeError: if a file is missing or not what was written, if rows in differ from rows out plus rows
                rejected, or if another job has taken the artifact over.
        """
        lease.require(self.uri)
        sizes = storage.sizes(self.uri)  # one listing, because an artifact may have thousands of files
        earlier = self._committed()  # what rows are added to
        if earlier:
            workers.carry(self.uri, earlier.get("workers", []))
        known = {**(manifest.listed(earlier) if earlier else {}), **sums.noted(self.uri)}
        files = self._described({f"data/{unit}.parquet": rows for unit, rows in units.items()}, sizes, known)
        num_rejected = read_table(self.path("rejected.parquet"), columns=[]).num_rows
        num_out = sum(file["rows"] for file in files)
        if num_rows_in != num_out + num_rejected:
            raise RuntimeError(f"{self.uri}: {num_rows_in} rows in, but {num_out} out and {num_rejected} rejected")
        content = {
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
            "workers": workers.noted(self.uri),
            "files": files,
            "others": self._described(dict.fromkeys(manifest.names(others, sizes)), sizes, known),
        }
        self._write_manifest(content)
        for place in ("rejected", workers.FOLDER, *working):
            self.remove(place)
            self.remove_file(place)
        self._sweep()
        lease.give_back(self.uri)

    def amend(self, name: str, value: Any) -> None:
        """Replace a JSON file of a committed artifact; needs `begin`, and lets others write again."""
        content = self.read_json(manifest.NAME)
        self.remove_file(manifest.NAME)  # until the new one is there, the file and the manifest don't agree
        self.write_json(name, value)
        self._account_for(content, [name])

    def add(self, files: Mapping[str, Path]) -> None:
        """Copy files into a committed artifact, by their names in it; needs `begin`, and lets others write again."""
        content = self.read_json(manifest.NAME)
        for name, path in files.items():
            self.copy_file(name, path)
        self._account_for(content, list(files))

    def _account_for(self, content: Mapping[str, Any], names: Sequence[str]) -> None:
        """Write a manifest again, with other files than before under these names."""
        entries = [entry for entry in content["others"] if entry["path"] not in names]
        known = sums.noted(self.uri)
        entries += self._described(dict.fromkeys(names), storage.sizes(self.uri), known)
        self._write_manifest({**content, "others": sorted(entries, key=lambda entry: str(entry["path"]))})
        lease.give_back(self.uri)

    def _committed(self) -> dict[str, Any]:
        """The manifest of an earlier commit; {} where there is none that can be read."""
        try:
            return manifest.read(self.uri)
        except Damaged:
            return {}

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        data = _json(manifest.sealed(content))
        storage.write_bytes(self.path(manifest.NAME), data)
        _written[self.uri] = sums.of_bytes(data).sha256
        self.remove(sums.FOLDER)

    def _sweep(self) -> None:
        """Delete what writers that were killed left half-written; no reader ever saw it.

        Only files of ten minutes ago: a younger one may belong to a writer that lives.
        """
        for uri in storage.list_files(self.path("data")):
            if not Path(uri).name.startswith("."):
                continue  # an object store takes 10 to 50 ms to tell the date of each
            filesystem, path = storage.locate(uri)
            if time.time() - filesystem.get_file_info(path).mtime.timestamp() > _STALE_S:
                filesystem.delete_file(path)

    def _described(
        self, files: Mapping[str, int | None], sizes: Mapping[str, int], known: Mapping[str, sums.Sum]
    ) -> list[dict[str, Any]]:
        """Path, bytes, checksum and rows of files, sorted by path."""
        described = []
        for path, rows in sorted(files.items()):
            if path not in sizes:
                raise RuntimeError(f"{self.uri}: {path} is missing, so the work is not finished")
            found = known.get(path) or sums.of_file(self.path(path))
            if found.bytes != sizes[path]:
                raise RuntimeError(f"{self.uri}: {path} has {sizes[path]} bytes, and {found.bytes} were written")
            entry: dict[str, Any] = {"path": path, **found._asdict()}
            if path.endswith(".parquet"):
                entry["rows"] = count_rows(self.path(path)) if rows is None else rows
            described.append(entry)
        return described


_to_be_made: set[str] = set()
"""Artifacts that this process has planned, and that were not there."""

_written: dict[str, str] = {}
"""Manifests that this process has written, by artifact: no other job has."""


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _is_whole(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith(".")


@patient
def count_rows(uri: str) -> int:
    """How many rows a Parquet file has, by its footer.

    Raises:
        Damaged: if it is missing, or damaged.
    """
    filesystem, path = storage.locate(uri)
    with reading.reading(uri):
        return int(pq.read_metadata(path, filesystem=filesystem).num_rows)


def read_table(uri: str, **options: Any) -> pa.Table:
    """Read one Parquet file, each page checked; `options` go to pyarrow's `read_table`.

    Raises:
        Damaged: if it is missing, or damaged.
    """
    return reading.table_of(uri, **options)


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
        Damaged: if nobody can tell what is there.
    """
    artifact = Artifact.at(root, stage, name)
    asked = json.loads(json.dumps({"identity": {"schema": versions_of(stage), **identity}, "settings": settings}))
    if not artifact.is_begun:
        _require_writable(root)
    else:
        _require_same(artifact, asked["identity"])
    return artifact.planned(asked)


def _require_same(artifact: Artifact, asked: dict[str, Any]) -> None:
    """Refuse an artifact that was begun with another identity."""
    if drift := differences(_identity_there(artifact, asked), asked):
        raise UserError(
            f"{artifact.uri} was made with other settings ({'; '.join(drift)}); choose another --name, or delete it"
        )


def _identity_there(artifact: Artifact, asked: dict[str, Any]) -> dict[str, Any]:
    """The identity of an artifact that is there; where config.json is damaged, by the fingerprint in the manifest."""
    try:
        return dataclasses.replace(artifact, asked=None).identity
    except Damaged as error:
        if artifact.is_committed and artifact.read_json(manifest.NAME)["fingerprint"] == fingerprint(asked):
            return asked
        raise Damaged(f"{error}, after deleting {artifact.uri}") from error


def _require_writable(root: str) -> None:
    """Refuse a local root that can't be made or written."""
    if storage.is_remote(root):
        return
    place = Path(storage.absolute(root))
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(f"--root {root!r} can't be written ({there} is no folder that you may write); choose another")


def require_free() -> None:
    """Refuse to start where another job of this machine already makes what this process has planned to make.

    Raises:
        UserError: naming that job.
    """
    for uri in sorted(_to_be_made):
        lease.require_free(uri)


def all_of(root: str, stage: str) -> list[Artifact]:
    """Every artifact of a stage, finished or not, by name; the folders alone are listed, not what is in them."""
    names = storage.list_folders(storage.join(storage.absolute(root), stage))
    return [Artifact.at(root, stage, name) for name in names]


def find(root: str, stage: str, name: str) -> Artifact:
    """A finished artifact.

    Raises:
        UserError: if there is none of that name; the message lists those that are there.
        Damaged: if a file of it is missing or damaged.
    """
    artifact = Artifact.at(root, stage, name)
    if artifact.is_committed:
        artifact.require_whole()
    else:
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
            lines.append(f"{prefix}{key}: {_short(old)} stored, {_short(new)} given")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
