"""Curve networks on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import check_state, load_tensors, save_tensors
from nasgraph.predict.curves.network import CurveNetwork, CurveNetworkConfig

SCHEMA = "nasgraph/curves/1"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"


def save_curve_network(network: CurveNetwork, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write a network: weights first, then the configuration that makes them valid.

    Args:
        network: What to write.
        folder: Where; created if missing.
        recipe: How it was trained: prior, settings, seed, time, versions. Kept as it is.
    """
    save_tensors(folder / WEIGHTS, network.state_dict())
    config: dict[str, Json] = {
        "schema": SCHEMA,
        "config": asdict(network.config),
        "recipe": dict(recipe),
        "sha256": sha256_of(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, config)


def load_curve_network(folder: Path) -> CurveNetwork:
    """Read a network that `save_curve_network` wrote, such as a zoo entry of kind "curves".

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, or tensors do not fit.
    """
    try:
        document = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No curve network in '{folder}': {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise CheckpointError(f"Expected '{folder / CONFIG}' to have schema '{SCHEMA}'")
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
        check_state(CurveNetwork(config), tensors, source=folder / WEIGHTS)
    with torch.device("meta"):
        network = CurveNetwork(config)
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def _config(value: Json, *, source: Path) -> CurveNetworkConfig:
    known = {field.name for field in fields(CurveNetworkConfig)}
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
        return CurveNetworkConfig(**sizes)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
