"""Trained weights that are kept for the children of a candidate: one folder per graph, by its fingerprint.

    <root>/<fingerprint>/network.safetensors   parameters and running statistics
    <root>/<fingerprint>/network.json          the graph, and the sha256 of the weights

The weights are written first, then the JSON that makes them valid.
"""

import logging
import shutil
from collections.abc import Container, Mapping
from pathlib import Path

from torch import Tensor

from nasgraph.edits.inherit import inherit
from nasgraph.errors import NasGraphError
from nasgraph.files import read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.ir import ComputationalGraph, graph_from_json, graph_to_json
from nasgraph.modules.state import check_state, is_statistic

logger = logging.getLogger(__name__)

SCHEMA = "nasgraph/heirs/1"
INHERITED_SHARE = "inherited_share"
"""Metric of a candidate that has a parent: the share of its parameters that start from the parent's."""
_TENSORS, _DESCRIPTION = "network.safetensors", "network.json"


def keep_weights(root: Path, graph: ComputationalGraph, state: Mapping[str, Tensor]) -> None:
    """Keep what a candidate learnt. A disk that cannot be written costs a warning: children then start at random."""
    folder = root / graph.fingerprint
    try:
        save_tensors(folder / _TENSORS, state)
        document = {
            "schema": SCHEMA,
            "graph": graph_to_json(graph),
            "sha256": sha256_of(folder / _TENSORS),
        }
        write_json(folder / _DESCRIPTION, document)
    except (NasGraphError, OSError) as error:
        logger.warning("The weights of %s are not kept for its children: %s", graph.fingerprint, error)


def read_weights(root: Path, fingerprint: str) -> tuple[ComputationalGraph, dict[str, Tensor]]:
    """What `keep_weights` wrote.

    Raises:
        NasGraphError: If it is gone, damaged or foreign.
    """
    folder = root / fingerprint
    document = read_json(folder / _DESCRIPTION)
    text = document.get("graph") if isinstance(document, dict) else None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or not isinstance(text, str):
        raise NasGraphError(f"'{folder / _DESCRIPTION}' does not describe weights that are kept for children")
    graph = graph_from_json(text)
    try:
        is_whole = sha256_of(folder / _TENSORS) == document.get("sha256")
    except OSError as error:
        raise NasGraphError(f"Cannot read '{folder / _TENSORS}': {error.strerror or error}") from error
    if not is_whole or graph.fingerprint != fingerprint:
        raise NasGraphError(f"The weights in '{folder}' are damaged, or of another network")
    state = load_tensors(folder / _TENSORS)
    check_state(graph, state, owner=fingerprint)
    return graph, state


def inherited_start(
    root: Path | None, parent: str, graph: ComputationalGraph, *, seed: int
) -> tuple[dict[str, Tensor], float] | None:
    """Parameters to start a child's training from, and which share of them is the parent's. None, with a warning, if what the
    parent learnt is gone or cannot be used.

    Args:
        root: Where weights are kept; None: nowhere.
        parent: Fingerprint of the parent's graph.
        graph: The child.
        seed: Decides fresh weights.
    """
    if root is None:
        return None
    try:
        parent_graph, state = read_weights(root, parent)
        inherited = inherit(parent_graph, state, graph, seed=seed)
    except NasGraphError as error:
        logger.warning("%s inherits nothing of %s and starts anew: %s", graph.fingerprint, parent, error)
        return None
    parameters = {name: tensor for name, tensor in inherited.state.items() if not is_statistic(name)}
    return parameters, inherited.share


def remove_weights(root: Path, *, keep: Container[str] = ()) -> None:
    """Remove what is kept of all graphs but those with these fingerprints. It is no error if there is nothing."""
    if root.is_dir():
        for folder in root.iterdir():
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
