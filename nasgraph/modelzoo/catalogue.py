"""What is in the zoo, in memory: thousands of entries that are filtered, sorted and compared within milliseconds.

Read once from the registry, then kept up to date with what changed. The web page and every question about more than one
entry go through it.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import numpy as np

from nasgraph.errors import ConfigError, UnknownNameError, ZooError
from nasgraph.modelzoo.builtin import BuiltinEntry, Kind, builtin_entries
from nasgraph.modelzoo.card import ModelCard, card_from_json, card_to_json, read_card
from nasgraph.modelzoo.extras import Vector, encoder_digest, read_embedding_tag
from nasgraph.modelzoo.names import Reference, parse_reference
from nasgraph.modelzoo.registry import CARD_TAG, EMBEDDING_TAG, Registry, Version

if TYPE_CHECKING:
    from nasgraph.modelzoo.store import Zoo
    from nasgraph.retrieve.index import EmbeddingIndex

_logger = logging.getLogger(__name__)

Sort = Literal[
    "name", "accuracy", "num_parameters", "multiply_adds", "latency_ms", "created", "data", "space", "kind"
]
SORTS: tuple[str, ...] = get_args(Sort)
FULL_EVERY_S = 30.0
_SHARE_OF_READING = 30
"""Reading everything takes at most one part in so many of the time."""
_MAX_SUGGESTED = 300
_OVERLAP_MS = 2000
"""Changes are asked for from a little before the last known one: two may bear the same time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One version of an entry, as the catalogue knows it. What is unknown is None.

    Attributes:
        reference: `name/3`, or `name` for a shipped entry, which has one version.
        name: Name of the entry.
        version: Number of the version; None for a shipped entry.
        kind: What it is, see `nasgraph.modelzoo.builtin`.
        aliases: Aliases of this version, sorted.
        card: Its card; None for what is no model, and for a damaged card.
        source: "registry", or the package that ships it.
        accuracy: Accuracy on test data, in [0, 1].
        num_parameters: Elements of all parameter tensors.
        multiply_adds: Multiply-accumulate operations for one example.
        latency_ms: Smallest measured median for a single example, in milliseconds.
        data: Name of the data set.
        space: Name of the search space.
        task: In the words of the Hugging Face hub.
        created: Day, `2026-01-31`; empty if unknown.
        fingerprint: Fingerprint of the graph; empty if unknown.
        embedding: Unit vector of its architecture by the installed encoder.
        run_id: MLflow run that its files belong to.
        text: Everything that words are looked for in, in lower case.
    """

    reference: str
    name: str
    version: int | None
    kind: Kind
    aliases: tuple[str, ...]
    card: ModelCard | None
    source: str
    accuracy: float | None = None
    num_parameters: int | None = None
    multiply_adds: int | None = None
    latency_ms: float | None = None
    data: str | None = None
    space: str | None = None
    task: str | None = None
    created: str = ""
    fingerprint: str = ""
    embedding: Vector | None = field(default=None, repr=False)
    run_id: str = ""
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which rows are wanted, and in which order. A limit leaves out the rows where the value is unknown.

    Attributes:
        text: Words that all have to stand somewhere in the card, the name or an alias; case does not matter.
        data: Name of the data set.
        space: Name of the search space.
        kind: Kind of the entry.
        task: Task.
        min_accuracy: Least test accuracy, in [0, 1].
        max_parameters: Most parameters.
        max_multiply_adds: Most multiply-adds per example.
        max_latency_ms: Most milliseconds for one example.
        sort: Column that decides the order; ties go by name.
        descending: Whether large values come first. Unknown values come last either way.

    Raises:
        ConfigError: If there is no such column, or a limit is not finite.
    """

    text: str = ""
    data: str | None = None
    space: str | None = None
    kind: str | None = None
    task: str | None = None
    min_accuracy: float | None = None
    max_parameters: float | None = None
    max_multiply_adds: float | None = None
    max_latency_ms: float | None = None
    sort: str = "accuracy"
    descending: bool = True

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise ConfigError(f"Expected 'sort' to be one of {', '.join(SORTS)} (got {self.sort!r:.80})")
        limits = (self.min_accuracy, self.max_parameters, self.max_multiply_adds, self.max_latency_ms)
        if not all(limit is None or np.isfinite(limit) for limit in limits):
            raise ConfigError("Expected finite limits")

    def admits(self, row: Row) -> bool:
        """Whether a row fulfils all conditions."""
        return (
            all(
                wanted is None or wanted == found
                for wanted, found in (
                    (self.data, row.data),
                    (self.space, row.space),
                    (self.kind, row.kind),
                    (self.task, row.task),
                )
            )
            and (
                self.min_accuracy is None or (row.accuracy is not None and row.accuracy >= self.min_accuracy)
            )
            and all(
                limit is None or (value is not None and value <= limit)
                for limit, value in (
                    (self.max_parameters, row.num_parameters),
                    (self.max_multiply_adds, row.multiply_adds),
                    (self.max_latency_ms, row.latency_ms),
                )
            )
            and all(word in row.text for word in self.text.lower().split())
        )


@dataclass(frozen=True)
class _Snapshot:
    """One state of the catalogue. Never changed, so that readers need no lock."""

    versions: Mapping[tuple[str, int], Version]
    aliases: Mapping[str, tuple[tuple[str, int], ...]]
    rows: tuple[Row, ...]
    newest: tuple[Row, ...]
    by_reference: Mapping[str, Row]


class Catalogue:
    """All entries of a zoo, in memory.

    Several threads may read while one refreshes: what was read stays as it was.

    Args:
        zoo: The zoo.
        full_every_s: Seconds after which `refresh` reads everything again, which is when aliases that others set, and entries
            that others deleted, are noticed; longer where reading everything takes long. New versions are noticed by every
            `refresh`.
    """

    def __init__(self, zoo: "Zoo", *, full_every_s: float = FULL_EVERY_S) -> None:
        self._registry: Registry = zoo.registry
        self._full_every_s = full_every_s
        self._read_at = -float("inf")
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], Row] = {}
        self._index: tuple[_Snapshot, tuple[Row, ...], EmbeddingIndex] | None = None
        self._builtin = tuple(_builtin_row(entry) for entry in builtin_entries().values())
        self._now = _snapshot({}, {}, self._builtin, self._known)
        self.refresh()

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every entry at its newest version, by name."""
        return self._now.newest

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """Every version of every entry, by name and number."""
        return self._now.rows

    def refresh(self, *, full: bool = False) -> bool:
        """Read what changed in the registry.

        Args:
            full: Whether to read everything.

        Returns:
            Whether anything is different.

        Raises:
            TrackingError: If the store does not answer.
        """
        with self._lock:
            if not self._registry.exists:
                return False
            now = self._now
            started = time.monotonic()
            if full or started - self._read_at > self._full_every_s:
                versions = {(v.name, v.number): v for v in self._registry.versions()}
                aliases = self._registry.aliases()
                self._read_at = time.monotonic()
                self._full_every_s = max(self._full_every_s, _SHARE_OF_READING * (self._read_at - started))
            else:
                latest = max((v.changed_ms for v in now.versions.values()), default=0)
                changed = {(v.name, v.number): v for v in self._registry.changed_since(latest - _OVERLAP_MS)}
                versions, aliases = {**now.versions, **changed}, dict(now.aliases)
            if versions == now.versions and aliases == now.aliases:
                return False
            self._known = {
                key: row for key, row in self._known.items() if versions.get(key) == now.versions.get(key)
            }
            self._now = _snapshot(versions, aliases, self._builtin, self._known)
            return True

    def query(self, query: Query = Query()) -> tuple[Row, ...]:
        """Newest versions that fulfil all conditions, in order."""
        return ordered(
            (row for row in self.rows if query.admits(row)), query.sort, descending=query.descending
        )

    def row(self, reference: str) -> Row:
        """One version of an entry.

        Args:
            reference: `name`, `name/3` or `name@alias`.

        Raises:
            ZooError: If it is none of these.
            UnknownNameError: If there is none.
        """
        wanted, now = parse_reference(reference), self._now
        if wanted.alias is not None:
            numbers = dict(now.aliases.get(wanted.name, ()))
            wanted = Reference(wanted.name, version=numbers.get(wanted.alias, 0))
        row = now.by_reference.get(str(wanted))
        if row is None:
            alike = {row.name for row in now.newest if row.name[:2].lower() == wanted.name[:2].lower()}
            some = alike or {
                row.name for row in now.newest[:_MAX_SUGGESTED]
            }  # comparing with thousands is slow
            raise UnknownNameError("model in the zoo", str(reference), sorted(some)[:_MAX_SUGGESTED])
        return row

    def index(self) -> "tuple[tuple[Row, ...], EmbeddingIndex]":
        """Newest models that have an embedding, and the index that finds the nearest of them. Made when it is first asked for,
        and again when the catalogue has changed."""
        now = self._now
        with self._lock:
            if self._index is None or self._index[0] is not now:
                from nasgraph.retrieve.index import EmbeddingIndex

                rows = tuple(row for row in now.newest if row.embedding is not None)
                vectors = [row.embedding for row in rows if row.embedding is not None]
                made = EmbeddingIndex.of(np.stack(vectors) if vectors else np.zeros((0, 1), np.float32))
                self._index = (now, rows, made)
            return self._index[1], self._index[2]


def ordered(rows: Iterable[Row], sort: str, *, descending: bool) -> tuple[Row, ...]:
    """Rows by one column, ties by name; those without a value last."""
    rows = sorted(rows, key=lambda row: (row.name, row.version or 0))
    known = [row for row in rows if getattr(row, sort) not in (None, "")]
    unknown = [row for row in rows if getattr(row, sort) in (None, "")]
    return (*sorted(known, key=lambda row: getattr(row, sort), reverse=descending), *unknown)


def _snapshot(
    versions: Mapping[tuple[str, int], Version],
    aliases: Mapping[str, tuple[tuple[str, int], ...]],
    builtin: tuple[Row, ...],
    known: dict[tuple[str, int], Row],
) -> _Snapshot:
    """The rows of all versions. Cards that were read before are not read again."""
    rows = list(builtin)
    for key, version in sorted(versions.items()):
        own = tuple(sorted(alias for alias, number in aliases.get(key[0], ()) if number == key[1]))
        if key not in known or known[key].aliases != own:
            known[key] = _row(version, own)
        rows.append(known[key])
    rows.sort(key=lambda row: (row.name, row.version or 0))
    newest = {row.name: row for row in rows}
    by_reference = {row.reference: row for row in rows} | newest
    return _Snapshot(versions, aliases, tuple(rows), tuple(newest.values()), by_reference)


def _row(version: Version, aliases: tuple[str, ...]) -> Row:
    """One damaged card must not hide the other models: its row has no card."""
    reference = str(Reference(version.name, version=version.number))
    card, text = None, version.tags.get(CARD_TAG, "")
    try:
        card = card_from_json(text, source=reference)
    except ZooError as error:
        _logger.warning("%s", error)
    encoder = encoder_digest() if EMBEDDING_TAG in version.tags else None
    vector = None if encoder is None else read_embedding_tag(version.tags[EMBEDDING_TAG], encoder=encoder)
    return Row(
        reference=reference,
        name=version.name,
        version=version.number,
        kind="model",
        aliases=aliases,
        source="registry",
        embedding=vector,
        run_id=version.run_id,
        text=" ".join((version.name, *aliases, text)).lower(),
        **_facts(card),
    )


def _builtin_row(entry: BuiltinEntry) -> Row:
    card = read_card(entry.path / "card.json") if entry.kind == "model" else None
    text = f"{entry.name} {entry.kind} {'' if card is None else card_to_json(card)}".lower()
    return Row(
        reference=entry.name, name=entry.name, version=None, kind=entry.kind, aliases=(), source=entry.package, text=text,
        **_facts(card),
    )  # fmt: skip


class _Facts(TypedDict, total=False):
    """Columns that follow from a card."""

    card: ModelCard | None
    accuracy: float | None
    num_parameters: int | None
    multiply_adds: int | None
    latency_ms: float | None
    data: str | None
    space: str | None
    task: str | None
    created: str
    fingerprint: str


def _facts(card: ModelCard | None) -> _Facts:
    if card is None:
        return {"card": None}
    test = card.measured("test")
    single = [fact.median_s * 1e3 for fact in card.latencies if fact.batch_size == 1]
    return {
        "card": card,
        "accuracy": None if test is None else test.value,
        "num_parameters": card.num_parameters,
        "multiply_adds": card.multiply_adds,
        "latency_ms": min(single, default=None),
        "data": None if card.data is None else card.data.name,
        "space": card.architecture.space,
        "task": card.task,
        "created": card.created,
        "fingerprint": card.fingerprint,
    }
