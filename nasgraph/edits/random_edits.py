"""Random edits that keep the function: for tests, as augmentation, and as pairs of networks that compute the same."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from nasgraph.edits.branches import can_split, replicate_add, split_concat
from nasgraph.edits.deeper import chained, deepen
from nasgraph.edits.edited import Edited, EditError
from nasgraph.edits.rewrite import reads_data
from nasgraph.edits.symmetric import permute, rescale
from nasgraph.edits.transformer import expand_heads, expand_keys, expand_layers, expand_values
from nasgraph.edits.wider import add_units, add_zero_units, widen
from nasgraph.ir import ComputationalGraph
from nasgraph.modules.state import State, check_state
from nasgraph.seeding import derive_seed, generator
from nasgraph.symmetry import symmetry_table

TRIES = 4
"""Places at which an edit of one kind is tried before another kind gets its turn."""
MAX_WIDTH = 512
"""No layer is put where it would read more than so many units: it would have their square in parameters."""
SPREAD = 0.1
MAX_FACTOR = 3.0

_Try = Callable[[ComputationalGraph, State, np.random.Generator, int], Edited]
_LAYERS = (
    *("linear", "conv1d", "conv2d", "conv3d", "batch_norm", "relu", "relu6", "gelu", "silu", "tanh", "add"),
    *(
        "leaky_relu",
        "elu",
        "hardswish",
        "max_pool2d",
        "avg_pool2d",
        "global_avg_pool2d",
        "concat",
        "layer_norm",
    ),
    *("rms_norm", "group_norm"),
)


def random_edit(
    graph: ComputationalGraph, state: State, *, seed: int, kinds: Sequence[str] | None = None
) -> Edited:
    """One random edit that keeps the function, of any kind that applies.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        seed: Decides the kind, the place and new weights.
        kinds: Some of `KINDS`; None: all.

    Raises:
        EditError: If a kind is unknown, or none of them applies.
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    chosen = list(KINDS) if kinds is None else list(kinds)
    for name in chosen:
        if name not in KINDS:
            close = ", ".join(get_close_matches(name, KINDS, n=3)) or ", ".join(KINDS)
            raise EditError(f"No kind of edit named '{name}'. Close: {close}")
    rng = generator(seed, "random edit")
    for place in rng.permutation(len(chosen)).tolist():
        for attempt in range(TRIES):
            try:
                return KINDS[chosen[place]](graph, state, rng, derive_seed(seed, "edit", place, attempt))
            except EditError:
                continue
    raise EditError(f"No edit of the kinds {', '.join(chosen)} applies to this network")


def random_edits(
    graph: ComputationalGraph,
    state: State,
    count: int,
    *,
    seed: int,
    kinds: Sequence[str] | None = None,
) -> Edited:
    """Several random edits, one after the other, as one. See `random_edit`.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        count: How many.
        seed: Decides all of them.
        kinds: Some of `KINDS`; None: all.
    """
    edited = Edited(graph, dict(state), "", True, tuple(range(len(graph))))
    for number in range(count):
        step = random_edit(edited.graph, edited.state, seed=derive_seed(seed, "step", number), kinds=kinds)
        edited = chained(edited, step)
    return edited


# ---- kinds


def _some(rng: np.random.Generator, places: Sequence[int], what: str) -> int:
    if not places:
        raise EditError(f"The network has no {what}")
    return places[int(rng.integers(len(places)))]


def _group(graph: ComputationalGraph, rng: np.random.Generator) -> tuple[str, int]:
    groups = symmetry_table(graph).groups
    chosen = groups[_some(rng, range(len(groups)), "group of units")]
    if chosen.size > MAX_WIDTH:
        raise EditError(f"The group '{chosen.name}' is wide already")
    return chosen.name, chosen.size


def _widen(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    name, size = _group(graph, rng)
    try:
        return widen(graph, state, name, size + int(rng.integers(1, 1 + max(1, size // 2))), seed=seed)
    except EditError:  # a norm over the units wants each copied equally often
        return widen(graph, state, name, 2 * size, seed=seed)


def _add_units(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    name, size = _group(graph, rng)
    return add_units(graph, state, name, size + int(rng.integers(1, 1 + max(1, size // 2))), seed=seed)


def _add_zero_units(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    name, size = _group(graph, rng)
    return add_zero_units(graph, state, name, size + int(rng.integers(1, 1 + max(1, size // 2))), seed=seed)


def _inner(graph: ComputationalGraph) -> list[int]:
    depends, outputs = reads_data(graph), set(graph.outputs)
    return [
        index
        for index, node in enumerate(graph.nodes)
        if node.op in _LAYERS
        and depends[index]
        and index not in outputs
        and graph.dtypes[index] == "float"
        and max(graph.shapes[index][0], graph.shapes[index][-1]) <= MAX_WIDTH
    ]


def _deepen(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    return deepen(graph, state, _some(rng, _inner(graph), "place for a layer"), seed=seed)


def _replicate(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    places = [i for i in _inner(graph) if graph.nodes[i].op not in ("add", "concat")]
    node, branches = _some(rng, places, "layer"), int(rng.integers(2, 4))
    return replicate_add(graph, state, node, branches=branches, spread=SPREAD, seed=seed)


def _split(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    places = [i for i in _inner(graph) if can_split(graph, i)]
    return split_concat(graph, state, _some(rng, places, "layer that can be cut"), seed=seed)


def _attention(graph: ComputationalGraph, rng: np.random.Generator) -> int:
    return _some(rng, [i for i, node in enumerate(graph.nodes) if node.op == "attention"], "attention")


def _heads(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    node = _attention(graph, rng)
    heads = dict(graph.nodes[node].attrs)["num_heads"]
    assert isinstance(heads, int)
    return expand_heads(graph, state, node, heads + 1, seed=seed)


def _values(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    node = _attention(graph, rng)
    size = _head_size(graph, node, 2)
    return expand_values(graph, state, node, size + int(rng.integers(1, 1 + max(1, size // 2))), seed=seed)


def _keys(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    node = _attention(graph, rng)
    size = _head_size(graph, node, 0)
    return expand_keys(graph, state, node, size + int(rng.integers(1, 1 + max(1, size // 2))), seed=seed)


def _head_size(graph: ComputationalGraph, node: int, place: int) -> int:
    heads = dict(graph.nodes[node].attrs)["num_heads"]
    assert isinstance(heads, int)
    return graph.input_shapes(node)[place][-1] // heads


def _layers(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:
    _attention(graph, rng)
    return expand_layers(graph, state, seed=seed)


def _permute(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:  # noqa: ARG001
    if not symmetry_table(graph).groups:
        raise EditError("The network has no group of units")
    return permute(graph, state, seed=seed)


def _rescale(graph: ComputationalGraph, state: State, rng: np.random.Generator, seed: int) -> Edited:  # noqa: ARG001
    if all(group.scaling == "none" for group in symmetry_table(graph).groups):
        raise EditError("The network has no group of units that can be rescaled")
    return rescale(graph, state, seed=seed, low=1 / MAX_FACTOR, high=MAX_FACTOR)


KINDS: Mapping[str, _Try] = {
    "widen": _widen,
    "add_units": _add_units,
    "add_zero_units": _add_zero_units,
    "deepen": _deepen,
    "replicate_add": _replicate,
    "split_concat": _split,
    "expand_heads": _heads,
    "expand_values": _values,
    "expand_keys": _keys,
    "expand_layers": _layers,
    "permute": _permute,
    "rescale": _rescale,
}
"""Kinds of edits by name."""
