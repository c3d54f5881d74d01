"""Metanetworks on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import torch

from nasgraph.errors import CheckpointError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.meta.graph import ACTIVATIONS, EDGE_KINDS, NODE_COLUMNS, NUM_SLOTS, SITES
from nasgraph.meta.networks.config import MetanetworkConfig
from nasgraph.meta.networks.metanetwork import Metanetwork
from nasgraph.plugins import load_plugin, plugin_names

SCHEMA = "nasgraph/metanetwork/1"
SHIPPED = "metanetwork-digits"
_ZOO = "nasgraph.zoo"


def save_metanetwork(
    metanetwork: Metanetwork,
    folder: Path,
    *,
    recipe: Mapping[str, Json],
    targets: Sequence[str] = (),
) -> None:
    """Write a metanetwork: weights first, then the configuration that makes them valid.

    Args:
        metanetwork: What to write.
        folder: Where; created if missing.
        recipe: How it was trained: population, settings, seed, time, versions. Kept as it is.
        targets: What the numbers of `predict` are called, in their order; none for one that only edits or embeds.
    """
    facts: dict[str, Json] = {
        "config": asdict(metanetwork.config),
        "reads": _reads(),
        "targets": list(targets),
    }
    write_network(folder, metanetwork.state_dict(), facts, schema=SCHEMA, recipe=recipe)


def load_metanetwork(folder: Path) -> Metanetwork:
    """Read a metanetwork that `save_metanetwork` wrote.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, tensors do not fit, or it reads
            other parameter graphs than this version makes.
    """
    document = metanetwork_description(folder)
    config = read_config(folder, document.get("config"), MetanetworkConfig)
    tensors = read_weights_of(folder, document)
    with torch.device("meta"):  # so that absurd sizes in a foreign file claim no memory
        check_state(Metanetwork(config), tensors, source=folder / WEIGHTS)
    metanetwork = Metanetwork(config)
    metanetwork.load_state_dict(tensors)
    return metanetwork.eval()


def shipped_metanetwork(name: str = SHIPPED) -> Path:
    """The folder of a metanetwork that ships with nasgraph or with a package that adds to its zoo.

    "metanetwork-digits" predicts the test accuracy of classifiers of handwritten digits.

    Raises:
        CheckpointError: If no installed package ships it.
    """
    for package_name in plugin_names(_ZOO):
        package = load_plugin(_ZOO, package_name, kind="zoo package")
        if isinstance(package, ModuleType):
            folder = Path(str(files(package))) / name
            if folder.is_dir():
                return folder
    raise CheckpointError(f"No installed package ships '{name}': install nasgraph with its zoo")


def metanetwork_description(folder: Path) -> dict[str, Json]:
    """What `config.json` says: `config`, `targets`, `recipe`.

    Raises:
        CheckpointError: If there is no metanetwork in the folder, or one that reads other parameter graphs.
    """
    document = read_description(folder, schema=SCHEMA, what="metanetwork")
    if document.get("reads") != _reads():
        raise CheckpointError(f"The metanetwork in '{folder}' reads other parameter graphs than this version")
    return document


def _reads() -> dict[str, Json]:
    return {
        "nodes": list(NODE_COLUMNS),
        "sites": list(SITES),
        "activations": list(ACTIVATIONS),
        "edges": list(EDGE_KINDS),
        "slots": NUM_SLOTS,
    }
