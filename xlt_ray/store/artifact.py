"""Writes artifacts, the directories through which stages communicate. No other module writes them.

    {root}/{stage}/{name}/config.json       settings and identity
                          data/*.parquet    the result, one file per unit of work
                          rejected.parquet  rejected rows with reasons
                          metrics.json      metrics
                          manifest.json     written last; without it the artifact is incomplete
                          writer/           the job that writes it now (`lease`)
                          sums/             checksums of written files, until the manifest has them (`sums`)
                          workers/          machines that computed, until the manifest has them (`workers`)

A unit of work is one file, named before the work starts. A file appears under its name only when it is complete, so an
existing file is a finished unit. A killed run resumes from existing files, a unit that is computed twice has the same
content, and no log of finished units is needed.

The manifest has size and checksum of every file. An artifact with a missing file, or a file of another size, is not
finished: its job makes the file again, and a reader gets an error that names the file and the command.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xlt_ray.errors import Damaged, Unwritable, UserError
from xlt_ray.store import lease, manifest, reading, storage, sums, workers
from xlt_ray.store.identity import differences, fingerprint
from xlt_ray.store.provenance import command, provenance
from xlt_ray.store.schema import REJECTED, versions_of
from xlt_ray.store.stored import StoredArtifact


class Overtaken(UserError):  # noqa: N818 - as the state is called
    """Another job has finished or extended the artifact since this job planned its work."""


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact(StoredArtifact):
    """One artifact directory, for reading and writing. Small enough to be sent to every worker."""

    seen: str | None = dataclasses.field(default=None, compare=False, repr=False)
    """The manifest at the time of planning."""

    def planned(self, asked: dict[str, Any]) -> Artifact:
        """The same artifact, to be made or resumed. Remembers the current manifest.

        Args:
            asked: content of config.json.
        """
        mark = self._mark()
        if mark is None:
            to_be_made.add(self.uri)
        return dataclasses.replace(self, asked=asked, seen=mark)

    def begin(self) -> None:
        """Become the only writer, delete damaged files, and write config.json if it does not exist.

        From now on the name is taken. `commit` and the end of the process let others write again.

        Raises:
            Overtaken: if another job has finished it since it was planned; then it is not taken.
            UserError: if another job is writing it, or has begun it with other settings, or if the root can't be
                written.
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
        """What distinguishes one manifest from another."""
        try:
            return sums.of_file(self.path(manifest.NAME)).sha256
        except FileNotFoundError:
            return None

    def _require_as_planned(self) -> None:
        """Refuse a plan that is outdated because of another job."""
        mark = self._mark()
        if self.asked and mark not in (None, self.seen, _written.get(self.uri)):
            lease.give_back(self.uri)
            raise Overtaken(f"{self.uri} was finished by another job meanwhile; run the same command again to use it")
        if self.asked and mark is None and self.is_begun:
            try:
                self.require_same(self.asked["identity"])
            except UserError:
                lease.give_back(self.uri)
                raise

    def require_same(self, identity: dict[str, Any]) -> None:
        """Refuse to continue an artifact that was begun with another identity.

        Raises:
            UserError: with the fields that differ.
            Damaged: if config.json is damaged, and the manifest does not have the same identity.
        """
        if drift := differences(self._identity_there(identity), identity):
            raise UserError(
                f"{self.uri} was made with other settings ({'; '.join(drift)}); choose another --name, or delete it"
            )

    def _identity_there(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The stored identity; if config.json is damaged, checked by the fingerprint in the manifest."""
        try:
            return dataclasses.replace(self, asked=None).identity
        except Damaged as error:
            if self.is_committed and self.read_json(manifest.NAME)["fingerprint"] == fingerprint(asked):
                return asked
            raise Damaged(f"{error}, after deleting {self.uri}") from error

    def _clear_damaged(self) -> None:
        """Delete damaged files, so that they are made again, and print a warning."""
        if self.is_committed:
            problems = self.damage()
        else:
            problems = sums.wrong_sizes(sums.noted(self.uri), storage.sizes(self.uri))
            problems = {path: problem for path, problem in problems.items() if self.has(path)}
        self.discard(problems)

    def discard(self, problems: Mapping[str, str]) -> None:
        """Delete damaged files, so that they are made again, and print a warning.

        Args:
            problems: the problem of each file, by path inside.
        """
        for path, problem in problems.items():
            print(f"warning: {self.path(path)} {problem}; it is made again", flush=True)
            self.remove_file(path)

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
        """Delete a folder of intermediate files, if it exists; "" is the whole artifact."""
        if not folder:
            lease.give_back(self.uri)
        storage.remove_folder(self.path(folder))

    def remove_file(self, relative: str) -> None:
        """Delete a file, if it exists."""
        storage.remove_file(self.path(relative))

    def reopen(self) -> None:
        """Undo a commit before its results are updated. The record of machines that computed is kept."""
        workers.carry(self.uri, self.read_json(manifest.NAME).get("workers", []))
        self.remove_file(manifest.NAME)

    def merge_rejected(self, rejected: Iterable[pa.Table] = ()) -> int:
        """Merge `rejected` and the units' lists (`rejected/*.parquet`) to `rejected.parquet`. Returns the row count."""
        own = map(reading.table_of, self.unit_files("rejected"))
        table = pa.concat_tables([REJECTED.empty_table(), *rejected, *own])
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
        """Check that every row is accounted for, and write the manifest. Then the artifact is complete, and unlocked.

        Args:
            units: number of rows of every unit of the work, done or not; None: the number of rows of its file.
            num_rows_in: number of input rows.
            inputs: identities of the inputs (fingerprints, hashes).
            seconds: wall time of this run.
            others: files of the result without rows, such as weights, by path inside; plots and files that every
                artifact has need not be named.
            working: files and folders that only the work needed, which are deleted.

        Raises:
            RuntimeError: if a file is missing or damaged, if the number of input rows is not that of output rows plus
                rejected rows, or if another job has taken over the artifact.
        """
        lease.require(self.uri)
        sizes = storage.sizes(self.uri)  # one listing, because an artifact may have thousands of files
        earlier = self._committed()  # what rows are added to
        if earlier:
            workers.carry(self.uri, earlier.get("workers", []))
        known = {**(manifest.listed(earlier) if earlier else {}), **sums.noted(self.uri)}
        files = manifest.entries(self.uri, {f"data/{unit}.parquet": rows for unit, rows in units.items()}, sizes, known)
        num_rejected = reading.table_of(self.path("rejected.parquet"), columns=[]).num_rows
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
            "others": manifest.entries(self.uri, dict.fromkeys(manifest.names(others, sizes)), sizes, known),
        }
        self._write_manifest(content)
        for place in ("rejected", workers.FOLDER, *working):
            self.remove(place)
            self.remove_file(place)
        storage.remove_half_written(self.path("data"))
        lease.give_back(self.uri)

    def amend(self, name: str, value: Any) -> None:
        """Replace a JSON file of a committed artifact. Needs `begin`, and lets others write again."""
        content = self.read_json(manifest.NAME)
        self.remove_file(manifest.NAME)  # until the new one is there, the file and the manifest don't agree
        self.write_json(name, value)
        self._account_for(content, [name])

    def add(self, files: Mapping[str, Path]) -> None:
        """Copy files into a committed artifact, by their names in it. Needs `begin`, and lets others write again."""
        content = self.read_json(manifest.NAME)
        for name, path in files.items():
            self.copy_file(name, path)
        self._account_for(content, list(files))

    def _account_for(self, content: Mapping[str, Any], names: Sequence[str]) -> None:
        """Write a manifest again, with changed files under these names."""
        entries = [entry for entry in content["others"] if entry["path"] not in names]
        known = sums.noted(self.uri)
        entries += manifest.entries(self.uri, dict.fromkeys(names), storage.sizes(self.uri), known)
        self._write_manifest({**content, "others": sorted(entries, key=lambda entry: str(entry["path"]))})
        lease.give_back(self.uri)

    def _committed(self) -> dict[str, Any]:
        """The manifest of an earlier commit; {} if there is none, or if it can't be read."""
        try:
            return manifest.read(self.uri)
        except Damaged:
            return {}

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        data = _json(manifest.sealed(content))
        storage.write_bytes(self.path(manifest.NAME), data)
        _written[self.uri] = sums.of_bytes(data).sha256
        self.remove(sums.FOLDER)


to_be_made: set[str] = set()
"""Artifacts that this process has planned and that did not exist."""

_written: dict[str, str] = {}
"""Manifests that this process, and not another job, has written, by artifact."""


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
