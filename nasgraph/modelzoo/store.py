"""The zoo: a catalogue over MLflow's model registry and the entries that installed packages ship."""

import fnmatch
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nasgraph.errors import NasGraphError, UnknownNameError, ZooError
from nasgraph.ir import ComputationalGraph, graph_from_json
from nasgraph.mlflow_client import resolve_tracking_uri
from nasgraph.modelzoo.builtin import BuiltinEntry, Kind, builtin_entries, ghn_facts
from nasgraph.modelzoo.card import ModelCard, card_from_json, card_to_json, read_card
from nasgraph.modelzoo.entry import (
    EMBEDDING,
    MAX_TEXT_BYTES,
    OPTIONAL_FILES,
    PACKED_WEIGHTS,
    REQUIRED_FILES,
    WEIGHTS,
    ZooEntry,
    entry_contents,
    load_entry,
    stored_weights,
    write_folder,
)
from nasgraph.modelzoo.extras import embedding_tag, extras_of
from nasgraph.modelzoo.names import Reference, check_alias, check_name, parse_reference
from nasgraph.modelzoo.registry import CARD_TAG, EMBEDDING_TAG, Registry, Version
from nasgraph.modelzoo.weights import MAX_WEIGHTS_BYTES

if TYPE_CHECKING:
    from torch import nn

    from nasgraph.data import DataSet
    from nasgraph.modelzoo.catalogue import Catalogue
    from nasgraph.modelzoo.questions import Comparison, Similar
    from nasgraph.modules.trace import ExampleInputs
    from nasgraph.retrieve.behaviour import QueryData, RankedModel

_logger = logging.getLogger(__name__)

_TEXTS = dict.fromkeys((*REQUIRED_FILES, *OPTIONAL_FILES), MAX_TEXT_BYTES)
_FILES = _TEXTS | dict.fromkeys((WEIGHTS, PACKED_WEIGHTS), MAX_WEIGHTS_BYTES)
_HINT = "List them with 'nasgraph zoo list'."


@dataclass(frozen=True, slots=True)
class Listing:
    """One line of the catalogue: an entry at its newest version.

    Attributes:
        name: Name of the entry.
        kind: What it is, see `nasgraph.modelzoo.builtin`.
        version: Number of the version; None for a shipped entry, which has one only.
        aliases: Aliases of any version, with their versions, sorted.
        card: The card of a model; None for the other kinds, and (after a warning) for a damaged card.
        source: "registry", or the package that ships it.
    """

    name: str
    kind: Kind
    version: int | None
    aliases: tuple[tuple[str, int], ...]
    card: ModelCard | None
    source: str


class Zoo:
    """Registered and shipped models by name.

    A name is looked up among the shipped entries first; registering a shipped name is refused, so no name is
    ambiguous. What is loaded is verified: the card must be the one that was registered, the weights those of the card.

    Args:
        tracking_uri: MLflow's address; None: MLFLOW_TRACKING_URI, else the store in `nasgraph-runs`. The store is
            opened when it is first needed: shipped entries need none.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.uri = resolve_tracking_uri(tracking_uri)
        self.registry = Registry(self.uri)

    def add(
        self,
        entry_folder: Path,
        name: str,
        *,
        run_id: str | None = None,
        aliases: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        packed: bool = False,
    ) -> Reference:
        """Register an entry as the next version of a model. Several processes may add to one name at the same time.

        A thumbnail and the embedding that similar architectures are found by are added where the entry has none.

        Args:
            entry_folder: From `write_entry`. It is copied into the store and may be deleted afterwards.
            name: Name of the model, new or known.
            run_id: MLflow run that the files belong to, such as that of the trial; None: a run of its own.
            aliases: Aliases to point at the new version.
            tags: Further tags of the version.
            packed: Whether weights that are not packed yet are compressed without loss in the store.

        Returns:
            Name and number of the new version.

        Raises:
            ZooError: If the entry is damaged, or the name or an alias is not allowed or taken by a shipped entry.
            TrackingError: If the store does not answer.
        """
        check_name(name)
        for alias in aliases:
            check_alias(alias)
        if name in builtin_entries():
            raise ZooError(f"The name '{name}' belongs to a shipped entry. Choose another")
        entry = load_entry(entry_folder)
        contents, card = entry_contents(entry.path), card_to_json(entry.card)
        contents = {**extras_of(entry.graph), **contents}
        if packed and WEIGHTS in contents:
            contents |= stored_weights(contents.pop(WEIGHTS), packed=True)
        own = {CARD_TAG: card}
        if EMBEDDING in contents:
            own[EMBEDDING_TAG] = embedding_tag(contents[EMBEDDING])
        version = self.registry.add(name, contents, run_id=run_id, tags={**(tags or {}), **own})
        for alias in aliases:
            self.registry.set_alias(version, alias)
        return Reference(name, version=version.number)

    def list_models(self, pattern: str = "*") -> tuple[Listing, ...]:
        """Entries whose name matches a pattern with `*` and `?`, sorted by name; registered and shipped ones.

        Raises:
            TrackingError: If the store does not answer.
        """
        listings = [_builtin_listing(entry) for entry in builtin_entries().values()]
        if self.registry.exists:
            listings += [_registered_listing(*found) for found in self.registry.newest()]
        matching = [listing for listing in listings if fnmatch.fnmatchcase(listing.name, pattern)]
        return tuple(sorted(matching, key=lambda listing: listing.name))

    def search(
        self,
        text: str = "",
        *,
        data: str | None = None,
        space: str | None = None,
        max_parameters: int | None = None,
        max_multiply_adds: int | None = None,
    ) -> tuple[Listing, ...]:
        """Models that fit all conditions, the most accurate on test data first.

        Args:
            text: Words that all have to stand somewhere in the card; case does not matter.
            data: Name of the data set.
            space: Name of the search space.
            max_parameters: Most parameters.
            max_multiply_adds: Most multiply-adds per example.
        """

        found: list[tuple[float, str, Listing]] = []
        for listing in self.list_models():
            card = listing.card
            if (
                card is not None
                and all(word in card_to_json(card).lower() for word in text.lower().split())
                and (data is None or (card.data is not None and card.data.name == data))
                and space in (None, card.architecture.space)
                and (max_parameters is None or card.num_parameters <= max_parameters)
                and (max_multiply_adds is None or card.multiply_adds <= max_multiply_adds)
            ):
                found.append((-accuracy_of(card), listing.name, listing))
        return tuple(listing for _, _, listing in sorted(found, key=lambda item: item[:2]))

    def card(self, reference: str) -> ModelCard:
        """The card of a model, without reading its weights.

        Args:
            reference: `name`, `name/3` or `name@alias`.

        Raises:
            UnknownNameError: If there is no such model, version or alias.
            ZooError: If it is a hypernetwork, or the card is damaged.
        """
        wanted = parse_reference(reference)
        builtin = _builtin(wanted)
        if builtin is not None:
            return read_card(builtin.path / "card.json")
        return _card_of(self._version(wanted))

    def facts(self, reference: str) -> dict[str, object]:
        """What is known about a shipped hypernetwork or curve network; see `ghn_facts`. Raises `UnknownNameError` for
        anything else."""
        entry = builtin_entries().get(parse_reference(reference).name)
        if entry is None or entry.kind == "model":
            raise UnknownNameError("hypernetwork in the zoo", reference, self._names(), hint=_HINT)
        return dict(ghn_facts(entry))

    def kind(self, reference: str) -> Kind:
        """What a name belongs to. Raises `UnknownNameError` for nothing that is known."""
        wanted = parse_reference(reference)
        entry = builtin_entries().get(wanted.name)
        if entry is not None:
            return entry.kind
        self._version(wanted)
        return "model"

    def versions(self, name: str) -> tuple[int, ...]:
        """Numbers of all versions of a registered model, rising; empty for a name that is not registered."""
        found = self.registry.versions(name) if self.registry.exists else []
        return tuple(sorted(version.number for version in found))

    def set_alias(self, reference: str, alias: str) -> None:
        """Let an alias, such as `champion`, point at a version, and at no other.

        Raises:
            UnknownNameError: If there is no such model.
            ZooError: If the alias is not allowed, or the entry is a shipped one.
        """
        self.registry.set_alias(self._own(reference), check_alias(alias))

    def remove_alias(self, name: str, alias: str) -> None:
        """Let an alias point at nothing any more. See `set_alias` for errors."""
        self.registry.remove_alias(self._own(f"{name}@{alias}").name, check_alias(alias))

    def graph(self, reference: str) -> ComputationalGraph:
        """The architecture of a model, without its weights.

        Raises:
            UnknownNameError: If there is no such model, version or alias.
            ZooError: If its file has vanished, is damaged, or is not that of the card.
        """
        content = self.artifact(reference, "graph.json")
        if content is None:
            raise ZooError(f"The zoo entry '{reference}' lacks 'graph.json'")
        try:
            graph = graph_from_json(content, source=f"the graph of '{reference}'")
        except NasGraphError as error:
            raise ZooError(str(error)) from error
        if graph.fingerprint != self.card(reference).fingerprint:
            raise ZooError(f"The graph of '{reference}' is not the one that was registered. Do not use it")
        return graph

    def artifact(self, reference: str, name: str) -> bytes | None:
        """One small file of a model, unchecked, as its picture; None if it has none.

        Raises:
            UnknownNameError: If there is no such model, version or alias.
            ZooError: If that is not a small file that entries have, or the files have vanished.
        """
        if name not in _TEXTS:
            raise ZooError(f"Expected one of {', '.join(_TEXTS)} (got {name!r:.80})")
        wanted = parse_reference(reference)
        builtin = _builtin(wanted)
        if builtin is not None:
            return _small_file(builtin.path / name)
        with self.registry.files(self._version(wanted), {name: _TEXTS[name]}) as folder:
            return _small_file(folder / name)

    @cached_property
    def catalogue(self) -> "Catalogue":
        """All entries, in memory. Read when it is first asked for; `catalogue.refresh()` reads what changed since."""
        from nasgraph.modelzoo.catalogue import Catalogue

        return Catalogue(self)

    def similar(
        self,
        architecture: "str | ComputationalGraph | nn.Module",
        *,
        example_inputs: "ExampleInputs | None" = None,
        most: int = 10,
        text: str = "",
        data: str | None = None,
        space: str | None = None,
        max_parameters: int | None = None,
    ) -> "tuple[Similar, ...]":
        """Models whose architecture is most like another, the most similar first.

        Args:
            architecture: An entry by its reference, any graph, or any torch module.
            example_inputs: Of a module; see `nasgraph.modules.trace`.
            most: Length of the answer.
            text: Only models whose card has all these words.
            data: Only models of this data set.
            space: Only models of this search space.
            max_parameters: Only models with so many parameters at most.

        Raises:
            UnknownNameError: If there is no such entry.
            ZooError: If no encoder of architectures is installed, or a module comes without example inputs.
            TraceError: If the module cannot be traced.
        """
        from nasgraph.modelzoo.catalogue import Query
        from nasgraph.modelzoo.questions import find_similar

        if not isinstance(architecture, str | ComputationalGraph):
            from nasgraph.modules import trace

            if example_inputs is None:
                raise ZooError("Expected 'example_inputs' with a module, to trace it")
            architecture = trace(architecture, example_inputs).graph
        where = Query(text=text, data=data, space=space, max_parameters=max_parameters)
        self.catalogue.refresh()
        return find_similar(self, self.catalogue, architecture, most=most, where=where)

    def for_dataset(
        self,
        data: "DataSet | QueryData",
        *,
        most: int = 10,
        per_class: int = 20,
        method: str = "linear-probe",
        max_parameters: int | None = None,
        max_latency_ms: float | None = None,
    ) -> "tuple[RankedModel, ...]":
        """Models by how well they promise to fit a data set after fine-tuning, the best first.

        Args:
            data: The data set, of which training examples are used, or labelled examples.
            most: Length of the answer.
            per_class: Examples per class of a data set.
            method: "linear-probe", "logme" or "leep"; see `nasgraph.retrieve.behaviour`.
            max_parameters: Only models with so many parameters at most.
            max_latency_ms: Only models that were measured to answer within so many milliseconds.

        Raises:
            UnknownNameError: If there is no such method.
            DataError: If the data makes no query: one class only, or nodes of a data graph.
        """
        from nasgraph.modelzoo.catalogue import Query
        from nasgraph.modelzoo.fitting import rank_for_data
        from nasgraph.retrieve.behaviour import QueryData, query_from_dataset

        query = data if isinstance(data, QueryData) else query_from_dataset(data, per_class=per_class)
        self.catalogue.refresh()
        rows = self.catalogue.query(Query(max_parameters=max_parameters, max_latency_ms=max_latency_ms))
        return rank_for_data(self, rows, query, method=method)[:most]

    def compare(self, *references: str) -> "Comparison":
        """Facts, measurements and choices of two to eight models, side by side. Raises `UnknownNameError` and `ZooError`."""
        from nasgraph.modelzoo.questions import compare_rows

        self.catalogue.refresh()
        return compare_rows([self.catalogue.row(reference) for reference in references])

    def histories(self, reference: str) -> dict[str, tuple[tuple[int, float], ...]]:
        """Learning curves of a model, from the MLflow run that it was made in: steps and values by metric."""
        run_id = self._version(parse_reference(reference)).run_id
        return self.registry.histories(run_id) if run_id else {}

    def load(self, reference: str) -> ZooEntry:
        """Read and verify a model.

        Args:
            reference: `name`, `name/3` or `name@alias`.

        Raises:
            UnknownNameError: If there is no such model, version or alias.
            ZooError: If its files have vanished, are damaged, or are not those that were registered.
        """
        with self._checked(parse_reference(reference)) as entry:
            return entry

    @contextmanager
    def opened(self, reference: str) -> Iterator[ZooEntry]:
        """A read and verified model, whose folder exists within the `with` block. See `load` for errors."""
        with self._checked(parse_reference(reference)) as entry:
            yield entry

    def export(self, reference: str, folder: Path, *, force: bool = False) -> ZooEntry:
        """Copy a verified model into a folder of its own, which `load_entry` and MLflow read.

        Args:
            reference: `name`, `name/3` or `name@alias`.
            folder: Where. Must not exist, unless `force`.
            force: Whether an entry that is there may be replaced.

        Returns:
            The entry, read back from `folder`.

        Raises:
            ZooError: If `folder` exists, or the entry is damaged; see `load`.
        """
        with self._checked(parse_reference(reference)) as entry:
            write_folder(folder, entry_contents(entry.path), force=force)
        return load_entry(folder)

    def _names(self) -> list[str]:
        return [listing.name for listing in self.list_models()]

    def _own(self, reference: str) -> Version:
        """A registered version, whose aliases may be changed."""
        wanted = parse_reference(reference)
        if wanted.name in builtin_entries():
            raise ZooError(f"'{wanted.name}' is a shipped entry, which has no aliases")
        return self._version(wanted)

    def _version(self, wanted: Reference) -> Version:
        """The registered version that a reference names."""
        version = self.registry.find(wanted) if self.registry.exists else None
        if version is None:
            names = self._names()
            if wanted.name in names:
                what = f"version {wanted.version}" if wanted.alias is None else f"alias '{wanted.alias}'"
                raise ZooError(
                    f"The zoo's '{wanted.name}' has no {what}. See 'nasgraph zoo show {wanted.name}'"
                )
            raise UnknownNameError("model in the zoo", wanted.name, names, hint=_HINT)
        return version

    @contextmanager
    def _checked(self, wanted: Reference) -> Iterator[ZooEntry]:
        """The verified entry. Its folder exists within the `with` block only."""
        builtin = _builtin(wanted)
        if builtin is not None:
            yield load_entry(builtin.path)
            return
        version = self._version(wanted)
        with self.registry.files(version, _FILES) as folder:
            entry = load_entry(folder)
            if entry.card != _card_of(version):
                raise ZooError(
                    f"The card of '{wanted}' is not the one that was registered: its files were changed. Do not use it"
                )
            yield entry


def _small_file(path: Path) -> bytes | None:
    """The content of a plain file of a size that fits in memory; None if there is none."""
    if path.is_symlink():
        raise ZooError(f"'{path}' is a link. An entry has plain files only")
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ZooError(f"Expected at most {MAX_TEXT_BYTES:,} bytes in '{path}'")
        return path.read_bytes()
    except OSError as error:
        raise ZooError(f"Cannot read '{path}': {error.strerror or error}") from error


def accuracy_of(card: ModelCard) -> float:
    """Measured accuracy on test data in [0, 1]; -1 if it was not measured."""
    found = card.measured("test")
    return -1.0 if found is None else found.value


_NOT_A_MODEL: Mapping[Kind, str] = {
    "ghn": "is a graph hypernetwork. Use it with 'nasgraph search --ghn {name}'",
    "curves": "extrapolates learning curves. Read it with nasgraph.predict.curves.load_curve_network",
    "performance": "holds measured architectures. Use it with 'nasgraph predict --known {name}'",
    "prior-fitted": "predicts from a few labels. Read it with nasgraph.predict.prior_fitted.load_prior_fitted",
    "architecture-encoder": "embeds architectures. Use it with 'nasgraph zoo similar'",
    "metanetwork": "reads the weights of networks. Use it with 'nasgraph meta predict'",
    "learned-optimiser": "writes updates of weights. Read it with nasgraph.meta.optimiser",
    "population": "holds many trained networks. Read it with nasgraph.meta.population",
}
"""What to do with an entry that cannot be loaded as a model."""


def _builtin(wanted: Reference) -> BuiltinEntry | None:
    """The shipped model of that name; None if no shipped entry has it."""
    entry = builtin_entries().get(wanted.name)
    if entry is None:
        return None
    if entry.kind != "model":
        raise ZooError(f"'{wanted.name}' {_NOT_A_MODEL[entry.kind].format(name=wanted.name)}")
    if wanted.alias is not None or wanted.version not in (None, 1):
        raise ZooError(f"'{wanted.name}' is a shipped entry and has one version only")
    return entry


def _builtin_listing(entry: BuiltinEntry) -> Listing:
    card = read_card(entry.path / "card.json") if entry.kind == "model" else None
    return Listing(entry.name, entry.kind, None, (), card, entry.package)


def _card_of(version: Version) -> ModelCard:
    if CARD_TAG not in version.tags:
        raise ZooError(f"The model registry's {version} is no zoo entry: nasgraph did not register it")
    return card_from_json(version.tags[CARD_TAG], source=str(version))


def _registered_listing(version: Version, aliases: tuple[tuple[str, int], ...]) -> Listing:
    """A line of the catalogue. One damaged card must not hide the other models: it is left out with a warning."""
    card: ModelCard | None = None
    try:
        card = _card_of(version)
    except ZooError as error:
        _logger.warning("%s", error)
    return Listing(version.name, "model", version.number, aliases, card, "registry")
