"""Opens the embeddings of a finished run in Python: rows of the index, and their frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.embed import selection
from xlt_ray.errors import UserError
from xlt_ray.languages import codes
from xlt_ray.store import artifacts, shards, storage
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import layer_column


@dataclasses.dataclass(frozen=True, slots=True)
class OpenEmbeddings:
    """Recordings of an embed artifact. Frames are read on demand.

    Attributes:
        uri: the folder of the artifact.
        rows: its index, one row per recording (`xlt_ray.store.schema.INDEX`); see `rows.to_pandas()`.
    """

    uri: str
    rows: pa.Table

    def __len__(self) -> int:
        """Number of recordings."""
        return int(self.rows.num_rows)

    def only(self, languages: Sequence[str] = (), split: str | None = None) -> OpenEmbeddings:
        """The recordings of some languages and of one split.

        Args:
            languages: codes in any spelling; none: all.
            split: name of a split; None: all.

        Raises:
            UserError: if a language or the split has no recordings; the message names those that have.
        """
        rows, wanted = self.rows, codes(languages)
        there = pc.unique(rows["language"]).to_pylist()
        if missing := [code for code in wanted if code not in there]:
            raise UserError(f"{self.uri} has no {', '.join(missing)}; languages can be {', '.join(there)}")
        if wanted:
            rows = pa.concat_tables(rows.filter(pc.equal(rows["language"], code)) for code in wanted)
        if split is not None:
            rows = rows.take(pa.array(selection.select(rows, [split], divide=False)[split]))
        return OpenEmbeddings(self.uri, rows)

    def take(self, places: Sequence[int]) -> OpenEmbeddings:
        """Some recordings, by their places in `rows`, in the order given."""
        return OpenEmbeddings(self.uri, self.rows.take(pa.array(places, pa.int64())))

    def frames(self, layer: int | None = None, *, with_silence: bool = False) -> list[npt.NDArray[np.float16]]:
        """Read the encoder frames of every recording: float16 (num_frames, dim), one frame every 20 ms.

        Args:
            layer: a hidden layer that the run has kept (`--embed.layers`); None: the encoder's output.
            with_silence: also the frames of silence after the speech that the run has kept.

        Raises:
            UserError: if the layer was not kept.
            Damaged: if a file is missing or damaged.
        """
        artifact = Artifact(self.uri, "embed", self.uri.rpartition("/")[2])
        kept = artifact.identity["layers"]
        if layer is not None and layer not in kept:
            raise UserError(
                f"{self.uri} has no layer {layer}; it keeps {', '.join(map(str, kept)) or 'only the last one'}"
            )
        shard = [artifact.path("data", f"{unit}.parquet") for unit in self.rows["unit"].to_pylist()]
        places = list(zip(shard, self.rows["row"].to_pylist(), strict=True))
        num_kept = self.rows["num_frames" if with_silence else "num_valid"].to_pylist()
        return shards.read_frames(places, layer_column(layer), num_kept)


def open_embeddings(uri: str, languages: Sequence[str] = (), split: str | None = None) -> OpenEmbeddings:
    """Open the embeddings of a finished job, without rejected recordings.

    Args:
        uri: the folder, ROOT/embed/NAME: a path, `s3://...` or `gs://...`.
        languages: as `OpenEmbeddings.only`.
        split: as `OpenEmbeddings.only`.

    Raises:
        UserError: if there is no finished artifact, or no recording is left after the selection.

    >>> french = open_embeddings("runs/embed/demo", languages=["fr"], split="test")
    >>> french.rows["sentence_id"].to_pylist()
    ['s009', 's010', 's011']
    >>> [frames.shape for frames in french.take([0, 2]).frames()]
    [(43, 32), (48, 32)]
    """
    root, _, name = storage.absolute(uri).rstrip("/").rpartition("/embed/")
    if not root or not name or "/" in name:
        raise UserError(f"{uri} is no folder of embeddings; give ROOT/embed/NAME, such as runs/embed/demo")
    artifact = artifacts.find(root, "embed", name)
    rows = artifact.table("index.parquet")
    return OpenEmbeddings(artifact.uri, rows.filter(pc.is_valid(rows["row"]))).only(languages, split)
