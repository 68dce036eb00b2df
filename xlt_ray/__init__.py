"""Cross-lingual transfer in speech translation models: retrieval, fine-tuning and retention, on Ray clusters.

Public names are imported on first use. For example, find which recordings translate each other:

>>> import torch
>>> from xlt_ray import Frames, SpeechEncoder, combine, load_speech, read_corpus, resolve_model, seqsim
>>> encoder = SpeechEncoder(resolve_model("openai/whisper-base"))
>>> def frames(rows):
...     encoded = encoder.encode(list(load_speech(rows)))
...     return Frames.of([torch.from_numpy(one.final[: one.num_valid]) for one in encoded])
>>> english, french = (read_corpus("manifest:corpus.jsonl", [code], split="test") for code in ("en", "fr"))
>>> recall, precision = seqsim(frames(english), frames(french))
>>> [french[place].sentence_id for place in combine(recall, precision, "f1").argmax(1)]
['s009', 's010', 's011']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlt_ray.corpora.speech import load_speech as load_speech
    from xlt_ray.corpora.speech import read_corpus as read_corpus
    from xlt_ray.embed.encoder import Encoded as Encoded
    from xlt_ray.embed.encoder import SpeechEncoder as SpeechEncoder
    from xlt_ray.embed.opened import OpenEmbeddings as OpenEmbeddings
    from xlt_ray.embed.opened import open_embeddings as open_embeddings
    from xlt_ray.errors import RejectedRow as RejectedRow
    from xlt_ray.errors import UserError as UserError
    from xlt_ray.finetune.batch import collate as collate
    from xlt_ray.finetune.config import FinetuneConfig as FinetuneConfig
    from xlt_ray.finetune.ewc import Consolidation as Consolidation
    from xlt_ray.finetune.ewc import squared_gradients as squared_gradients
    from xlt_ray.finetune.learner import Learner as Learner
    from xlt_ray.languages import Direction as Direction
    from xlt_ray.models.decoder import load_decoder as load_decoder
    from xlt_ray.models.prompts import Prompter as Prompter
    from xlt_ray.models.whisper import resolve_model as resolve_model
    from xlt_ray.retrieval.seqsim import Frames as Frames
    from xlt_ray.retrieval.seqsim import combine as combine
    from xlt_ray.retrieval.seqsim import match_map as match_map
    from xlt_ray.retrieval.seqsim import seqsim as seqsim
    from xlt_ray.store.schema import Utterance as Utterance

__version__ = "0.1.0"

_HOMES = {
    "corpora.speech": ("load_speech", "read_corpus"),
    "embed.encoder": ("Encoded", "SpeechEncoder"),
    "embed.opened": ("OpenEmbeddings", "open_embeddings"),
    "errors": ("RejectedRow", "UserError"),
    "finetune.batch": ("collate",),
    "finetune.config": ("FinetuneConfig",),
    "finetune.ewc": ("Consolidation", "squared_gradients"),
    "finetune.learner": ("Learner",),
    "languages": ("Direction",),
    "models.decoder": ("load_decoder",),
    "models.prompts": ("Prompter",),
    "models.whisper": ("resolve_model",),
    "retrieval.seqsim": ("Frames", "combine", "match_map", "seqsim"),
    "store.schema": ("Utterance",),
}
_MODULES = {name: f"xlt_ray.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Consolidation",
    "Direction",
    "Encoded",
    "FinetuneConfig",
    "Frames",
    "Learner",
    "OpenEmbeddings",
    "Prompter",
    "RejectedRow",
    "SpeechEncoder",
    "UserError",
    "Utterance",
    "collate",
    "combine",
    "load_decoder",
    "load_speech",
    "match_map",
    "open_embeddings",
    "read_corpus",
    "resolve_model",
    "seqsim",
    "squared_gradients",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch alone takes seconds to import."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
