"""Alignments on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import check_state, load_tensors, save_tensors
from nasgraph.retrieve.behaviour.alignment import Alignment, AlignmentConfig
from nasgraph.retrieve.behaviour.features import EXTRACTOR

SCHEMA = "nasgraph/alignment/1"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"


def save_alignment(alignment: Alignment, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write an alignment: weights first, then the configuration that makes them valid.

    Args:
        alignment: What to write.
        folder: Where; created if missing.
        recipe: How it was trained: models, data sets, settings, seeds. Kept as it is.

    Raises:
        NasGraphError: If it cannot be written.
    """
    save_tensors(folder / WEIGHTS, alignment.state_dict())
    config: dict[str, Json] = {
        "schema": SCHEMA,
        "extractor": EXTRACTOR,
        "config": asdict(alignment.config),
        "digest": alignment.digest,
        "recipe": dict(recipe),
        "sha256": sha256_of(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, config)


def load_alignment(folder: Path) -> tuple[Alignment, dict[str, Json]]:
    """Read an alignment and its recipe, possibly from a stranger.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, tensors do not fit, or it reads other
            descriptions of images than this version makes.
    """
    try:
        document = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No alignment in '{folder}': {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise CheckpointError(f"Expected '{folder / CONFIG}' to have schema '{SCHEMA}'")
    if document.get("extractor") != EXTRACTOR:
        raise CheckpointError(
            f"The alignment in '{folder}' reads descriptions {document.get('extractor')!r:.80}, this version makes "
            f"{EXTRACTOR!r}: train it anew"
        )
    recipe = document.get("recipe")
    if not isinstance(recipe, dict):
        raise CheckpointError(f"Expected 'recipe' in '{folder / CONFIG}' to be an object")
    config = _config_of(document.get("config"), source=folder / CONFIG)
    tensors = load_tensors(folder / WEIGHTS)
    if sha256_of(folder / WEIGHTS) != document.get("sha256"):
        raise CheckpointError(
            f"The checksum of '{folder / WEIGHTS}' differs from the recorded one: damaged or changed"
        )
    with torch.device("meta"):
        alignment = Alignment(config)
    check_state(alignment, tensors, source=folder / WEIGHTS)
    alignment = alignment.to_empty(device="cpu")
    alignment.load_state_dict(tensors)
    return alignment.eval().requires_grad_(False), recipe


def _config_of(value: Json, *, source: Path) -> AlignmentConfig:
    names = [field.name for field in fields(AlignmentConfig)]
    if not isinstance(value, dict) or set(value) != set(names):
        raise CheckpointError(
            f"Expected 'config' in '{source}' to have exactly the fields {', '.join(names)}"
        )
    sizes = {name: size for name, size in value.items() if type(size) is int}
    if len(sizes) != len(names):
        raise CheckpointError(f"Expected the sizes in 'config' in '{source}' to be whole numbers")
    try:
        return AlignmentConfig(**sizes)
    except ConfigError as error:
        raise CheckpointError(f"'{source}': {error}") from error
