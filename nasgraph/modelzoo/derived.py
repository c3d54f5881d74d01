"""Entries that were made by changing a network: pruned, grown, merged or rewritten, with what they came from."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from nasgraph.data import DataSet, Preparation
from nasgraph.draw import draw_svg
from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.card import DataFacts, Lineage, ModelCard, data_facts, draft_card
from nasgraph.modelzoo.entry import ZooEntry, write_entry
from nasgraph.modelzoo.facts import measure_facts
from nasgraph.modelzoo.importing import UNKNOWN_LICENCE
from nasgraph.modelzoo.networks import Network
from nasgraph.modelzoo.verify import check_data
from nasgraph.spaces import Architecture, Candidate, Choice


def write_derived(
    folder: Path,
    name: str,
    parents: Sequence[Network],
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    *,
    notes: Sequence[str],
    training: Mapping[str, Choice],
    data: tuple[DataSet, Preparation] | None,
    seed: int = 0,
) -> ZooEntry:
    """Write a changed network as an entry. What its card says of it was measured here; the rest is that of its parent.

    Args:
        folder: Where; must not exist.
        name: Name of the entry.
        parents: What it was made from: one network that was edited, or several that were merged.
        graph: The new architecture.
        state: Its parameters, running statistics and constants.
        notes: What was done, in order.
        training: Settings of what was done, for the record.
        data: Data that it classifies, and how that was prepared; None: nothing is measured.
        seed: Seed of what was random.

    Raises:
        ZooError: If the data is not that of the parents, or something cannot be written.
    """
    known = [parent.entry.card for parent in parents if parent.entry is not None]
    first = known[0] if known else None
    facts = _facts(known, data)
    unchanged = first is not None and first.fingerprint == graph.fingerprint
    architecture = first.architecture if first is not None and unchanged else Architecture("edited", ())
    card = draft_card(
        name,
        Candidate(architecture, graph),
        facts,
        created=time.strftime("%Y-%m-%d"),
        licence=_licence(known),
        seed=seed,
        task="" if first is None else first.task,
    )
    if data is not None:
        splits = {"validation": data[0].search.validation, "test": data[0].test}
        found = measure_facts(graph, state, splits)
        card = replace(card, measurements=found.measurements, latencies=found.latencies)
    card = replace(card, training=tuple(training.items()), lineage=_lineage(parents, notes))
    picture = draw_svg(graph, title=name).encode()
    return write_entry(folder, graph, state, card, picture=picture)


def _facts(known: Sequence[ModelCard], data: tuple[DataSet, Preparation] | None) -> DataFacts | None:
    """The data of the new entry: what it is measured on, else what its parents saw."""
    if data is None:
        return known[0].data if known else None
    for card in known:
        if card.data is not None and card.data.sha256 == data[0].sha256:
            check_data(card.data, data[0])
    return data_facts(*data)


def _lineage(parents: Sequence[Network], notes: Sequence[str]) -> Lineage:
    said = "; ".join([*(parent.source for parent in parents if parent.source), *notes])
    if len(parents) > 1:
        return Lineage(origin="merge", ingredients=tuple(p.reference or p.name for p in parents), note=said)
    (parent,) = parents
    return Lineage(
        origin="edit", parent=parent.reference, parent_fingerprint=parent.graph.fingerprint, note=said
    )


def _licence(known: Sequence[ModelCard]) -> str:
    licences = sorted({card.licence for card in known})
    return licences[0] if len(licences) == 1 else UNKNOWN_LICENCE if not licences else " AND ".join(licences)
