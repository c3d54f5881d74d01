"""Architecture encoders on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.retrieve.encoder import ArchitectureEncoder, EncoderConfig
from nasgraph.retrieve.inputs import GRAPH_COLUMNS, NODE_FEATURES, WORD_GROUPS

SCHEMA = "nasgraph/architecture-encoder/1"


def save_encoder(encoder: ArchitectureEncoder, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write an encoder: weights first, then the configuration that makes them valid.

    Args:
        encoder: What to write.
        folder: Where; created if missing.
        recipe: How it was trained: spaces, settings, seed, time, versions. Kept as it is.
    """
    facts: dict[str, Json] = {"config": asdict(encoder.config), "reads": _reads()}
    write_network(folder, encoder.state_dict(), facts, schema=SCHEMA, recipe=recipe)


def load_encoder(folder: Path) -> ArchitectureEncoder:
    """Read an encoder that `save_encoder` wrote, such as a zoo entry of kind "architecture-encoder".

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, tensors do not fit, or it reads other
            features than this version.
    """
    document = _document(folder)
    config = read_config(folder, document.get("config"), EncoderConfig)
    tensors = read_weights_of(folder, document)
    with torch.device("meta"):  # so that absurd sizes in a foreign file claim no memory
        check_state(ArchitectureEncoder(config), tensors, source=folder / WEIGHTS)
    encoder = ArchitectureEncoder(config)
    encoder.load_state_dict(tensors)
    return encoder.eval()


def encoder_sha256(folder: Path) -> str:
    """The recorded checksum of an encoder's weights, by which embeddings say which encoder made them.

    Raises:
        CheckpointError: If there is no encoder in the folder.
    """
    checksum = _document(folder).get("sha256")
    if not isinstance(checksum, str):
        raise CheckpointError(f"Expected 'sha256' in '{folder / CONFIG}' to be text")
    return checksum


def _document(folder: Path) -> dict[str, Json]:
    document = read_description(folder, schema=SCHEMA, what="architecture encoder")
    if document.get("reads") != _reads():
        raise CheckpointError(f"The encoder in '{folder}' reads other features than this version")
    return document


def _reads() -> dict[str, Json]:
    return {"nodes": list(NODE_FEATURES), "words": list(WORD_GROUPS), "graphs": list(GRAPH_COLUMNS)}
