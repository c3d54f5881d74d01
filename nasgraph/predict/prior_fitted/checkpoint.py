"""Prior-fitted networks on disk: `weights.safetensors` beside `config.json` with its checksum. Nothing is unpickled."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state, load_tensors, save_tensors
from nasgraph.predict.prior_fitted.network import PriorFittedConfig, PriorFittedNetwork
from nasgraph.predict.prior_fitted.rows import NUM_COLUMNS, SMOOTHERS

SCHEMA = "nasgraph/prior-fitted/1"
MAX_CACHED = 4


def save_prior_fitted(network: PriorFittedNetwork, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write a network: weights first, then the configuration that makes them valid.

    Args:
        network: What to write.
        folder: Where; created if missing.
        recipe: How it was trained. Kept as it is.
    """
    save_tensors(folder / WEIGHTS, network.state_dict())
    config: dict[str, Json] = {
        "schema": SCHEMA,
        "config": asdict(network.config),
        "smoothers": list(SMOOTHERS),
        "columns": NUM_COLUMNS,
        "recipe": dict(recipe),
        "sha256": sha256_of(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, config)


def load_prior_fitted(folder: Path) -> PriorFittedNetwork:
    """Read a network, ready to predict. A folder is read again only when one of its files has changed.

    The network is shared by all callers: do not change it.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs or tensors do not fit.
    """
    try:
        stamps = tuple((folder / name).stat().st_mtime_ns for name in (CONFIG, WEIGHTS))
    except OSError as error:
        raise CheckpointError(f"No prior-fitted network in '{folder}': {error.strerror or error}") from error
    return _load(folder.resolve(), stamps)


@lru_cache(maxsize=MAX_CACHED)
def _load(folder: Path, stamps: tuple[int, ...]) -> PriorFittedNetwork:
    """Read and check; `stamps` only tells one state of the folder from the next."""
    del stamps
    try:
        document = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No prior-fitted network in '{folder}': {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise CheckpointError(f"Expected '{folder / CONFIG}' to have schema '{SCHEMA}'")
    if document.get("smoothers") != list(SMOOTHERS) or document.get("columns") != NUM_COLUMNS:
        raise CheckpointError(f"The network in '{folder}' reads other descriptions than this version")
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
        network = PriorFittedNetwork(config)
        check_state(network, tensors, source=folder / WEIGHTS)
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def _config(value: Json, *, source: Path) -> PriorFittedConfig:
    known = {field.name: field.type for field in fields(PriorFittedConfig)}
    if not isinstance(value, dict) or set(value) != set(known):
        raise CheckpointError(
            f"Expected 'config' in '{source}' to have exactly the fields {', '.join(sorted(known))}"
        )
    for name, kind in known.items():
        if type(value[name]) is not kind:
            raise CheckpointError(
                f"Expected '{name}' in '{source}' to be of type {getattr(kind, '__name__', kind)}"
            )
    try:
        arguments: dict[str, Any] = dict(value)  # types are checked above
        return PriorFittedConfig(**arguments)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
