"""Rules of learned optimisers on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError, NasGraphError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.meta.optimiser.rule import (
    MOMENTUM_DECAYS,
    NUM_ELEMENT_FEATURES,
    NUM_TENSOR_FEATURES,
    SECOND_DECAYS,
    TIMES,
    LearnedRule,
    RuleConfig,
)

SCHEMA = "nasgraph/learned-optimiser/1"
FEATURES: dict[str, Json] = {
    "momentum_decays": list(MOMENTUM_DECAYS),
    "second_decays": list(SECOND_DECAYS),
    "times": list(TIMES),
    "element": NUM_ELEMENT_FEATURES,
    "tensor": NUM_TENSOR_FEATURES,
}


def save_rule(rule: LearnedRule, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write a rule: weights first, then the configuration that makes them valid.

    Args:
        rule: What to write.
        folder: Where; created if missing.
        recipe: How it was learnt. Kept as it is.
    """
    facts: dict[str, Json] = {"config": asdict(rule.config), "features": FEATURES}
    write_network(folder, {"numbers": rule.numbers}, facts, schema=SCHEMA, recipe=recipe)


def load_rule(folder: Path) -> LearnedRule:
    """Read a rule that `save_rule` wrote, such as the zoo entry "learned-optimiser".

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, or the rule reads other features.
    """
    document = read_description(folder, schema=SCHEMA, what="learned optimiser")
    config = read_config(folder, document.get("config"), RuleConfig)
    if document.get("features") != FEATURES:
        raise CheckpointError(
            f"The learned optimiser in '{folder / CONFIG}' reads other features than this version of nasgraph gives"
        )
    tensors = read_weights_of(folder, document)
    numbers = tensors.get("numbers")
    if numbers is None or len(tensors) != 1 or numbers.dtype != torch.float32:
        raise CheckpointError(f"Expected '{folder / WEIGHTS}' to hold one float32 tensor, 'numbers'")
    try:
        return LearnedRule(config, numbers)
    except NasGraphError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {error}") from error
