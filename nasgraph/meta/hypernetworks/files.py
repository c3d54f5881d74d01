"""Hypernetworks on disk: `weights.safetensors` beside `config.json`, the target's graph in it. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError, NasGraphError
from nasgraph.files import Json, canonical_json, parse_json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.ir import ComputationalGraph, graph_from_json, graph_to_json
from nasgraph.meta.hypernetworks.config import HypernetworkConfig
from nasgraph.meta.hypernetworks.hypernetwork import Hypernetwork

SCHEMA = "nasgraph/hypernetwork/1"
MAX_TARGET = 200_000_000
"""Most parameters of a target that is read from a file."""


def save_hypernetwork(hypernetwork: Hypernetwork, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write a hypernetwork: weights first, then the configuration and the target's graph that make them valid.

    Args:
        hypernetwork: What to write.
        folder: Where; created if missing.
        recipe: How it was trained. Kept as it is.
    """
    facts: dict[str, Json] = {
        "config": asdict(hypernetwork.config),
        "graph": parse_json(graph_to_json(hypernetwork.graph)),
    }
    write_network(folder, hypernetwork.state_dict(), facts, schema=SCHEMA, recipe=recipe)


def load_hypernetwork(folder: Path) -> Hypernetwork:
    """Read a hypernetwork that `save_hypernetwork` wrote.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, or tensors do not fit.
    """
    document = read_description(folder, schema=SCHEMA, what="hypernetwork")
    config = read_config(folder, document.get("config"), HypernetworkConfig)
    graph = read_target(folder, document.get("graph"))
    hypernetwork = empty_hypernetwork(folder, graph, config)
    tensors = read_weights_of(folder, document)
    check_state(hypernetwork, tensors, source=folder / WEIGHTS)
    hypernetwork.load_state_dict(tensors)
    return hypernetwork.eval()


def read_target(folder: Path, value: Json) -> ComputationalGraph:
    """The graph in a configuration, possibly from a stranger.

    Raises:
        CheckpointError: If it is no graph.
    """
    try:
        return graph_from_json(canonical_json(value), source=f"'{folder / CONFIG}'")
    except NasGraphError as error:
        raise CheckpointError(f"Expected a graph in '{folder / CONFIG}': {error}") from error


def empty_hypernetwork(folder: Path, graph: ComputationalGraph, config: HypernetworkConfig) -> Hypernetwork:
    """A hypernetwork for weights that are read from a file of about the right size.

    Raises:
        CheckpointError: If the file cannot hold its weights.
    """
    size = sum(torch.Size(spec.shape).numel() for spec in graph.parameters.values())
    if size > MAX_TARGET:
        raise CheckpointError(
            f"Expected a target of at most {MAX_TARGET:,} parameters in '{folder / CONFIG}' (got {size:,})"
        )
    try:
        return Hypernetwork(graph, config)
    except NasGraphError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
