"""Reads an artifact, and checks each file when it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from xlt_ray.errors import Damaged
from xlt_ray.store import manifest, reading, storage, sums
from xlt_ray.store.identity import fingerprint


@dataclasses.dataclass(frozen=True, slots=True)
class StoredArtifact:
    """One artifact directory, for reading."""

    uri: str
    stage: str
    name: str
    asked: dict[str, Any] | None = dataclasses.field(default=None, compare=False, repr=False)
    """Content of config.json of a planned artifact, which may not exist yet."""

    @classmethod
    def at(cls, root: str, stage: str, name: str) -> Self:
        """The artifact of this name, which may not exist."""
        return cls(storage.join(storage.absolute(root), stage, name), stage, name)

    def path(self, *parts: str) -> str:
        """The path or URI of a file or folder inside."""
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
        """Whether a file or folder exists."""
        return storage.exists(self.path(relative))

    @property
    def is_complete(self) -> bool:
        """Whether the manifest exists, and every file that it lists."""
        return self.is_committed and not self.damage()

    @property
    def is_committed(self) -> bool:
        """Whether the manifest exists, even if files were lost or damaged later."""
        return storage.exists(self.path(manifest.NAME))

    @property
    def is_begun(self) -> bool:
        """Whether config.json exists."""
        return storage.exists(self.path(manifest.CONFIG))

    def damage(self, *, verify: bool = False) -> dict[str, str]:
        """The problems of files of a committed artifact, by path inside; {} if there are none.

        Args:
            verify: whether to read every byte; otherwise files with rows are only listed.
        """
        try:
            content = manifest.read(self.uri)
            return (manifest.damaged_bytes if verify else manifest.damage)(self.uri, content)
        except Damaged:
            return {manifest.NAME: "is damaged"}

    def require_whole(self, *, verify: bool = False) -> None:
        """Refuse a committed artifact with a missing or damaged file.

        Args:
            verify: whether to read every byte; otherwise files with rows are only listed.

        Raises:
            Damaged: naming the first such file, and the command that makes it again.
        """
        for path, problem in self.damage(verify=verify).items():
            raise reading.damaged(self.path(path), problem)

    @property
    def named(self) -> dict[str, str]:
        """Name and fingerprint, by which other artifacts record their inputs."""
        return {"name": self.name, "fingerprint": self.fingerprint}

    def read_json(self, name: str) -> Any:
        """The content of a JSON file inside.

        Raises:
            Damaged: if it is missing, or not JSON.
        """
        return manifest.read(self.uri) if name == manifest.NAME else reading.json_of(self.path(name))

    @property
    def identity(self) -> dict[str, Any]:
        """The settings and hashes that determine the result of this artifact."""
        return self._recorded("identity", self.asked or self.read_json(manifest.CONFIG))

    @property
    def settings(self) -> dict[str, Any]:
        """All the settings of the run that began this artifact."""
        is_there = self.asked is None or self.is_begun
        return self._recorded("settings", self.read_json(manifest.CONFIG) if is_there else self.asked)

    def _recorded(self, part: str, config: Any) -> dict[str, Any]:
        """A part of config.json; a file without it is damaged."""
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
            Damaged: if it is missing or has changed.
        """
        expected = manifest.listed(self.read_json(manifest.NAME)).get(relative)
        return reading.bytes_of(self.path(relative), expected)

    def tables(self) -> Iterator[pa.Table]:
        """The content of the data files that the manifest lists, in order; each is checked.

        Raises:
            Damaged: naming the first that is missing or has changed.
        """
        for path, expected in sums.in_entries(self.read_json(manifest.NAME)["files"]).items():
            yield reading.table_of(self.path(path), expected)

    def table(self, relative: str) -> pa.Table:
        """The content of one Parquet file that the manifest lists; it is checked.

        Raises:
            Damaged: if it is missing or has changed.
        """
        return reading.table_of(self.path(relative), manifest.listed(self.read_json(manifest.NAME)).get(relative))

    def done(self, folder: str = "data") -> set[str]:
        """Names of the units with a file in `folder`."""
        return {Path(uri).stem for uri in self.unit_files(folder)}

    def unit_files(self, folder: str) -> list[str]:
        """The Parquet files in `folder`, sorted, without half-written files of killed writers."""
        listed = storage.list_files(self.path(folder))
        return [uri for uri in listed if uri.endswith(".parquet") and not Path(uri).name.startswith(".")]
