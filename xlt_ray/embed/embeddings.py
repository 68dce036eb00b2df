"""Embeddings as a job reads them: the rows of an embed artifact by split, and the rows that must still be encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.embed import committed, index
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import UserError
from xlt_ray.languages import Direction
from xlt_ray.store import shards
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import INDEX, UTTERANCE

Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """The rows that must still be encoded.

    Attributes:
        missing: rows of INDEX without a unit, language by language; `bytes` is null if the file does not exist.
        corpus: as `--corpus`.
        model: as `--model`.
        config: settings.
    """

    missing: pa.Table
    corpus: str
    model: str
    config: EmbedConfig


class Embeddings:
    """Rows of an embed artifact that a job reads, by split.

    Args:
        artifact: finished, or planned.
        rows: of INDEX, each row of any split once, with the current metadata of the corpus.
        places: positions of the rows of each split.
        work: the rows to encode before `recordings` can be read; None if there are none.
        settings: corpus, model and encoding of the job, for its record.
    """

    def __init__(
        self,
        artifact: Artifact,
        rows: pa.Table,
        places: dict[str, Indices],
        work: Work | None,
        settings: dict[str, Any],
    ) -> None:
        self.artifact, self.work, self.settings = artifact, work, settings
        self._rows, self._places = rows, places
        self._sha256: dict[str, str] = {}  # by split; shared with `only`, as each trial of a search asks for it

    @property
    def splits(self) -> tuple[str, ...]:
        """The requested splits."""
        return tuple(self._places)

    @property
    def name(self) -> str:
        """Name of the artifact."""
        return self.artifact.name

    @property
    def all_rows(self) -> pa.Table:
        """Every row of any split (UTTERANCE)."""
        return self._rows

    def rows(self, split: str) -> pa.Table:
        """The corpus rows of a split (UTTERANCE), whether encoded, rejected or not yet encoded."""
        return self._rows.take(pa.array(self._places[split]))

    def recordings(self, split: str) -> pa.Table:
        """The encoded rows of a split (INDEX), in the order of the corpus. All work must be done."""
        wanted = self.rows(split)
        there = committed.read_index(self.artifact)
        places = pc.index_in(wanted["utterance_id"], value_set=there["utterance_id"].combine_chunks())
        found = there.take(places)
        columns = [wanted[name] if name in UTTERANCE.names else found[name] for name in INDEX.names]
        table = pa.table(columns, schema=INDEX)
        return table.filter(pc.is_valid(table["row"]))

    def require_left(self, directions: Sequence[Direction], split: str) -> pa.Table:
        """Like `recordings`, but refuses a direction if every recording with a text was rejected.

        Raises:
            UserError: naming the first such direction, and the file with the reasons.
        """
        recordings = self.recordings(split)
        left = shards.with_references(recordings, directions)
        if lost := [direction for direction in directions if direction not in left]:
            raise UserError(
                f"direction {lost[0]}: no recording of split {split!r} is left with a {lost[0].target} text; "
                f"{self.artifact.path('rejected.parquet')} says which were rejected and why; fix them, or leave out "
                "the direction"
            )
        return recordings

    @property
    def identity(self) -> dict[str, Any]:
        """The inputs of a result: the rows of each split, the model and the encoding, but not the artifact's name."""
        made = self.artifact.identity
        rows = {split: {"num_rows": len(at), "sha256": self._hash(split)} for split, at in self._places.items()}
        return {"rows": rows, "model": made["model"], "encoding": made["encoding"]}

    def _hash(self, split: str) -> str:
        if split not in self._sha256:
            self._sha256[split] = index.sha256(self.rows(split))
        return self._sha256[split]

    def with_work(self, artifact: Artifact, work: Work | None) -> Embeddings:
        """The same rows, planned anew."""
        return Embeddings(artifact, self._rows, self._places, work, self.settings)

    def only(self, *splits: str) -> Embeddings:
        """The same embeddings with only some splits, for one run of a job."""
        places = {split: self._places[split] for split in dict.fromkeys(splits)}
        view = Embeddings(self.artifact, self._rows, places, self.work, self.settings)
        view._sha256 = self._sha256
        return view
