"""Other weights, the same function: random symmetric copies of a network, as data augmentation and as a check."""

from nasgraph.edits.edited import Edited
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import State, check_state
from nasgraph.seeding import derive_seed
from nasgraph.symmetry import permute_units, random_factors, random_orders, rescale_units, symmetry_table


def permute(graph: ComputationalGraph, state: State, *, seed: int) -> Edited:
    """Reorder the units of every group at random. The function stays as it is, up to rounding. The same seed, the same orders.

    Raises:
        StateError: If `state` does not belong to `graph`, or has numbers that are not finite.
    """
    check_state(graph, state)
    table = symmetry_table(graph)
    orders = random_orders(table, seed=derive_seed(seed, "permute"))
    return _same(
        graph, permute_units(table, state, orders), f"permute the units of {len(orders)} groups, seed {seed}"
    )


def rescale(
    graph: ComputationalGraph, state: State, *, seed: int, low: float = 0.1, high: float = 10.0
) -> Edited:
    """Rescale the units of every group that allows it by random factors or signs. The function stays as it is, up to rounding.

    Args:
        graph: A checked graph.
        state: Its state. Not changed.
        seed: The same seed, the same factors.
        low: Smallest positive factor.
        high: Largest.

    Raises:
        StateError: If `state` does not belong to `graph`, or has numbers that are not finite.
        ValueError: If not 0 < low <= high.
    """
    check_state(graph, state)
    table = symmetry_table(graph)
    factors = random_factors(table, seed=derive_seed(seed, "rescale"), low=low, high=high)
    return _same(
        graph,
        rescale_units(table, state, factors),
        f"rescale the units of {len(factors)} groups, seed {seed}",
    )


def _same(graph: ComputationalGraph, state: State, note: str) -> Edited:
    nodes = tuple(range(len(graph)))
    return Edited(graph=graph, state=dict(state), note=note, preserves_function=True, nodes=nodes)
