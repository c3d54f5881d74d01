"""Alignments on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.retrieve.behaviour.alignment import Alignment, AlignmentConfig
from nasgraph.retrieve.behaviour.features import EXTRACTOR

SCHEMA = "nasgraph/alignment/1"


def save_alignment(alignment: Alignment, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write an alignment: weights first, then the configuration that makes them valid.

    Args:
        alignment: What to write.
        folder: Where; created if missing.
        recipe: How it was trained: models, data sets, settings, seeds. Kept as it is.

    Raises:
        NasGraphError: If it cannot be written.
    """
    facts: dict[str, Json] = {
        "extractor": EXTRACTOR,
        "config": asdict(alignment.config),
        "digest": alignment.digest,
    }
    write_network(folder, alignment.state_dict(), facts, schema=SCHEMA, recipe=recipe)


def load_alignment(folder: Path) -> tuple[Alignment, dict[str, Json]]:
    """Read an alignment and its recipe, possibly from a stranger.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, tensors do not fit, or it reads other
            descriptions of images than this version makes.
    """
    document = read_description(folder, schema=SCHEMA, what="alignment")
    if document.get("extractor") != EXTRACTOR:
        raise CheckpointError(
            f"The alignment in '{folder}' reads descriptions {document.get('extractor')!r:.80}, this version makes "
            f"{EXTRACTOR!r}: train it anew"
        )
    recipe = document.get("recipe")
    if not isinstance(recipe, dict):
        raise CheckpointError(f"Expected 'recipe' in '{folder / CONFIG}' to be an object")
    config = read_config(folder, document.get("config"), AlignmentConfig)
    tensors = read_weights_of(folder, document)
    with torch.device("meta"):
        alignment = Alignment(config)
    check_state(alignment, tensors, source=folder / WEIGHTS)
    alignment = alignment.to_empty(device="cpu")
    alignment.load_state_dict(tensors)
    return alignment.eval().requires_grad_(False), recipe
