"""Finding architectures that are like a given one: embeddings, motifs, and why two graphs match.

Names are imported when they are asked for: the index needs no torch, the encoder does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nasgraph.retrieve.checkpoint import encoder_sha256, load_encoder, save_encoder
    from nasgraph.retrieve.encoder import ArchitectureEncoder, EncoderConfig
    from nasgraph.retrieve.explain import Match, explain_match
    from nasgraph.retrieve.motifs import Motif, MotifGraph, find_motifs

_MODULE_OF = {
    "ArchitectureEncoder": "encoder",
    "EncoderConfig": "encoder",
    "Match": "explain",
    "Motif": "motifs",
    "MotifGraph": "motifs",
    "encoder_sha256": "checkpoint",
    "explain_match": "explain",
    "find_motifs": "motifs",
    "load_encoder": "checkpoint",
    "save_encoder": "checkpoint",
}
__all__ = [
    "ArchitectureEncoder",
    "EncoderConfig",
    "Match",
    "Motif",
    "MotifGraph",
    "encoder_sha256",
    "explain_match",
    "find_motifs",
    "load_encoder",
    "save_encoder",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
