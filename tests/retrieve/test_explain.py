"""Why two graphs match: parts are what they say, small ones are as large as can be, equal graphs are covered."""

import time
from itertools import combinations

import networkx
import numpy as np
import pytest
from networkx.algorithms.isomorphism import DiGraphMatcher

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.retrieve.explain import EXACT_NODES, Match, block_name, explain_match
from nasgraph.retrieve.words import words_of
from tests.ir.making import random_graph
from tests.retrieve.making import reordered, residual_network, sampled_graphs, staged_network


def labelled(graph: ComputationalGraph) -> networkx.DiGraph:
    """Kinds on nodes, and on every edge the sorted places of arguments."""
    result = networkx.DiGraph()
    for index, word in enumerate(words_of(graph)):
        result.add_node(index, word=word)
    for source, target, position in graph.to_networkx().edges(data="position"):
        places = [*result.edges.get((source, target), {}).get("places", ()), position]
        result.add_edge(source, target, places=tuple(sorted(places)))
    return result


def isomorphic(one: networkx.DiGraph, other: networkx.DiGraph) -> bool:
    matcher = DiGraphMatcher(
        one, other, lambda a, b: a["word"] == b["word"], lambda a, b: a["places"] == b["places"]
    )
    return bool(matcher.is_isomorphic())


def assert_common(a: ComputationalGraph, b: ComputationalGraph, match: Match) -> None:
    """Every part is a connected induced subgraph of both, by its own pairing; no node occurs twice."""
    one, other = labelled(a), labelled(b)
    for part in match.parts:
        left, right = one.subgraph(x for x, _ in part), other.subgraph(y for _, y in part)
        assert len(left) == len(right) == len(part)
        assert networkx.is_weakly_connected(left)
        image = networkx.relabel_nodes(left, dict(part))
        assert dict(image.nodes(data="word")) == dict(right.nodes(data="word"))
        assert {(s, t): p for s, t, p in image.edges(data="places")} == {
            (s, t): p for s, t, p in right.edges(data="places")
        }
    assert len({x for x, _ in match.pairs}) == len({y for _, y in match.pairs}) == len(match.pairs)
    assert match.share_a == len(match.pairs) / len(a)
    assert match.share_b == len(match.pairs) / len(b)
    assert sorted(pair for part in match.parts for pair in part) == list(match.pairs)


def largest_common(a: ComputationalGraph, b: ComputationalGraph) -> int:
    """Size of the largest connected common induced subgraph, by trying all, with networkx."""
    one, other = labelled(a), labelled(b)
    for size in range(min(len(a), len(b)), 0, -1):
        left, right = (
            [
                part
                for nodes in combinations(range(len(graph)), size)
                if networkx.is_weakly_connected(part := labelled_graph.subgraph(nodes))
            ]
            for graph, labelled_graph in ((a, one), (b, other))
        )
        if any(isomorphic(x, y) for x in left for y in right if _kinds(x) == _kinds(y)):
            return size
    return 0


def _kinds(graph: networkx.DiGraph) -> list[str]:
    return sorted(word for _, word in graph.nodes(data="word"))


@pytest.mark.parametrize("seed", range(40))
def test_in_small_graphs_the_first_part_is_as_large_as_networkx_finds_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (random_graph(rng, fewest=3, most=6) for _ in range(2))
    match = explain_match(a, b)
    assert match.is_exact
    assert_common(a, b, match)
    assert len(match.parts[0]) == largest_common(a, b)


@pytest.mark.parametrize("seed", range(12))
def test_parts_are_common_and_connected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graphs = sampled_graphs(seed)
    for a, b in [
        (random_graph(rng, fewest=15, most=30), random_graph(rng, fewest=15, most=30)),
        (graphs[seed], graphs[-1]),
    ]:
        assert_common(a, b, explain_match(a, b))


@pytest.mark.parametrize("seed", range(2))
def test_equal_graphs_are_covered_however_they_are_written_down(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for graph in [*sampled_graphs(seed), staged_network()]:
        other, _ = reordered(graph, rng)
        match = explain_match(graph, other)
        assert_common(graph, other, match)
        assert match.share_a == match.share_b == 1
        assert len(match.parts) == 1


def test_other_widths_do_not_hide_a_match() -> None:
    match = explain_match(residual_network(5, width=8), residual_network(5, width=64, classes=100))
    assert match.share_a == 1


def test_common_blocks_have_names_and_numbers() -> None:
    match = explain_match(residual_network(8), residual_network(5))
    assert match.share_b > 0.95
    assert any(block.startswith("4x") or block.startswith("5x") for block in match.blocks)
    assert any("conv3x3-bn" in block and "add" in block for block in match.blocks)


def test_graphs_without_a_common_kind_do_not_match() -> None:
    a, b = GraphBuilder(), GraphBuilder()
    one = a.finish(a("relu", a("input", shape=(4,))))
    other = b.finish(b("tanh", b("input", shape=(4,))))
    match = explain_match(one, other)
    assert [one.nodes[x].op for x, _ in match.pairs] == ["input"]
    assert match.is_exact


def test_the_order_of_arguments_counts_where_it_has_a_meaning() -> None:
    def graph(op: str, *, swap: bool) -> ComputationalGraph:
        g = GraphBuilder()
        x = g("input", shape=(4,))
        y = [g("relu", x), g("tanh", x)]
        return g.finish(g(op, *reversed(y)) if swap else g(op, *y))

    assert explain_match(graph("add", swap=False), graph("add", swap=True)).share_a == 1
    assert len(explain_match(graph("sub", swap=False), graph("sub", swap=True)).parts[0]) == 3


def test_large_graphs_say_that_they_were_not_searched_through() -> None:
    graph = residual_network(EXACT_NODES)
    assert not explain_match(graph, graph).is_exact


def test_time_grows_no_faster_than_the_square_of_the_nodes() -> None:
    def seconds(a: ComputationalGraph, b: ComputationalGraph) -> float:
        times = []
        for _ in range(3):
            started = time.process_time()
            explain_match(a, b)
            times.append(time.process_time() - started)
        return min(times)

    small = residual_network(10), staged_network((2, 2, 3, 2))
    large = residual_network(42), staged_network((8, 10, 12, 10))
    factor = len(large[0]) / len(small[0])
    assert min(map(len, large)) > 290
    assert factor > 3.5
    assert seconds(*large) < 2 * factor**2 * seconds(*small)


def test_long_names_are_cut() -> None:
    assert block_name(["conv2d 3x3 depthwise", "batch_norm", "relu"]) == "conv3x3 depthwise-bn-relu"
    assert block_name(["relu"] * 20).endswith("... (20 nodes)")
