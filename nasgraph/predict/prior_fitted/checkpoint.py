"""Prior-fitted networks on disk: `weights.safetensors` beside `config.json` with its checksum. Nothing is unpickled."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch

from nasgraph.errors import CheckpointError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
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
    facts: dict[str, Json] = {
        "config": asdict(network.config),
        "smoothers": list(SMOOTHERS),
        "columns": NUM_COLUMNS,
    }
    write_network(folder, network.state_dict(), facts, schema=SCHEMA, recipe=recipe)


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
    document = read_description(folder, schema=SCHEMA, what="prior-fitted network")
    if document.get("smoothers") != list(SMOOTHERS) or document.get("columns") != NUM_COLUMNS:
        raise CheckpointError(f"The network in '{folder}' reads other descriptions than this version")
    config = read_config(folder, document.get("config"), PriorFittedConfig)
    tensors = read_weights_of(folder, document)
    with torch.device("meta"):  # so that absurd sizes in a foreign file claim no memory
        network = PriorFittedNetwork(config)
        check_state(network, tensors, source=folder / WEIGHTS)
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)
