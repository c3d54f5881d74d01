"""Motifs: planted blocks are found, nothing depends on the order of nodes, and time grows with size as it should."""

import time
from itertools import pairwise

import networkx
import numpy as np
import pytest

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.retrieve.motifs import MAX_LENGTH, MotifGraph, find_motifs, linear_order
from tests.ir.making import branches, chain, random_graph
from tests.retrieve.making import reordered, residual_network, sampled_graphs, staged_network


def several(motifs: MotifGraph) -> list[tuple[int, int]]:
    """Nodes and number of every motif of several nodes."""
    return [(len(motif.nodes), number) for motif, number in motifs.kinds]


@pytest.mark.parametrize("blocks", [4, 16, 40])
def test_a_planted_block_is_found_as_often_as_it_is_there(blocks: int) -> None:
    motifs = find_motifs(residual_network(blocks))
    size, number = several(motifs)[0]
    assert size == 7
    assert number >= blocks - 1  # the seam between stem and first block may fall elsewhere
    block = motifs.kinds[0][0].words
    assert sorted(block) == sorted(
        ["conv2d 3x3", "batch_norm", "relu", "conv2d 3x3", "batch_norm", "add", "relu"]
    )


def test_sixteen_residual_blocks_have_at_most_four_kinds_of_motifs() -> None:
    motifs = find_motifs(staged_network())
    assert len(motifs.kinds) <= 4
    covered = sum(size * number for size, number in several(motifs))
    assert covered > 0.8 * len(motifs.motif_of)


def test_blocks_of_other_widths_are_the_same_motif() -> None:
    narrow, wide = (find_motifs(residual_network(6, width=width)) for width in (8, 32))
    assert [motif.key for motif in narrow.motifs] == [motif.key for motif in wide.motifs]


def test_equal_blocks_in_a_row_stay_apart() -> None:
    """A chain of one operator is a row of single nodes, not a motif of motifs."""
    assert several(find_motifs(chain(64))) == []


@pytest.mark.parametrize("seed", range(4))
def test_every_node_is_in_one_motif_and_edges_go_forwards(seed: int) -> None:
    for graph in sampled_graphs(seed):
        motifs = find_motifs(graph)
        assert sorted(node for motif in motifs.motifs for node in motif.nodes) == list(range(len(graph)))
        assert all(len(motif.nodes) <= MAX_LENGTH for motif in motifs.motifs)
        assert all(source < target for source, target in motifs.edges)
        condensed = {
            (motifs.motif_of[source], motifs.motif_of[index])
            for index, node in enumerate(graph.nodes)
            for source in node.inputs
        }
        assert set(motifs.edges) == {(a, b) for a, b in condensed if a != b}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_nodes_renumbers_motifs_and_changes_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for graph in [*sampled_graphs(seed), staged_network(), branches(5, length=3)]:
        other, place = reordered(graph, rng)
        mine, others = find_motifs(graph), find_motifs(other)
        assert [motif.key for motif in mine.motifs] == [motif.key for motif in others.motifs]
        assert mine.edges == others.edges
        assert [motif.words for motif in mine.motifs] == [motif.words for motif in others.motifs]
        words = {index: other.nodes[index].op for index in range(len(other))}
        assert all(words[place[index]] == graph.nodes[index].op for index in range(len(graph)))


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_have_the_same_motifs_in_every_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, fewest=5, most=25)
    mine, others = find_motifs(graph), find_motifs(reordered(graph, rng)[0])
    assert [motif.key for motif in mine.motifs] == [motif.key for motif in others.motifs]
    assert mine.edges == others.edges


def test_equal_keys_mean_equal_inner_wiring() -> None:
    for graph in sampled_graphs(1):
        by_key: dict[str, list[tuple[int, ...]]] = {}
        for motif in find_motifs(graph).motifs:
            by_key.setdefault(motif.key, []).append(motif.nodes)
        whole = graph.to_networkx()
        for occurrences in by_key.values():
            for one, other in pairwise(occurrences):
                assert _inner(whole, one) == _inner(whole, other)


def _inner(whole: networkx.MultiDiGraph, nodes: tuple[int, ...]) -> list[tuple[int, int, int]]:
    place = {node: position for position, node in enumerate(nodes)}
    return sorted(
        (place[source], place[target], position)
        for source, target, position in whole.subgraph(nodes).edges(data="position")
    )


def test_the_linear_order_is_topological() -> None:
    for graph in sampled_graphs(2):
        place = {index: position for position, index in enumerate(linear_order(graph))}
        assert len(place) == len(graph)
        assert all(
            place[source] < place[index] for index, node in enumerate(graph.nodes) for source in node.inputs
        )


def test_unused_inputs_are_motifs_of_their_own() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4,))
    g("input", shape=(5,))
    graph = g.finish(g("relu", x))
    assert len(find_motifs(graph).motif_of) == 3


def test_time_grows_little_more_than_the_graph() -> None:
    def seconds(graph: ComputationalGraph) -> float:
        started = time.process_time()
        find_motifs(graph)
        return time.process_time() - started

    small, large = staged_network((3, 4, 6, 3)), staged_network((48, 64, 96, 48))
    short = min(seconds(small) for _ in range(5))
    assert seconds(large) < 6 * len(large) / len(small) * short
