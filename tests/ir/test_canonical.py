"""Canonical form and fingerprint against networkx, and on graphs that are hard to put into order."""

from time import process_time

import networkx
import numpy as np
import pytest

from nasgraph.errors import InvalidGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder, check_graph
from nasgraph.testing import reordered
from tests.ir.making import branches, chain, changed, cycles, isomorphic, random_graph, regular


def same(one: ComputationalGraph, other: ComputationalGraph) -> bool:
    """Whether two graphs have one canonical form; asserts that the fingerprints say so too."""
    equal = one.canonical() == other.canonical()
    assert (one.fingerprint == other.fingerprint) == equal
    return equal


@pytest.mark.parametrize("seed", range(8))
def test_graphs_are_the_same_exactly_where_networkx_calls_them_isomorphic(seed: int) -> None:
    """3,200 pairs over all seeds: each graph beside itself in another order, a near miss and the near miss in
    another order, and small graphs beside unrelated ones."""
    rng = np.random.default_rng(seed)
    found = {True: 0, False: 0}
    for _ in range(100):
        graph = random_graph(rng)
        near = changed(graph, rng)
        pairs = [(graph, reordered(graph, rng)), (graph, near), (reordered(graph, rng), reordered(near, rng))]
        pairs.append((random_graph(rng, most=3), random_graph(rng, most=3)))
        for one, other in pairs:
            expected = isomorphic(one, other)
            assert same(one, other) == expected, (one, other)
            found[expected] += 1
    assert min(found.values()) > 100


@pytest.mark.parametrize("seed", range(20))
def test_the_canonical_form_is_a_valid_isomorphic_graph_and_its_own_form(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed))
    form = graph.canonical()
    check_graph(form)
    assert isomorphic(graph, form)
    assert form.canonical() == form
    assert form.fingerprint == graph.fingerprint


def test_fingerprints_are_sixteen_hexadecimal_digits() -> None:
    graph = chain(3)
    assert len(graph.fingerprint) == 16
    assert int(graph.fingerprint, 16) >= 0


def shared_or_not(*, shared: bool, op: str = "linear") -> ComputationalGraph:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    attrs = {"out_features": 4} if op == "linear" else {}
    first = graph(op, x, **attrs)
    second = first if shared else graph(op, x, **attrs)
    return graph.finish(graph("add", graph("relu", first), graph("tanh", second)))


def test_one_shared_node_is_not_two_equal_nodes() -> None:
    assert not same(shared_or_not(shared=True), shared_or_not(shared=False))
    assert not same(shared_or_not(shared=True, op="relu"), shared_or_not(shared=False, op="relu"))


def attend(order: tuple[int, int, int]) -> ComputationalGraph:
    graph = GraphBuilder()
    x = graph("input", shape=(3, 4))
    values = [graph(op, x) for op in ("relu", "tanh", "gelu")]
    return graph.finish(graph("attention", *(values[i] for i in order), num_heads=2))


def test_the_order_of_arguments_counts_where_it_has_a_meaning() -> None:
    assert not same(attend((0, 1, 2)), attend((0, 2, 1)))
    assert not same(attend((0, 1, 1)), attend((0, 0, 1)))


def test_the_order_of_summands_does_not_count_but_their_number_does() -> None:
    def summed(*summands: int) -> ComputationalGraph:
        graph = GraphBuilder()
        x = graph("input", shape=(4,))
        values = [graph("relu", x), graph("tanh", x)]
        return graph.finish(graph("add", *(values[i] for i in summands)))

    assert same(summed(0, 1), summed(1, 0))
    assert same(summed(0, 0, 1), summed(1, 0, 0))
    assert not same(summed(0, 0, 1), summed(0, 1, 1))
    assert not same(summed(0, 0, 1), summed(0, 1))


def test_the_places_of_inputs_and_outputs_count() -> None:
    def joined(*, swap_inputs: bool = False, swap_outputs: bool = False) -> ComputationalGraph:
        graph = GraphBuilder()
        values = [graph("input", shape=(4,)), graph("input", shape=(4,))]
        left, right = values[::-1] if swap_inputs else values
        first, second = graph("relu", left), graph("tanh", right)
        return graph.finish(*((second, first) if swap_outputs else (first, second)))

    assert not same(joined(), joined(swap_inputs=True))
    assert not same(joined(), joined(swap_outputs=True))
    assert not same(joined(swap_inputs=True), joined(swap_outputs=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([8], [4, 4]),
        ([8], [5, 3]),
        ([4, 4], [5, 3]),
        ([6, 6], [4, 4, 4]),
        ([12], [3, 3, 3, 3]),
        ([3, 5, 7, 9], [4, 4, 7, 9]),
    ],
)
def test_regular_rings_that_colour_refinement_cannot_tell_apart_differ(
    one: list[int], other: list[int]
) -> None:
    rng = np.random.default_rng(0)
    first, second = cycles(one), cycles(other)
    assert not same(first, second)
    assert not isomorphic(first, second)
    for graph in (first, second):
        assert all(same(graph, reordered(graph, rng)) for _ in range(5))


def test_strongly_regular_wirings_with_equal_parameters_differ() -> None:
    """The 4 x 4 rook's graph and the Shrikhande graph: 16 vertices of degree 6, the classical hard pair."""
    rook = networkx.line_graph(networkx.complete_bipartite_graph(4, 4))
    steps = [(0, 1), (1, 0), (1, 1)]
    shrikhande = networkx.Graph(
        ((a, b), ((a + da) % 4, (b + db) % 4)) for a in range(4) for b in range(4) for da, db in steps
    )
    rng = np.random.default_rng(0)
    assert sorted(dict(rook.degree).values()) == sorted(dict(shrikhande.degree).values()) == [6] * 16
    assert not same(regular(rook), regular(shrikhande))
    for wiring in (rook, shrikhande, networkx.petersen_graph()):
        assert same(regular(wiring), reordered(regular(wiring), rng))


@pytest.mark.parametrize("seed", range(10))
def test_random_regular_wirings_are_told_apart_as_networkx_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (networkx.random_regular_graph(3, 8, seed=seed + offset) for offset in (0, 100))
    assert same(regular(one), regular(other)) == networkx.is_isomorphic(one, other)
    assert same(regular(one), reordered(regular(one), rng))


@pytest.mark.parametrize(
    "graph",
    [
        branches(9, length=2),
        branches(200, length=3),
        branches(5_000, length=1),
        chain(5_000),
        cycles([40]),
        cycles([5] * 12),
        regular(networkx.complete_graph(12)),
        regular(networkx.hypercube_graph(5)),
    ],
    ids=["9 branches", "200 branches", "5000 branches", "chain", "ring", "rings", "complete", "hypercube"],
)
def test_symmetric_and_long_graphs_take_bounded_time(graph: ComputationalGraph) -> None:
    start = process_time()
    assert graph.fingerprint == reordered(graph, np.random.default_rng(0)).fingerprint
    assert process_time() - start < 15


def test_the_search_gives_up_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = regular(networkx.random_regular_graph(3, 50, seed=0))
    monkeypatch.setattr("nasgraph.ir.canonical.MAX_VISITS", 2_000)
    with pytest.raises(InvalidGraphError, match="too symmetric to be put into canonical order"):
        graph.canonical()


def test_networkx_gets_every_node_edge_and_place() -> None:
    graph = attend((0, 1, 1))
    result = graph.to_networkx()
    assert networkx.is_directed_acyclic_graph(result)
    assert [result.nodes[i]["op"] for i in range(4)] == ["input", "relu", "tanh", "attention"]
    assert result.nodes[3]["attrs"] == (("causal", False), ("num_heads", 2), ("scale", 0.0))
    assert [result.nodes[i]["output"] for i in range(4)] == [(), (), (), (0,)]
    edges = sorted((source, target, data["position"]) for source, target, data in result.edges(data=True))
    assert edges == [(0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 3, 1), (2, 3, 2)]
    summed = shared_or_not(shared=True).to_networkx()
    assert {data["position"] for *_, data in summed.in_edges(4, data=True)} == {-1}
