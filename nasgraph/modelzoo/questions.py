"""Questions about several entries: what is similar to this network, and how do these differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nasgraph.errors import ZooError
from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.card import ModelCard
from nasgraph.modelzoo.catalogue import Catalogue, Query, Row
from nasgraph.modelzoo.extras import Vector, shipped_encoder
from nasgraph.retrieve.index import EmbeddingIndex

if TYPE_CHECKING:
    from nasgraph.modelzoo.store import Zoo

Value = str | int | float | None

MAX_COMPARED = 8
MAX_EMBEDDED = 500
"""Entries without an embedding of the installed encoder that are embedded while a question waits."""


@dataclass(frozen=True, slots=True)
class Similar:
    """An entry beside the architecture that was asked for.

    Attributes:
        row: The entry.
        score: Cosine of the angle between both embeddings: 1 for the same architecture.
    """

    row: Row
    score: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Entries side by side.

    Attributes:
        names: The entries.
        facts: Name of a fact, and its value for each entry; None where it does not apply. Facts that differ come first within
            their group.
    """

    names: tuple[str, ...]
    facts: tuple[tuple[str, tuple[Value, ...]], ...]

    def differs(self, name: str) -> bool:
        """Whether a fact is not the same for all."""
        return len(set(dict(self.facts)[name])) > 1


def find_similar(
    zoo: "Zoo",
    catalogue: Catalogue,
    architecture: str | ComputationalGraph,
    *,
    most: int = 10,
    where: Query,
) -> tuple[Similar, ...]:
    """Entries whose architecture is most like another; see `nasgraph.retrieve`.

    Args:
        zoo: The zoo.
        catalogue: Its catalogue.
        architecture: An entry by its reference, which is left out of the answer, or any graph.
        most: Length of the answer.
        where: Conditions that the answers fulfil.

    Raises:
        UnknownNameError: If there is no such entry.
        ZooError: If no encoder of architectures is installed.
    """
    found = shipped_encoder()
    if found is None:
        raise ZooError("No encoder of architectures is installed: similar ones cannot be found")
    encoder, _ = found
    own = catalogue.row(architecture) if isinstance(architecture, str) else None
    graph = zoo.graph(own.reference) if own is not None else architecture
    assert isinstance(graph, ComputationalGraph)
    vector = encoder.embed([graph])[0]
    if where == Query():
        rows, index = catalogue.index()
        if len(rows) == sum(row.card is not None for row in catalogue.rows):  # as a rule
            return _nearest(rows, index, vector, own, most)
    admitted = [row for row in catalogue.query(where) if row.card is not None]
    kept, vectors = _embedded(zoo, admitted)
    return _nearest(kept, EmbeddingIndex.of(vectors, kind="exact"), vector, own, most)


def _nearest(
    rows: Sequence[Row], index: EmbeddingIndex, vector: Vector, own: Row | None, most: int
) -> tuple[Similar, ...]:
    """The nearest rows, but for the one that was asked for; those of equal score by name."""
    if not rows:
        return ()
    scores, places = index.search(vector[None], most + (own is not None))
    found = [Similar(rows[place], float(score)) for score, place in zip(scores[0], places[0], strict=True)]
    others = [one for one in found if own is None or one.row.name != own.name]
    return tuple(sorted(others, key=lambda one: (-round(one.score, 6), one.row.name))[:most])


def _embedded(zoo: "Zoo", rows: Sequence[Row]) -> tuple[list[Row], Vector]:
    """Rows with their embeddings; those that have none yet are embedded, up to a limit."""
    found = shipped_encoder()
    assert found is not None
    encoder, _ = found
    kept = [row for row in rows if row.embedding is not None]
    vectors = [row.embedding for row in kept if row.embedding is not None]
    missing = [row for row in rows if row.embedding is None][:MAX_EMBEDDED]
    if missing:
        graphs = [zoo.graph(row.reference) for row in missing]
        vectors += list(encoder.embed(graphs))
        kept += missing
    return kept, np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)


def compare_rows(rows: Sequence[Row]) -> Comparison:
    """Facts, measurements and choices of several entries, side by side.

    Raises:
        ZooError: If there are fewer than two or more than eight, or one is no model.
    """
    if not 2 <= len(rows) <= MAX_COMPARED:
        raise ZooError(f"Expected 2 to {MAX_COMPARED} entries to compare (got {len(rows)})")
    if strange := [row.reference for row in rows if row.card is None]:
        raise ZooError(f"'{strange[0]}' is no model with a readable card, and cannot be compared")
    cards = [row.card for row in rows if row.card is not None]
    groups: list[list[dict[str, Value]]] = [
        [_plain_facts(card) for card in cards],
        [_measured(card) for card in cards],
        [{f"choice {name}": value for name, value in card.architecture.choices} for card in cards],
        [{f"training {name}": value for name, value in card.training} for card in cards],
    ]
    facts: list[tuple[str, tuple[Value, ...]]] = []
    for group in groups:
        names = dict.fromkeys(name for own in group for name in own)
        found = [(name, tuple(own.get(name) for own in group)) for name in names]
        facts += sorted(found, key=lambda fact: len(set(fact[1])) == 1)
    return Comparison(tuple(row.reference for row in rows), tuple(facts))


def _plain_facts(card: ModelCard) -> dict[str, Value]:
    return {
        "space": card.architecture.space,
        "data": None if card.data is None else card.data.name,
        "parameters": card.num_parameters,
        "multiply-adds": card.multiply_adds,
        "origin": card.lineage.origin,
        "licence": card.licence,
        "seed": card.seed,
        "fingerprint": card.fingerprint,
        "created": card.created,
        "nasgraph": card.nasgraph_version,
        "torch": card.torch_version,
    }


def _measured(card: ModelCard) -> dict[str, Value]:
    found: dict[str, Value] = {f"{m.split} {m.metric}": m.value for m in card.measurements}
    for fact in card.latencies:
        name = f"latency ms ({fact.hardware}, {fact.threads} threads, batch {fact.batch_size})"
        found[name] = fact.median_s * 1e3
    return {**found, **{f"predicted {name}": value for name, value in card.scores}}
