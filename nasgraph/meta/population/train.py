"""Training a population: shard by shard, so that it can be killed at any point and goes on where it stopped.

folder/recipe.json                  what is trained, and the checksum of the data
folder/shards/00000.safetensors     weights, losses and logits of some networks of one family
folder/shards/00000.json            their rows of the table and the checksum of the tensors: written last, it makes them valid
folder/population.json              all rows: written at the end, it makes the population valid
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nasgraph.data import DataSet, Split, add_noise, load_dataset, random_shift
from nasgraph.errors import NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.meta.population.population import (
    MANIFEST,
    RECIPE,
    SCHEMA,
    SHARD_SCHEMA,
    Population,
    shard_path,
)
from nasgraph.meta.population.recipe import Family, Recipe, recipe_digest, recipe_from_json
from nasgraph.meta.population.settings import NetworkSettings, PopulationError
from nasgraph.meta.population.stack import (
    Stack,
    TrainedStack,
    check_trainable,
    initial_stack,
    measure_stack,
    stack_outputs,
    train_stack,
)

_LOGGER = logging.getLogger(__name__)
SHIFT_PIXELS, SHIFT_NOISE, _SHIFT_SEED = 1, 0.5, 20260
Progress = Callable[[int, int], None]
"""Called after each shard with the networks that are done and the networks of the recipe."""


@dataclass(frozen=True, slots=True)
class _Shard:
    number: int
    family: Family
    start: int  # place of its first network in the family
    stop: int
    first: int  # index of its first network in the population


def shifted_split(data: Split) -> Split:
    """The same examples, harder: images moved by up to a pixel, and noise of half a standard deviation. Always the same ones."""
    rng = torch.Generator().manual_seed(_SHIFT_SEED)
    inputs = data.inputs
    if inputs.ndim == 4:
        inputs = random_shift(inputs, SHIFT_PIXELS, rng=rng)
    return Split(add_noise(inputs, SHIFT_NOISE, rng=rng), data.targets)


def train_population(
    recipe: Recipe,
    folder: Path,
    *,
    progress: Progress | None = None,
    data: DataSet | None = None,
    data_dir: Path | None = None,
) -> Population:
    """Train the networks of a recipe, or go on with it.

    Shards that are complete stay; the others are trained, anew where a file is damaged or cut off. The result has the same bits
    however often it was interrupted. Nothing is written twice once the population is complete.

    Args:
        recipe: What to train.
        folder: Where; created if missing. One recipe per folder.
        progress: Told after each shard.
        data: The data set; None: the one that the recipe names.
        data_dir: Where named data sets lie, see `load_dataset`.

    Returns:
        The population, opened.

    Raises:
        PopulationError: If the folder holds another recipe or data, or a graph cannot be trained.
        DataError: If the data set cannot be loaded.
        NasGraphError: If the disk is full, or the folder cannot be written.
    """
    if data is None:
        data = load_dataset(
            recipe.data, data_dir=data_dir, image_size=recipe.image_size, num_train=recipe.num_train
        )
    for family in recipe.families:
        check_trainable(family.graph, num_classes=data.num_classes)
    _claim(folder, recipe, data)
    trainer = _Trainer(recipe, folder, data)
    shards = _shards(recipe)
    documents = []
    for shard in shards:
        document = _finished(folder, shard)
        if document is None:
            document = trainer.train(shard)
        documents.append(document)
        if progress is not None:
            progress(shard.first + shard.stop - shard.start, recipe.count)
    if not _is_complete(folder, documents):
        _write_manifest(folder, recipe, data, documents)
    return Population.open(folder)


def _claim(folder: Path, recipe: Recipe, data: DataSet) -> None:
    """Write the recipe, or check that the folder holds the same."""
    path = folder / RECIPE
    document = {"recipe": recipe.to_json(), "digest": recipe_digest(recipe), "data_sha256": data.sha256}
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise PopulationError(
                f"'{folder}' holds files but no '{RECIPE}': name an empty folder, or a population to go on with"
            )
        write_json(path, document)
        return
    known = read_json(path)
    if not isinstance(known, dict) or known.get("digest") != document["digest"]:
        name = (
            recipe_from_json(known.get("recipe"), source=f"'{path}'").name if isinstance(known, dict) else "?"
        )
        raise PopulationError(
            f"'{folder}' holds another recipe (named '{name}'): go on with that one, or name another folder"
        )
    if known.get("data_sha256") != data.sha256:
        raise PopulationError(f"The data set '{data.name}' has changed since '{folder}' was begun")


def _shards(recipe: Recipe) -> list[_Shard]:
    shards: list[_Shard] = []
    first = 0
    for family in recipe.families:
        for start in range(0, family.count, recipe.shard_size):
            stop = min(family.count, start + recipe.shard_size)
            shards.append(_Shard(len(shards), family, start, stop, first))
            first += stop - start
    return shards


def _finished(folder: Path, shard: _Shard) -> dict[str, Json] | None:
    """The description of a shard that is whole; None if it is not there, or damaged."""
    tensors, description = shard_path(folder, shard.number, ".safetensors"), shard_path(folder, shard.number)
    if not description.exists():
        return None
    try:
        document = read_json(description)
    except NasGraphError as error:
        _LOGGER.warning("Training shard %d again: %s", shard.number, error)
        return None
    if not isinstance(document, dict) or document.get("schema") != SHARD_SCHEMA:
        _LOGGER.warning("Training shard %d again: '%s' is foreign", shard.number, description)
        return None
    if not tensors.exists() or sha256_of(tensors) != document.get("sha256"):
        _LOGGER.warning("Training shard %d again: '%s' is missing or damaged", shard.number, tensors)
        return None
    return document


class _Trainer:
    """What all shards share: the data, and the shifted test data."""

    def __init__(self, recipe: Recipe, folder: Path, data: DataSet) -> None:
        self.recipe, self.folder, self.data = recipe, folder, data
        self.splits: dict[str, Split] = {
            "train": data.search.train,
            "val": data.search.validation,
            "test": data.test,
            "shifted": shifted_split(data.test),
        }
        self.probes = data.search.validation.inputs[: recipe.num_probes]

    def train(self, shard: _Shard) -> dict[str, Json]:
        """Train one shard and write it. Returns its description."""
        recipe, family = self.recipe, shard.family
        settings = recipe.settings(family)[shard.start : shard.stop]
        initial = self._initial(shard, settings)
        trained = train_stack(
            family.graph,
            initial,
            self.splits["train"],
            settings,
            batch_size=recipe.batch_size,
            snapshots=recipe.snapshots,
        )
        columns, tensors = self._measured(shard, settings, trained)
        if recipe.store_initial or family.parent:
            tensors |= {f"initial/{name}": tensor for name, tensor in initial.items()}
        path = shard_path(self.folder, shard.number, ".safetensors")
        save_tensors(path, tensors)
        document: dict[str, Json] = {
            "schema": SHARD_SCHEMA,
            "number": shard.number,
            "family": family.name,
            "first": shard.first,
            "count": shard.stop - shard.start,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "columns": cast(Json, columns),
        }
        write_json(shard_path(self.folder, shard.number), document)
        return document

    def _initial(self, shard: _Shard, settings: Sequence[NetworkSettings]) -> Stack:
        family = shard.family
        if not family.parent:
            return initial_stack(family.graph, settings)
        states: Stack = {}
        parts = [each for each in _shards(self.recipe) if each.family.name == family.parent]
        loaded = [load_tensors(shard_path(self.folder, each.number, ".safetensors")) for each in parts]
        places = self.recipe.parents(family)[shard.start : shard.stop]
        for name in loaded[0]:
            if name.startswith("final/"):
                states[name.removeprefix("final/")] = torch.cat([part[name] for part in loaded])[places]
        return states

    def _measured(
        self, shard: _Shard, settings: Sequence[NetworkSettings], trained: TrainedStack
    ) -> tuple[dict[str, list[Any]], dict[str, Tensor]]:
        """Columns of the table, and tensors of the shard."""
        graph = shard.family.graph
        columns = _described(self.recipe, shard, settings)
        classes = [each.classes for each in settings]
        for part, split in self.splits.items():
            loss, accuracy = measure_stack(graph, trained.state, split, classes=classes)
            columns[f"{part}_loss"] = _finite(loss)
            columns[f"{part}_accuracy"] = _finite(accuracy)
        columns["diverged_at"] = trained.diverged.tolist()
        tensors = {f"final/{name}": tensor for name, tensor in trained.state.items()}
        tensors["probe_logits"] = stack_outputs(graph, trained.state, self.probes)
        tensors["losses"] = trained.losses
        if trained.snapshots:
            tensors["snapshot_steps"] = trained.snapshot_steps
        for place, snapshot in enumerate(trained.snapshots):
            tensors |= {f"snapshot{place}/{name}": tensor for name, tensor in snapshot.items()}
            for part in ("train", "test"):
                loss, accuracy = measure_stack(graph, snapshot, self.splits[part], classes=classes)
                columns[f"snapshot{place}_{part}_loss"] = _finite(loss)
                columns[f"snapshot{place}_{part}_accuracy"] = _finite(accuracy)
        return columns, tensors


def _described(recipe: Recipe, shard: _Shard, settings: Sequence[NetworkSettings]) -> dict[str, list[Any]]:
    """What is known of the networks of a shard before they are trained."""
    family, count = shard.family, shard.stop - shard.start
    weights = [spec for spec in family.graph.parameters.values() if spec.role == "weight"]
    parents = recipe.parents(family)[shard.start : shard.stop]
    offset = 0
    for other in recipe.families:
        if other.name == family.parent:
            break
        offset += other.count
    columns: dict[str, list[Any]] = {
        "index": list(range(shard.first, shard.first + count)),
        "family": [family.name] * count,
        "fingerprint": [family.graph.fingerprint] * count,
        "split": recipe.splits(family)[shard.start : shard.stop],
        "parent": [offset + place if place >= 0 else -1 for place in parents],
        "edit": ["fine-tune" if family.parent else ""] * count,
        "num_parameters": [sum(math.prod(s.shape) for s in family.graph.parameters.values())] * count,
        "depth": [len(weights)] * count,
        "width": [max((spec.shape[0] for spec in weights[:-1]), default=0)] * count,
    }
    for name in NetworkSettings.__dataclass_fields__:
        columns[name] = [getattr(each, name) for each in settings]
    columns["classes"] = [",".join(map(str, each.classes)) for each in settings]
    return columns


def _finite(values_B: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values_B.tolist()]


def _is_complete(folder: Path, documents: Sequence[Mapping[str, Json]]) -> bool:
    if not (folder / MANIFEST).exists():
        return False
    try:
        manifest = read_json(folder / MANIFEST)
    except NasGraphError:
        return False
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        return False
    known = [each.get("sha256") for each in cast("list[dict[str, Json]]", manifest["shards"])]
    return known == [document["sha256"] for document in documents]


def _write_manifest(
    folder: Path, recipe: Recipe, data: DataSet, documents: Sequence[Mapping[str, Json]]
) -> None:
    names: dict[str, None] = {}
    for document in documents:
        names.update(dict.fromkeys(cast(dict[str, Json], document["columns"])))
    table: dict[str, list[Any]] = {name: [] for name in names}
    for document in documents:
        columns = cast("dict[str, list[Any]]", document["columns"])
        for name in names:
            table[name].extend(columns.get(name, [None] * cast(int, document["count"])))
    shards = [
        {name: document[name] for name in ("number", "family", "first", "count", "bytes", "sha256")}
        for document in documents
    ]
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "name": recipe.name,
        "count": recipe.count,
        "recipe": recipe.to_json(),
        "data": {"name": data.name, "sha256": data.sha256, "num_classes": data.num_classes},
        "torch": torch.__version__,
        "shards": shards,
        "table": table,
    }
    write_json(folder / MANIFEST, manifest)
