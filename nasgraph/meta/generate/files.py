"""Fitting generators by name, and generators on disk."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from nasgraph.errors import CheckpointError, UnknownNameError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.ir import graph_from_json, graph_to_json
from nasgraph.meta.generate.baselines import MeanGenerator, NearestGenerator, RidgeGenerator, check_training
from nasgraph.meta.generate.diffusion import Denoiser, DiffusionGenerator
from nasgraph.meta.generate.generator import Generator, GeneratorConfig, TrainingSet
from nasgraph.meta.generate.space import WeightSpace

SCHEMA = "nasgraph/weight-generator/1"

KINDS: Mapping[str, Callable[[TrainingSet, GeneratorConfig], Generator]] = {
    "mean": MeanGenerator.fit,
    "nearest": NearestGenerator.fit,
    "ridge": RidgeGenerator.fit,
    "diffusion": DiffusionGenerator.fit,
}
"""How each kind of generator is fitted."""


def fit_generator(kind: str, training: TrainingSet, config: GeneratorConfig | None = None) -> Generator:
    """Fit a generator.

    Args:
        kind: "mean", "nearest", "ridge" or "diffusion".
        training: What it learns from.
        config: How; None: the defaults.

    Raises:
        UnknownNameError: If there is no such kind.
        GenerateError: If the training set is too small or not finite.
    """
    if kind not in KINDS:
        raise UnknownNameError("weight generator", kind, KINDS)
    check_training(training)
    return KINDS[kind](training, config or GeneratorConfig())


def save_generator(
    generator: Generator, folder: Path, *, config: GeneratorConfig, recipe: Mapping[str, Json]
) -> None:
    """Write a generator.

    Args:
        generator: What to write.
        folder: Where; created if missing.
        config: What it was fitted with.
        recipe: From which population. Kept as it is.
    """
    space = _space_of(generator)
    tensors = {f"own.{name}": tensor for name, tensor in generator.tensors().items()}
    tensors |= {"space.mean": space.mean, "space.basis": space.basis, "space.scale": space.scale}
    if space.reference is not None:
        tensors["space.reference"] = space.reference
    facts: dict[str, Json] = {
        "kind": generator.kind,
        "graph": graph_to_json(generator.graph),
        "shapes": {name: list(shape) for name, shape in space.shapes.items()},
        "input_size": _input_size(generator),
        "config": cast(Json, asdict(config)),
    }
    write_network(folder, tensors, facts, schema=SCHEMA, recipe=recipe)


def load_generator(folder: Path) -> tuple[Generator, dict[str, Json]]:
    """Read a generator, and the recipe that it was written with.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, or tensors do not fit.
        NasGraphError: If its graph breaks a rule of the graph language.
    """
    document = read_description(folder, schema=SCHEMA, what="weight generator")
    config = read_config(folder, document.get("config"), GeneratorConfig)
    kind, text, shapes, size = (document.get(name) for name in ("kind", "graph", "shapes", "input_size"))
    recipe = document.get("recipe")
    if (
        kind not in KINDS
        or not isinstance(text, str)
        or not isinstance(shapes, dict)
        or not isinstance(size, int)
        or not isinstance(recipe, dict)
    ):
        raise CheckpointError(f"The description of the weight generator in '{folder}' is not whole")
    tensors = read_weights_of(folder, document)
    graph = graph_from_json(text, source=f"'{folder}'")
    sizes = {name: tuple(cast("list[int]", shape)) for name, shape in sorted(shapes.items())}
    try:
        space = WeightSpace(
            graph,
            sizes,
            tensors["space.mean"],
            tensors["space.basis"],
            tensors["space.scale"],
            tensors.get("space.reference"),
        )
        own = {name.removeprefix("own."): each for name, each in tensors.items() if name.startswith("own.")}
        return _made(cast(str, kind), space, own, config, size, folder), recipe
    except KeyError as error:
        raise CheckpointError(f"'{folder}' lacks tensor {error}") from error


def _made(
    kind: str,
    space: WeightSpace,
    own: dict[str, Tensor],
    config: GeneratorConfig,
    size: int,
    folder: Path,
) -> Generator:
    if kind == "mean":
        return MeanGenerator(space, size)
    if kind == "nearest":
        return NearestGenerator(
            space, own["rows"], own["features"], noise=float(own["noise"]), input_size=size
        )
    if kind == "ridge":
        return RidgeGenerator(space, own["weight"], input_size=size)
    weights = {
        name.removeprefix("denoiser."): each for name, each in own.items() if name.startswith("denoiser.")
    }
    arguments = {
        "num_classes": space.graph.shapes[space.graph.outputs[0]][0],
        "input_size": size,
        "width": config.width,
        "depth": config.depth,
    }
    with torch.device("meta"):
        denoiser = Denoiser(len(space.scale), **arguments)
    check_state(denoiser, weights, source=folder)
    denoiser = denoiser.to_empty(device="cpu")
    denoiser.load_state_dict(weights)
    return DiffusionGenerator(
        space, denoiser, base_FK=own["base"], timesteps=config.timesteps, input_size=size
    )


_Known = MeanGenerator | NearestGenerator | RidgeGenerator | DiffusionGenerator


def _space_of(generator: Generator) -> WeightSpace:
    return _known(generator).space


def _input_size(generator: Generator) -> int:
    return _known(generator).input_size


def _known(generator: Generator) -> _Known:
    if isinstance(generator, MeanGenerator | NearestGenerator | RidgeGenerator | DiffusionGenerator):
        return generator
    raise TypeError(f"Generators of type {type(generator).__name__} cannot be written")
