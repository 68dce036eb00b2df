"""Recordings that the page plays: read from the corpus again, shortened, compressed and embedded, up to a limit.

The location of a recording comes from the index of the embed artifact that the run has read. If the artifact or the
recording no longer exists, or can't be decoded, the page says so instead of showing a player.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import soundfile

from xlt_ray.corpora import guarded
from xlt_ray.corpora.audio import SAMPLE_RATE, Place, places_of
from xlt_ray.errors import Damaged
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.reading import table_of

MAX_CLIPS = 40
"""Maximum number of recordings in a page."""
MAX_SECONDS = 12
"""Maximum length of a clip in seconds; longer recordings are cut."""
MAX_BYTES = 1_500_000
"""Maximum size of all clips in the page."""

_COMPRESSION = 0.9  # of MP3 with a variable rate: 3 kB a second of speech at 16 kHz; browsers all play it
_PCM = np.dtype(np.float32)

Key = tuple[str, str, str]
"""Name and fingerprint of an embed artifact, which may have been replaced by another, and an utterance in it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A recording in the page.

    Attributes:
        uri: a `data:` URI with an MP3; None if there is no audio.
        problem: why there is none.
        is_cut: whether it is only the beginning.
    """

    uri: str | None = None
    problem: str | None = None
    is_cut: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Clips:
    """All recordings in the page.

    Attributes:
        found: clips by artifact and utterance.
        num_wanted: number of recordings that the page names; those beyond the limits have no clip.
        num_bytes: size of all clips in the page.
    """

    found: Mapping[Key, Clip]
    num_wanted: int
    num_bytes: int

    def get(self, embedded: Mapping[str, str], utterance_id: str) -> Clip | None:
        """The clip of a recording; None if it is beyond the limits.

        Args:
            embedded: name and fingerprint of the embed artifact.
            utterance_id: of the recording.
        """
        return self.found.get((embedded.get("name", ""), embedded.get("fingerprint", ""), utterance_id))

    @property
    def num_played(self) -> int:
        """Number of clips with audio."""
        return sum(clip.uri is not None for clip in self.found.values())


NO_CLIPS = Clips(found={}, num_wanted=0, num_bytes=0)


def read_clips(root: str, wanted: Iterable[tuple[Mapping[str, str], str]]) -> Clips:
    """Read and compress recordings, in order, up to the limits.

    Args:
        root: directory or URI that holds all artifacts.
        wanted: name and fingerprint of the embed artifact, and the utterance, for each place that plays it.
    """
    uses = Counter((read["name"], read["fingerprint"], utterance) for read, utterance in wanted)
    taken = list(uses)[:MAX_CLIPS]
    found: dict[Key, Clip] = {}
    num_bytes = 0
    for name, fingerprint in dict.fromkeys(key[:2] for key in taken):
        asked = [utterance for *read, utterance in taken if read == [name, fingerprint]]
        for utterance, clip in _read(Artifact.at(root, "embed", name), fingerprint, asked):
            size = uses[name, fingerprint, utterance] * len(clip.uri or "")
            if num_bytes + size <= MAX_BYTES:
                num_bytes += size
                found[name, fingerprint, utterance] = clip
    return Clips(found=found, num_wanted=len(uses), num_bytes=num_bytes)


def _read(artifact: Artifact, fingerprint: str, asked: Sequence[str]) -> Iterator[tuple[str, Clip]]:
    places, problem = _places(artifact, fingerprint, asked)
    known = [utterance for utterance in asked if utterance in places]
    why = problem or "it is no longer in the embeddings"
    yield from ((utterance, Clip(problem=why)) for utterance in asked if utterance not in places)
    try:
        sounds = guarded.sounds([places[utterance] for utterance in known])
        for utterance, sound in zip(known, sounds, strict=True):
            yield utterance, Clip(problem=str(sound.problem)) if sound.problem else _clip(sound.pcm)
    except guarded.DecoderEnded as error:
        yield from ((utterance, Clip(problem=str(error))) for utterance in known)


def _places(artifact: Artifact, fingerprint: str, asked: Sequence[str]) -> tuple[dict[str, Place], str | None]:
    """The places of recordings by utterance, or what is wrong with the index."""
    gone = f"the embeddings {artifact.name} no longer exist"
    try:
        if not artifact.is_committed or artifact.fingerprint != fingerprint:
            return {}, gone
        rows = table_of(artifact.path("index.parquet"), columns=["utterance_id", *Place._fields])
    except (Damaged, KeyError, OSError, pa.ArrowException):
        return {}, gone
    rows = rows.filter(pc.is_in(rows["utterance_id"], value_set=pa.array(asked, pa.string())))
    return dict(zip(rows["utterance_id"].to_pylist(), places_of(rows), strict=True)), None


def _clip(pcm: bytes) -> Clip:
    samples: npt.NDArray[np.float32] = np.frombuffer(pcm, _PCM)
    kept = samples[: MAX_SECONDS * SAMPLE_RATE]
    file = io.BytesIO()
    try:
        soundfile.write(file, kept, SAMPLE_RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=_COMPRESSION)
    except (soundfile.SoundFileRuntimeError, ValueError) as error:  # a libsndfile before 1.1 writes no MP3
        return Clip(problem=f"it can't be compressed here ({error})")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return Clip(uri=f"data:audio/mpeg;base64,{text}", is_cut=len(kept) < len(samples))
