"""Entries that installed packages ship: found through the entry-point group `nasgraph.zoo`, without MLflow.

An entry point names a package. Each sub-folder of it is an entry: with `card.json` of kind "model" a trained network
(see `nasgraph.modelzoo.entry`), with `card.json` of kind "ghn" or the `config.json` of a saved graph hypernetwork a
hypernetwork, with the `config.json` of a saved curve network a network that extrapolates learning curves, with that of
`nasgraph.predict.KnownPerformance` measured architectures that a predictor learns from, with that of a saved prior-fitted network
one that predicts from a few labels, with that of a saved encoder one that finds similar architectures, with that of a metanetwork one that
reads the weights of networks, with that of a learned optimiser one that writes updates; a folder with `population.json` holds trained networks.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

from nasgraph.errors import NasGraphError, ZooError
from nasgraph.files import Json, read_json
from nasgraph.modelzoo.names import check_name
from nasgraph.plugins import load_plugin, plugin_names

GROUP = "nasgraph.zoo"
POPULATION = "population.json"
"""The file that makes a folder a population; see `nasgraph.meta.population`."""
Kind = Literal[
    "model",
    "ghn",
    "curves",
    "performance",
    "prior-fitted",
    "architecture-encoder",
    "metanetwork",
    "learned-optimiser",
    "population",
]
_KIND_BY_SCHEMA: dict[str, Kind] = {
    "nasgraph/ghn/": "ghn",
    "nasgraph/curves/": "curves",
    "nasgraph/performance/": "performance",
    "nasgraph/prior-fitted/": "prior-fitted",
    "nasgraph/architecture-encoder/": "architecture-encoder",
    "nasgraph/metanetwork/": "metanetwork",
    "nasgraph/learned-optimiser/": "learned-optimiser",
}


@dataclass(frozen=True, slots=True)
class BuiltinEntry:
    """An entry that is part of an installed package.

    Attributes:
        name: Name of its folder.
        kind: A trained network, a graph hypernetwork, a network for learning curves, measured architectures, a prior-fitted network,
            an encoder of architectures, a metanetwork, a learned optimiser, or a population of trained networks.
        path: Its folder.
        package: Name of the entry point.
    """

    name: str
    kind: Kind
    path: Path
    package: str


def builtin_entries() -> dict[str, BuiltinEntry]:
    """All shipped entries by name, sorted. Only their small JSON files are read.

    Raises:
        ZooError: If a package ships something that is no entry, or two ship the same name.
    """
    found: dict[str, BuiltinEntry] = {}
    for package in plugin_names(GROUP):
        plugin = load_plugin(GROUP, package, kind="zoo package")
        if not isinstance(plugin, ModuleType):
            raise ZooError(
                f"Expected the zoo plug-in '{package}' to be a package (got {type(plugin).__name__})"
            )
        for folder in sorted(Path(str(files(plugin))).iterdir()):
            entry = _entry_in(folder, package)
            if entry is None:
                continue
            if entry.name in found:
                raise ZooError(
                    f"Two packages ship the zoo entry '{entry.name}': {found[entry.name].package}, {package}"
                )
            found[entry.name] = entry
    return dict(sorted(found.items()))


def _entry_in(folder: Path, package: str) -> BuiltinEntry | None:
    if not folder.is_dir():
        return None
    if (folder / "card.json").is_file():
        kind = document(folder / "card.json").get("kind")
        if kind not in ("model", "ghn"):
            raise ZooError(
                f"Expected 'kind' in '{folder / 'card.json'}' to be 'model' or 'ghn' (got {kind!r:.80})"
            )
        return BuiltinEntry(check_name(folder.name), cast("Literal['model', 'ghn']", kind), folder, package)
    if (folder / POPULATION).is_file():
        return BuiltinEntry(check_name(folder.name), "population", folder, package)
    if (folder / "config.json").is_file():
        schema = document(folder / "config.json").get("schema")
        for start, known in _KIND_BY_SCHEMA.items():
            if isinstance(schema, str) and schema.startswith(start):
                return BuiltinEntry(check_name(folder.name), known, folder, package)
    return None


def document(path: Path) -> dict[str, Json]:
    """A JSON object from a file.

    Raises:
        ZooError: If it cannot be read, or is something else.
    """
    try:
        value = read_json(path)
    except NasGraphError as error:
        raise ZooError(str(error)) from error
    if not isinstance(value, dict):
        raise ZooError(f"Expected an object in '{path}' (got {type(value).__name__})")
    return value


def ghn_facts(entry: BuiltinEntry) -> dict[str, Json]:
    """What is known about a shipped hypernetwork or curve network: its card, or the recipe it was trained by."""
    if (entry.path / "card.json").is_file():
        return document(entry.path / "card.json")
    if entry.kind == "population":
        found = document(entry.path / POPULATION)
        return {
            "kind": entry.kind,
            "networks": found.get("count"),
            "data": found.get("data"),
            "name": found.get("name"),
        }
    config = document(entry.path / "config.json")
    return {
        "kind": entry.kind,
        "recipe": config.get("recipe"),
        "config": config.get("config"),
        "sha256": config.get("sha256"),
    }
