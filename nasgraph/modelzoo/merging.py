"""Merging entries of one architecture into a new entry, with its lineage. See `nasgraph.merge`."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nasgraph.data import DataSet
from nasgraph.draw import draw_svg
from nasgraph.errors import ZooError
from nasgraph.files import canonical_json
from nasgraph.merge import Ingredient, Merged, merge_entries
from nasgraph.modelzoo.card import DataFacts, Lineage, draft_card
from nasgraph.modelzoo.entry import ZooEntry, write_entry
from nasgraph.modelzoo.facts import measure_facts
from nasgraph.modelzoo.verify import check_data
from nasgraph.spaces import Candidate


@dataclass(frozen=True, slots=True)
class MergedEntry:
    """A new entry, and how it came about.

    Attributes:
        entry: The entry.
        merged: Shares of the ingredients, and accuracies on the held-out data that the merge was chosen by.
    """

    entry: ZooEntry
    merged: Merged


def merge_into_entry(
    folder: Path,
    name: str,
    entries: Sequence[tuple[str, ZooEntry]],
    dataset: DataSet,
    *,
    method: str = "greedy",
    align: bool = True,
    force: bool = False,
    seed: int = 0,
) -> MergedEntry:
    """Merge entries of one architecture, measure the result, and write it as an entry.

    The merge is chosen by the validation split; batch norms are measured anew on the training split; the test split serves to
    measure the result only.

    Args:
        folder: Where; must not exist.
        name: Name of the new entry.
        entries: References and entries, two or more.
        dataset: The data set that they were trained on, prepared as their cards say.
        method: "uniform", "greedy" or "learned"; see `nasgraph.merge`.
        align: Whether units are reordered to match first.
        force: Merge networks that lie in different basins.
        seed: Decides what is random.

    Raises:
        ZooError: If one was trained on other data, or its card names none.
        MergeError: If they do not fit each other; see `merge_entries`.
    """
    facts = [_data_of(reference, entry) for reference, entry in entries]
    ingredients = [
        Ingredient(reference, entry.graph.fingerprint, canonical_json(asdict(data)), data.class_names)
        for (reference, entry), data in zip(entries, facts, strict=True)
    ]
    first = entries[0][1]
    check_data(facts[0], dataset)
    merged = merge_entries(
        first.graph,
        {reference: entry.state for reference, entry in entries},
        split=dataset.search.validation,
        train=dataset.search.train,
        method=method,
        align=align,
        force=force,
        facts=ingredients,
        seed=seed,
    )
    splits = {"validation": dataset.search.validation, "test": dataset.test}
    measured = measure_facts(first.graph, merged.state, splits)
    card = draft_card(
        name,
        Candidate(first.card.architecture, first.graph),
        facts[0],
        created=time.strftime("%Y-%m-%d"),
        licence=_licence([entry for _, entry in entries]),
        seed=seed,
        task=first.card.task,
    )
    shares = "; ".join(f"{reference}: {share:.3f}" for reference, share in merged.weights)
    card = replace(
        card,
        measurements=measured.measurements,
        latencies=measured.latencies,
        training=(("merge", merged.method), ("aligned", align), ("shares", shares)),
        lineage=Lineage(origin="merge", ingredients=merged.ingredients, note=" ".join(merged.notes)),
    )
    picture = draw_svg(first.graph, title=name).encode()
    return MergedEntry(write_entry(folder, first.graph, merged.state, card, picture=picture), merged)


def _data_of(reference: str, entry: ZooEntry) -> DataFacts:
    if entry.card.data is None:
        raise ZooError(f"The card of '{reference}' names no data, so a merge cannot be held against any")
    return entry.card.data


def _licence(entries: Sequence[ZooEntry]) -> str:
    """The licence of all ingredients.

    Raises:
        ZooError: If they differ.
    """
    licences = sorted({entry.card.licence for entry in entries})
    if len(licences) > 1:
        raise ZooError(f"Expected models of one licence to merge (got {', '.join(licences)})")
    return licences[0]
