"""Pre-trained predictors on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nasgraph.errors import CheckpointError, ConfigError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_description, read_weights_of, write_network
from nasgraph.predict.graph_network.inputs import NODE_FEATURES
from nasgraph.predict.graph_network.network import GraphNetwork, NetworkConfig
from nasgraph.predict.graph_network.path_features import PathFeatures
from nasgraph.predict.graph_network.pretrained import Memory, PretrainedPredictor

SCHEMA = "nasgraph/pretrained/1"


def save_pretrained(predictor: PretrainedPredictor, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write a pre-trained predictor: tensors first, then the configuration that makes them valid.

    Args:
        predictor: What to write.
        folder: Where; created if missing.
        recipe: How it was made: tables, settings, seeds, versions. Kept as it is.
    """
    tensors: dict[str, Tensor] = {}
    for index, network in enumerate(predictor.networks):
        tensors |= {f"network.{index}.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, memory in enumerate(predictor.memory):
        tensors[f"memory.{index}.columns"] = torch.from_numpy(memory.columns_LK)
        tensors[f"memory.{index}.scores"] = torch.from_numpy(memory.scores_L)
    facts: dict[str, Json] = {
        "networks": [_network_json(network.config) for network in predictor.networks],
        "memory": [memory.name for memory in predictor.memory],
        "seed": predictor.seed,
        "columns": list(PathFeatures().names),
        "node_features": list(NODE_FEATURES),
    }
    write_network(folder, tensors, facts, schema=SCHEMA, recipe=recipe)


def load_pretrained(folder: Path) -> tuple[PretrainedPredictor, dict[str, Json]]:
    """Read a pre-trained predictor and its recipe; with the same versions it predicts as before, to the last bit.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, tensors do not fit, or it reads other
            features than this version.
    """
    document = _document(folder)
    recipe, seed, names = (document.get(name) for name in ("recipe", "seed", "memory"))
    source = folder / CONFIG
    if not isinstance(recipe, dict) or type(seed) is not int:
        raise CheckpointError(f"Expected an object as 'recipe' and a whole number as 'seed' in '{source}'")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"Expected 'memory' in '{source}' to be a list of names")
    configs = _network_configs(document.get("networks"), source=source)
    tensors = read_weights_of(folder, document)
    networks = tuple(
        _network(config, _part(tensors, f"network.{index}."), source=folder / WEIGHTS)
        for index, config in enumerate(configs)
    )
    memory = tuple(
        _memory(str(name), _part(tensors, f"memory.{index}."), source=folder / WEIGHTS)
        for index, name in enumerate(names)
    )
    if tensors:
        raise CheckpointError(f"'{folder / WEIGHTS}' has an unexpected tensor '{min(tensors)}'")
    return PretrainedPredictor(networks, memory, seed), recipe


def _document(folder: Path) -> dict[str, Json]:
    document = read_description(folder, schema=SCHEMA, what="pre-trained predictor")
    if document.get("columns") != list(PathFeatures().names) or document.get("node_features") != list(
        NODE_FEATURES
    ):
        raise CheckpointError(f"The predictor in '{folder}' reads other features than this version")
    return document


def _network_json(config: NetworkConfig) -> dict[str, Json]:
    return {
        "vocabulary": list(config.vocabulary),
        "dim": config.dim,
        "num_layers": config.num_layers,
        "adapter_dim": config.adapter_dim,
    }


def _network_configs(value: Json, *, source: Path) -> list[NetworkConfig]:
    if not isinstance(value, list):
        raise CheckpointError(f"Expected 'networks' in '{source}' to be a list")
    configs = [_network_config(each, source=source) for each in value]
    if len({config.vocabulary for config in configs}) > 1:
        raise CheckpointError(f"Expected all networks in '{source}' to know the same operators")
    return configs


def _network_config(value: Json, *, source: Path) -> NetworkConfig:
    sizes = ("dim", "num_layers", "adapter_dim")
    if not isinstance(value, dict) or set(value) != {"vocabulary", *sizes}:
        raise CheckpointError(f"Expected a network in '{source}' to have 'vocabulary', {', '.join(sizes)}")
    vocabulary = value["vocabulary"]
    if not isinstance(vocabulary, list):
        raise CheckpointError(f"Expected 'vocabulary' in '{source}' to be a list of names")
    words = tuple(word for word in vocabulary if isinstance(word, str))
    numbers = [number for name in sizes if type(number := value[name]) is int]
    if len(words) != len(vocabulary) or len(numbers) != len(sizes):
        raise CheckpointError(f"Expected names in 'vocabulary' and whole numbers beside it in '{source}'")
    dim, num_layers, adapter_dim = numbers
    try:
        return NetworkConfig(vocabulary=words, dim=dim, num_layers=num_layers, adapter_dim=adapter_dim)
    except ConfigError as error:
        raise CheckpointError(f"'{source}': {error}") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take out the tensors whose names begin so."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _network(config: NetworkConfig, tensors: Mapping[str, Tensor], *, source: Path) -> GraphNetwork:
    with torch.device("meta"):  # so that absurd sizes in a foreign file claim no memory
        check_state(GraphNetwork(config), tensors, source=source)
    network = GraphNetwork(config)
    network.load_state_dict(dict(tensors))
    return network.eval()


def _memory(name: str, tensors: Mapping[str, Tensor], *, source: Path) -> Memory:
    columns, scores = tensors.get("columns"), tensors.get("scores")
    if columns is None or scores is None or len(tensors) != 2:
        raise CheckpointError(f"Expected 'columns' and 'scores' of table '{name}' in '{source}'")
    _check_shapes(name, columns.shape, scores.shape, source=source)
    arrays = [tensor.numpy() for tensor in (columns, scores)]
    if any(array.dtype != np.float64 or not np.isfinite(array).all() for array in arrays):
        raise CheckpointError(f"Expected finite numbers in double precision of table '{name}' in '{source}'")
    return Memory(name, arrays[0], arrays[1])


def _check_shapes(name: str, columns: Sequence[int], scores: Sequence[int], *, source: Path) -> None:
    width = len(PathFeatures().names)
    if len(scores) != 1 or not scores[0] or list(columns) != [scores[0], width]:
        raise CheckpointError(
            f"Expected a row of {width} columns for every score of table '{name}' in '{source}' "
            f"(got shapes {tuple(columns)} and {tuple(scores)})"
        )
