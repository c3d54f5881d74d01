"""From several trained networks to one: checked, aligned, merged, or refused with the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nasgraph.data import Split
from nasgraph.errors import UnknownNameError
from nasgraph.ir import ComputationalGraph
from nasgraph.merge.align import match_weights
from nasgraph.merge.soup import METHODS, SOUPS, Kitchen, Merged, Method
from nasgraph.merge.states import Ingredient, MergeError, check_ingredients
from nasgraph.modules import State

MAX_BARRIER = 0.05
"""Accuracy that half-way between two networks may be missing. Fine-tunes of one network lose next to nothing there; independent
trainings lose 0.2 and more."""
_MANY_ALIGNED = 0.01  # of a cosine: alignment that gains less has found nothing


@dataclass(frozen=True, slots=True)
class Distance:
    """How far an ingredient is from the best one.

    Attributes:
        name: Which.
        drop: Held-out accuracy missing half-way to the best, against the mean of both; negative: there is more.
        gained: How much of the cosine between both weights alignment gained.
    """

    name: str
    drop: float
    gained: float


def merge_entries(
    graph: ComputationalGraph,
    states: Mapping[str, State],
    *,
    split: Split,
    train: Split | None = None,
    method: str = "greedy",
    align: bool = True,
    max_barrier: float = MAX_BARRIER,
    force: bool = False,
    facts: Sequence[Ingredient] = (),
    batch_size: int = 256,
    seed: int = 0,
) -> Merged:
    """Merge trained networks of one architecture into one.

    Networks that have no common ancestor lie in different basins of the loss: half-way between them accuracy breaks
    down, and an average is senseless. So all are first held against the best one. A greedy soup leaves out those beyond the barrier;
    the other methods, which use all, are refused then.

    Args:
        graph: The architecture.
        states: Parameters and running statistics by the name of the network; two or more. Not changed.
        split: Held-out examples: validation data, never test data.
        train: Training examples, on which statistics of batch norms are measured anew; needed if there are any.
        method: "uniform", "greedy" or "learned"; see `SOUPS`.
        align: Whether units of the others are first reordered to match the best one. Fine-tunes of one network stay as they are.
        max_barrier: Accuracy that may be missing half-way to the best network.
        force: Merge networks beyond the barrier too.
        facts: What is known of the networks: checked to agree, one per state. Empty: nothing is checked.
        batch_size: Examples per forward pass.
        seed: Decides ties of the alignment and the order of examples of a learned soup.

    Returns:
        The result. With "greedy" it is never worse on `split` than the best network.

    Raises:
        MergeError: If the networks do not fit each other, have numbers that are not finite, or lie too far apart.
        UnknownNameError: If there is no such method.
    """
    if method not in METHODS:
        raise UnknownNameError("soup", method, METHODS)
    known: Method = next(each for each in SOUPS if each == method)
    check_ingredients(facts or [Ingredient(name, graph.fingerprint) for name in states])
    kitchen = Kitchen(graph, states, split, train, batch_size)
    best, prepared, distances = _prepared(kitchen, align=align, seed=seed)
    far = [distance for distance in distances if distance.drop > max_barrier]
    notes = _alignment_notes(distances)
    if far and not force:
        numbers = "; ".join(f"'{d.name}' loses {d.drop:.3f}" for d in far)
        if known != "greedy" or len(far) == len(states) - 1:
            raise MergeError(
                f"Half-way to '{best}', the best on the held-out data, accuracy breaks down: {numbers} (at most {max_barrier} is "
                "allowed). Networks that were not fine-tuned from a common ancestor cannot be averaged; leave them out, or merge "
                "by force"
            )
        prepared = {name: state for name, state in prepared.items() if name not in {d.name for d in far}}
        notes.append(f"Left out, since accuracy breaks down half-way to '{best}': {numbers}.")
    elif far:
        numbers = "; ".join(f"'{d.name}' loses {d.drop:.3f}" for d in far)
        notes.append(f"Merged by force, although accuracy breaks down half-way to '{best}': {numbers}.")
    merged = SOUPS[known](replace(kitchen, states=prepared))
    return _with_all(merged, states, kitchen, notes)


def _prepared(kitchen: Kitchen, *, align: bool, seed: int) -> tuple[str, dict[str, State], list[Distance]]:
    """The best network, all networks aligned to it, and how far each of the others is from it."""
    scores = {name: kitchen.accuracy(state) for name, state in kitchen.states.items()}
    best = max(sorted(scores), key=lambda name: scores[name])
    prepared: dict[str, State] = {}
    distances = []
    for name, state in kitchen.states.items():
        gained = 0.0
        if align and name != best:
            aligned = match_weights(kitchen.graph, state, to=kitchen.states[best], seed=seed)
            gained = aligned.similarity_after - aligned.similarity_before
            state = aligned.state
        prepared[name] = state
        if name != best:
            pair = replace(kitchen, states={best: kitchen.states[best], name: state})
            middle, _ = kitchen.accuracy(pair.average([best, name]))
            drop = (scores[best][0] + scores[name][0]) / 2 - middle
            distances.append(Distance(name, drop, gained))
    return best, prepared, distances


def _alignment_notes(distances: Sequence[Distance]) -> list[str]:
    moved = [f"'{d.name}' (cosine + {d.gained:.3f})" for d in distances if d.gained > _MANY_ALIGNED]
    return [f"Units were reordered to match: {', '.join(moved)}."] if moved else []


def _with_all(merged: Merged, states: Mapping[str, State], kitchen: Kitchen, notes: Sequence[str]) -> Merged:
    """The result with an entry for every network that was given, used or not."""
    weights, before = dict(merged.weights), dict(merged.held_out.before)
    before |= {name: kitchen.accuracy(state)[0] for name, state in states.items() if name not in before}
    held_out = replace(merged.held_out, before=tuple((name, before[name]) for name in states))
    shares = tuple((name, weights.get(name, 0.0)) for name in states)
    return replace(merged, weights=shares, held_out=held_out, notes=(*notes, *merged.notes))
