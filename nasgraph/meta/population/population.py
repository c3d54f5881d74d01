"""Reading a population of trained networks: the table at once, weights when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.files import Json, read_json, sha256_of
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.population.recipe import Recipe, recipe_from_json
from nasgraph.meta.population.settings import NetworkSettings, PopulationError
from nasgraph.meta.population.stack import Stack, initial_stack, unstack
from nasgraph.plugins import load_plugin, plugin_names
from nasgraph.spaces import Architecture

SCHEMA, SHARD_SCHEMA = "nasgraph/population/1", "nasgraph/population-shard/1"
MANIFEST, RECIPE = "population.json", "recipe.json"
_ZOO = "nasgraph.zoo"
_SAMPLE = "population-digits"

Column = npt.NDArray[Any]


def shard_path(folder: Path, number: int, ending: str = ".json") -> Path:
    """Where a shard of a population lies."""
    return folder / "shards" / f"{number:05d}{ending}"


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One network of a population.

    Attributes:
        index: Its place in the population.
        family: Name of its family.
        graph: Its architecture.
        architecture: The choices that led to the graph, where a search space made it.
        state: Its weights and running statistics after the training.
        initial: Those before it.
        snapshots: Those on the way.
        snapshot_steps: After how many steps each was taken.
        settings: How it was trained.
        split: "train", "val", "test", or the label of its family, such as "unseen-width".
        parent: Index of the network that it was made from, or -1.
        edit: What was done to the parent, such as "fine-tune".
        measured: Losses and accuracies by name, such as "test_accuracy". NaN where a loss is not finite.
        losses: Training loss of each step.
        probe_logits: Outputs for the probes of the population, `[probes, classes]`.
        diverged_at: The step at which it stopped being finite, or -1.
    """

    index: int
    family: str
    graph: ComputationalGraph
    architecture: Architecture | None
    state: Stack
    initial: Stack
    snapshots: tuple[Stack, ...]
    snapshot_steps: tuple[int, ...]
    settings: NetworkSettings
    split: str
    parent: int
    edit: str
    measured: Mapping[str, float]
    losses: Tensor
    probe_logits: Tensor
    diverged_at: int


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Networks of one architecture, stacked.

    Attributes:
        graph: The architecture.
        indices: Their places in the population.
        state: Their states, `[networks, ...]` each.
    """

    graph: ComputationalGraph
    indices: npt.NDArray[np.int64]
    state: Stack


@dataclass(frozen=True, slots=True)
class _ShardFile:
    path: Path
    first: int
    count: int
    bytes: int
    sha256: str
    family: str


class Population:
    """A population on disk. Weights are read when asked for, row by row; each file's checksum is compared before its first use.

    Make one with `Population.open`.

    Attributes:
        folder: Where it lies.
        recipe: What it was trained by.
        table: One column per fact, each with one row per network. Texts are str, missing numbers NaN.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, table: Mapping[str, Column], shards: Sequence[_ShardFile]
    ) -> None:
        self.folder, self.recipe, self.table = folder, recipe, table
        self._shards = tuple(shards)
        self._checked: set[int] = set()
        self._families = {family.name: family for family in recipe.families}
        self._firsts = np.array([shard.first for shard in shards])

    @staticmethod
    def open(folder: Path | str) -> "Population":
        """Open a population.

        Raises:
            PopulationError: If there is none, it is not finished, or it is damaged or foreign. The message says what to do.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        recipe = recipe_from_json(manifest.get("recipe"), source=f"'{folder / MANIFEST}'")
        try:
            shards = [
                _ShardFile(
                    shard_path(folder, each["number"], ".safetensors"),
                    each["first"],
                    each["count"],
                    each["bytes"],
                    each["sha256"],
                    each["family"],
                )
                for each in cast("list[dict[str, Any]]", manifest["shards"])
            ]
            table = {
                name: _column(values)
                for name, values in cast("dict[str, list[Any]]", manifest["table"]).items()
            }
        except (KeyError, TypeError) as error:
            raise PopulationError(f"'{folder / MANIFEST}' lacks or has another {error}") from error
        if any(len(column) != recipe.count for column in table.values()):
            raise PopulationError(f"The table in '{folder / MANIFEST}' does not have {recipe.count} rows")
        for shard in shards:
            found = shard.path.stat().st_size if shard.path.is_file() else 0
            if found != shard.bytes:
                raise PopulationError(
                    f"'{shard.path}' is missing or cut off ({found:,} of {shard.bytes:,} bytes): "
                    "train the recipe into the folder again, which repairs what is damaged"
                )
        return Population(folder, recipe, table, shards)

    def __len__(self) -> int:
        return self.recipe.count

    def graph(self, index: int) -> ComputationalGraph:
        """The architecture of a network."""
        return self._families[self._shard(index).family].graph

    def select(
        self, *, split: str | Sequence[str] | None = None, family: str | Sequence[str] | None = None
    ) -> npt.NDArray[np.int64]:
        """Indices of the networks of some splits and families, ascending. None: all."""
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in (("split", split), ("family", family)):
            if wanted is None:
                continue
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            unknown = sorted(set(values) - set(self.table[name].tolist()))
            if unknown:
                known = ", ".join(sorted(set(self.table[name].tolist())))
                raise PopulationError(f"No network has the {name} '{unknown[0]}'. Known: {known}")
            keep &= np.isin(self.table[name], values)
        return np.flatnonzero(keep)

    def settings(self, index: int) -> NetworkSettings:
        """How a network was trained."""
        values: dict[str, Any] = {
            name: self.table[name][index].item() for name in NetworkSettings.__dataclass_fields__
        }
        text = str(values["classes"])
        values["classes"] = tuple(int(part) for part in text.split(",")) if text else ()
        return NetworkSettings(**values)

    def member(self, index: int) -> Member:
        """Everything about one network.

        Raises:
            IndexError: If there is no such network.
            PopulationError: If its file is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1} (got {index})")
        shard = self._shard(index)
        family, row = self._families[shard.family], index - shard.first
        with self._opened(shard) as file:
            own = {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118  no iteration protocol
        names = {name.partition("/")[0] for name in own}
        snapshots = tuple(
            _part(own, f"snapshot{place}") for place in range(sum(n[8:].isdecimal() for n in names))
        )
        settings = self.settings(index)
        initial = _part(own, "initial") or unstack(initial_stack(family.graph, [settings]), 0)
        return Member(
            index=index,
            family=family.name,
            graph=family.graph,
            architecture=family.architecture,
            state=_part(own, "final"),
            initial=initial,
            snapshots=snapshots,
            snapshot_steps=tuple(own["snapshot_steps"].tolist()) if snapshots else (),
            settings=settings,
            split=str(self.table["split"][index]),
            parent=int(self.table["parent"][index]),
            edit=str(self.table["edit"][index]),
            measured={
                name: float(column[index])
                for name, column in self.table.items()
                if name.endswith(("_loss", "_accuracy"))
            },
            losses=own["losses"][: settings.steps],
            probe_logits=own["probe_logits"],
            diverged_at=int(self.table["diverged_at"][index]),
        )

    def stack(self, indices: Sequence[int] | npt.NDArray[np.integer], kind: str = "final") -> Stack:
        """States of networks of one architecture, stacked in the order of `indices`.

        Args:
            indices: Which.
            kind: "final", "initial", or "snapshot0", "snapshot1", ...

        Raises:
            PopulationError: If they have different architectures, or there are none of that kind.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if not len(wanted):
            raise PopulationError("Expected at least one index")
        if len(set(self.table["fingerprint"][wanted].tolist())) > 1:
            raise PopulationError(
                "Networks of different architectures cannot be stacked: use by_architecture()"
            )
        result: Stack = {}
        for number in np.unique(self._number(wanted)):
            shard = self._shards[number]
            places = np.flatnonzero(self._number(wanted) == number)
            rows = torch.from_numpy(wanted[places] - shard.first)
            for name, tensor in self._rows(shard, rows, kind).items():
                if name not in result:
                    result[name] = torch.empty(len(wanted), *tensor.shape[1:], dtype=tensor.dtype)
                result[name][torch.from_numpy(places)] = tensor
        return result

    def _rows(self, shard: _ShardFile, rows: Tensor, kind: str) -> Stack:
        with self._opened(shard) as file:
            names = [name for name in file.keys() if name.startswith(f"{kind}/")]  # noqa: SIM118
            found = {name.partition("/")[2]: file.get_tensor(name)[rows] for name in names}
        if found:
            return found
        if kind != "initial":
            raise PopulationError(f"The population '{self.recipe.name}' has no states of kind '{kind}'")
        settings = [self.settings(shard.first + row) for row in rows.tolist()]
        return initial_stack(self._families[shard.family].graph, settings)

    def by_architecture(
        self,
        *,
        indices: Sequence[int] | npt.NDArray[np.integer] | None = None,
        kind: str = "final",
    ) -> Iterator[Group]:
        """The networks, grouped by architecture in the order of the population, each group stacked.

        Args:
            indices: Which networks; None: all.
            kind: Which states, see `stack`.
        """
        wanted = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        prints = self.table["fingerprint"][wanted]
        for fingerprint in dict.fromkeys(prints.tolist()):
            chosen = wanted[prints == fingerprint]
            yield Group(self.graph(int(chosen[0])), chosen, self.stack(chosen, kind))

    def probe_logits(self, indices: Sequence[int] | npt.NDArray[np.integer] | None = None) -> Tensor:
        """Outputs for the probes of the population, `[networks, probes, classes]`."""
        return self._numbers("probe_logits", indices)

    def _numbers(self, name: str, indices: Sequence[int] | npt.NDArray[np.integer] | None) -> Tensor:
        wanted = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        parts: dict[int, Tensor] = {}
        numbers = self._number(wanted)
        for number in np.unique(numbers):
            with self._opened(self._shards[number]) as file:
                parts[int(number)] = file.get_tensor(name)
        rows = [
            parts[int(number)][int(index) - self._shards[number].first]
            for number, index in zip(numbers, wanted, strict=True)
        ]
        return torch.stack(rows)

    def _number(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._firsts, indices, side="right") - 1

    def _shard(self, index: int) -> _ShardFile:
        return self._shards[int(self._number(np.array([index]))[0])]

    def _opened(self, shard: _ShardFile) -> Any:
        if shard.first not in self._checked:
            if sha256_of(shard.path) != shard.sha256:
                raise PopulationError(
                    f"The checksum of '{shard.path}' differs from the recorded one: "
                    "train the recipe into the folder again, which repairs what is damaged"
                )
            self._checked.add(shard.first)
        try:
            return safe_open(shard.path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise PopulationError(f"Cannot read '{shard.path}': {error}") from error


def _part(tensors: Mapping[str, Tensor], kind: str) -> Stack:
    return {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{kind}/")}


def _column(values: Sequence[Any]) -> Column:
    if any(value is None for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.array(values)


def _read_manifest(folder: Path) -> dict[str, Json]:
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / RECIPE).is_file():
            done = len(list((folder / "shards").glob("*.json")))
            raise PopulationError(
                f"The population in '{folder}' is not finished ({done} shards are): "
                "train its recipe into the folder again, which goes on where it stopped"
            )
        raise PopulationError(f"No population in '{folder}': there is no '{MANIFEST}'")
    try:
        manifest = read_json(path)
    except NasGraphError as error:
        raise PopulationError(
            f"{error}. Delete '{path}' and train the recipe into the folder again"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise PopulationError(f"Expected '{path}' to have schema '{SCHEMA}'")
    return manifest


def load_sample_population() -> Population:
    """The small population that ships: 200 perceptrons trained on digits, 20 of them fine-tuned from others.

    Raises:
        PopulationError: If no installed package ships it.
    """
    for name in plugin_names(_ZOO):
        package = load_plugin(_ZOO, name, kind="zoo package")
        if isinstance(package, ModuleType):
            folder = Path(str(files(package))) / _SAMPLE
            if folder.is_dir():
                return Population.open(folder)
    raise PopulationError(f"No installed package ships '{_SAMPLE}': install nasgraph with its zoo")
