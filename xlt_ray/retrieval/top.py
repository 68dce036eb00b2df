"""The best candidates of each query, as integer keys that sort by score. Pure torch.

A key has the score in its upper 32 bits and the position of the candidate in its lower 32 bits, so the highest keys are
the best candidates. Candidates with equal scores are ordered by position, whatever the order in which they were found.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

NONE = -(2**63)
"""The key of no candidate."""

_NAN = -(2**31) + 1  # below the score -inf: a NaN comes last
_PLACES = 2**32 - 1


def keys(scores: torch.Tensor, places: range) -> torch.Tensor:
    """The keys of scores (.., num_candidates) for the candidates at `places`."""
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0: minus zero is zero
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)  # negative numbers sort from the other end
    ordered = ordered.masked_fill(scores.isnan(), _NAN).long()
    return (ordered << 32) | (_PLACES - torch.arange(places.start, places.stop, device=scores.device))


def best(found: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """The k best of the keys `found` (.., k) and `more` (.., n), best first: (.., k)."""
    num = found.shape[-1]
    more = more.topk(num).values if more.shape[-1] > num else more
    return torch.cat([found, more], dim=-1).topk(num).values


def read(found: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Positions and scores of keys of any shape; the position of NONE is -1."""
    ordered = (found >> 32).astype(np.int32)
    bits = np.where(ordered >= 0, ordered, ordered ^ 0x7FFFFFFF).astype(np.int32)
    scores = np.where(ordered == _NAN, np.float32(np.nan), bits.view(np.float32))
    return np.where(found == NONE, -1, _PLACES - (found & _PLACES)), scores
