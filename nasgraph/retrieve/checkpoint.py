"""Architecture encoders on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state, load_tensors, save_tensors
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
    save_tensors(folder / WEIGHTS, encoder.state_dict())
    config: dict[str, Json] = {
        "schema": SCHEMA,
        "config": asdict(encoder.config),
        "reads": _reads(),
        "recipe": dict(recipe),
        "sha256": sha256_of(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, config)


def load_encoder(folder: Path) -> ArchitectureEncoder:
    """Read an encoder that `save_encoder` wrote, such as a zoo entry of kind "architecture-encoder".

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, tensors do not fit, or it reads other
            features than this version.
    """
    document = _document(folder)
    config = _config(document.get("config"), source=folder / CONFIG)
    try:
        found = sha256_of(folder / WEIGHTS)
    except OSError as error:
        raise CheckpointError(f"Cannot read '{folder / WEIGHTS}': {error.strerror or error}") from error
    if found != document.get("sha256"):
        raise CheckpointError(
            f"The checksum of '{folder / WEIGHTS}' differs from the recorded one: damaged or changed"
        )
    tensors = load_tensors(folder / WEIGHTS)
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
    try:
        document = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No architecture encoder in '{folder}': {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise CheckpointError(f"Expected '{folder / CONFIG}' to have schema '{SCHEMA}'")
    if document.get("reads") != _reads():
        raise CheckpointError(f"The encoder in '{folder}' reads other features than this version")
    return document


def _reads() -> dict[str, Json]:
    return {"nodes": list(NODE_FEATURES), "words": list(WORD_GROUPS), "graphs": list(GRAPH_COLUMNS)}


def _config(value: Json, *, source: Path) -> EncoderConfig:
    known = {field.name for field in fields(EncoderConfig)}
    if not isinstance(value, dict) or set(value) != known:
        raise CheckpointError(
            f"Expected 'config' in '{source}' to have exactly the fields {', '.join(sorted(known))}"
        )
    sizes: dict[str, int] = {}
    for name, size in value.items():
        if type(size) is not int:
            raise CheckpointError(f"Expected '{name}' in '{source}' to be an integer (got {size!r:.40})")
        sizes[name] = size
    try:
        return EncoderConfig(**sizes)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
