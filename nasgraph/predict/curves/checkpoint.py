"""Curve networks on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from nasgraph.files import Json
from nasgraph.hyper.checkpoint import WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.predict.curves.network import CurveNetwork, CurveNetworkConfig

SCHEMA = "nasgraph/curves/1"


def save_curve_network(network: CurveNetwork, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write a network: weights first, then the configuration that makes them valid.

    Args:
        network: What to write.
        folder: Where; created if missing.
        recipe: How it was trained: prior, settings, seed, time, versions. Kept as it is.
    """
    facts: dict[str, Json] = {"config": asdict(network.config)}
    write_network(folder, network.state_dict(), facts, schema=SCHEMA, recipe=recipe)


def load_curve_network(folder: Path) -> CurveNetwork:
    """Read a network that `save_curve_network` wrote, such as a zoo entry of kind "curves".

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, or tensors do not fit.
    """
    document = read_description(folder, schema=SCHEMA, what="curve network")
    config = read_config(folder, document.get("config"), CurveNetworkConfig)
    tensors = read_weights_of(folder, document)
    with torch.device("meta"):  # so that absurd sizes in a foreign file claim no memory
        check_state(CurveNetwork(config), tensors, source=folder / WEIGHTS)
    with torch.device("meta"):
        network = CurveNetwork(config)
    network.load_state_dict(tensors, assign=True)
    return network.eval()
