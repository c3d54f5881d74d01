"""The zoo: a catalogue over MLflow's model registry and the entries that installed packages ship."""

import fnmatch
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nasgraph.errors import UnknownNameError, ZooError
from nasgraph.mlflow_client import resolve_tracking_uri
from nasgraph.modelzoo.builtin import BuiltinEntry, Kind, builtin_entries, ghn_facts
from nasgraph.modelzoo.card import ModelCard, card_from_json, card_to_json, read_card
from nasgraph.modelzoo.entry import (
    MAX_TEXT_BYTES,
    PICTURE,
    REQUIRED_FILES,
    ZooEntry,
    entry_contents,
    load_entry,
    write_folder,
)
from nasgraph.modelzoo.names import Reference, check_alias, check_name, parse_reference
from nasgraph.modelzoo.registry import Registry, Version
from nasgraph.modelzoo.weights import MAX_WEIGHTS_BYTES

_logger = logging.getLogger(__name__)

_CARD_TAG = "nasgraph.card"
_FILES = dict.fromkeys((*REQUIRED_FILES, PICTURE), MAX_TEXT_BYTES) | {
    "weights.safetensors": MAX_WEIGHTS_BYTES
}
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
        self._registry = Registry(self.uri)

    def add(
        self,
        entry_folder: Path,
        name: str,
        *,
        run_id: str | None = None,
        aliases: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> Reference:
        """Register an entry as the next version of a model. Several processes may add to one name at the same time.

        Args:
            entry_folder: From `write_entry`. It is copied into the store and may be deleted afterwards.
            name: Name of the model, new or known.
            run_id: MLflow run that the files belong to, such as that of the trial; None: a run of its own.
            aliases: Aliases to point at the new version.
            tags: Further tags of the version.

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
        version = self._registry.add(name, contents, run_id=run_id, tags={**(tags or {}), _CARD_TAG: card})
        for alias in aliases:
            self._registry.set_alias(version, alias)
        return Reference(name, version=version.number)

    def list_models(self, pattern: str = "*") -> tuple[Listing, ...]:
        """Entries whose name matches a pattern with `*` and `?`, sorted by name; registered and shipped ones.

        Raises:
            TrackingError: If the store does not answer.
        """
        listings = [_builtin_listing(entry) for entry in builtin_entries().values()]
        if self._registry.exists:
            listings += [_registered_listing(*found) for found in self._registry.newest()]
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
                and data in (None, card.data.name)
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

    def _version(self, wanted: Reference) -> Version:
        """The registered version that a reference names."""
        version = self._registry.find(wanted) if self._registry.exists else None
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
        with self._registry.files(version, _FILES) as folder:
            entry = load_entry(folder)
            if entry.card != _card_of(version):
                raise ZooError(
                    f"The card of '{wanted}' is not the one that was registered: its files were changed. Do not use it"
                )
            yield entry


def accuracy_of(card: ModelCard) -> float:
    """Measured accuracy on test data in [0, 1]; -1 if it was not measured."""
    found = card.measured("test")
    return -1.0 if found is None else found.value


_NOT_A_MODEL: Mapping[Kind, str] = {
    "ghn": "is a graph hypernetwork. Use it with 'nasgraph search --ghn {name}'",
    "curves": "extrapolates learning curves. Read it with nasgraph.predict.curves.load_curve_network",
    "performance": "holds measured architectures. Use it with 'nasgraph predict --known {name}'",
    "prior-fitted": "predicts from a few labels. Read it with nasgraph.predict.prior_fitted.load_prior_fitted",
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
    if _CARD_TAG not in version.tags:
        raise ZooError(f"The model registry's {version} is no zoo entry: nasgraph did not register it")
    return card_from_json(version.tags[_CARD_TAG], source=str(version))


def _registered_listing(version: Version, aliases: tuple[tuple[str, int], ...]) -> Listing:
    """A line of the catalogue. One damaged card must not hide the other models: it is left out with a warning."""
    card: ModelCard | None = None
    try:
        card = _card_of(version)
    except ZooError as error:
        _logger.warning("%s", error)
    return Listing(version.name, "model", version.number, aliases, card, "registry")
