"""Baselines: kernels against networkx and by hand, unit rows, and no influence of the order of nodes."""

from collections import Counter
from collections.abc import Callable

import networkx
import numpy as np
import pytest

from nasgraph.ir import ComputationalGraph
from nasgraph.retrieve.baselines import BASELINES, graph2vec_rows, operator_rows, wl_rows
from nasgraph.retrieve.words import colours_of, surroundings, wiring_of, words_of
from tests.ir.making import random_graph
from tests.retrieve.making import reordered, sampled_graphs


@pytest.fixture(scope="module")
def graphs() -> list[ComputationalGraph]:
    return sampled_graphs(7, each=2)


def dense(rows: object) -> np.ndarray:
    return rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows)


@pytest.mark.parametrize("name", BASELINES)
def test_rows_have_unit_length_and_ignore_the_order_of_nodes(
    name: str, graphs: list[ComputationalGraph]
) -> None:
    rng = np.random.default_rng(0)
    rows = dense(BASELINES[name](graphs))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    others = dense(BASELINES[name]([reordered(graph, rng)[0] for graph in graphs]))
    np.testing.assert_allclose(others @ others.T, rows @ rows.T, atol=1e-6)


def test_the_operator_histogram_is_a_histogram(graphs: list[ComputationalGraph]) -> None:
    a, b = (Counter(words_of(graph)) for graph in graphs[:2])
    product = sum(np.sqrt(a[word] * b[word]) for word in a)
    expected = product / np.sqrt(sum(a.values()) * sum(b.values()))
    rows = operator_rows(graphs[:2])
    assert (rows @ rows.T)[0, 1] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(15))
def test_surroundings_are_told_apart_as_networkx_tells_balls_of_radius_one(seed: int) -> None:
    """Two nodes have one colour of radius 1 exactly if what they read and who reads them are equal, kinds and places."""
    graph = random_graph(np.random.default_rng(seed), fewest=6, most=20)
    words = words_of(graph)
    colour = surroundings(colours_of(words), wiring_of(graph), radius=1)[1]
    whole = graph.to_networkx()

    def described(node: int) -> tuple[object, ...]:
        reads = sorted((words[s], p) for s, _, p in whole.in_edges(node, data="position"))
        used = sorted((words[t], p) for _, t, p in whole.out_edges(node, data="position"))
        return words[node], tuple(reads), tuple(used)

    for one in whole:
        for other in whole:
            assert (colour[one] == colour[other]) == (described(one) == described(other))


def test_far_surroundings_tell_no_more_than_isomorphism(graphs: list[ComputationalGraph]) -> None:
    """Nodes that an automorphism exchanges have one colour at every radius."""
    graph = random_graph(np.random.default_rng(3), fewest=8, most=12)
    colour = surroundings(colours_of(words_of(graph)), wiring_of(graph), radius=8)[-1]
    simple = networkx.DiGraph(graph.to_networkx())
    networkx.set_node_attributes(simple, {n: graph.to_networkx().nodes[n]["label"] for n in simple}, "label")
    matcher = networkx.algorithms.isomorphism.DiGraphMatcher(
        simple, simple, lambda a, b: a["label"] == b["label"]
    )
    mapping: Callable[[], dict[int, int]] = lambda: next(matcher.isomorphisms_iter())  # noqa: E731
    assert all(colour[a] == colour[b] for a, b in mapping().items())


def test_the_factorisation_is_that_of_positive_mutual_information() -> None:
    """With as many dimensions as there can be, rows times their values give the matrix back, up to its smallest singular value."""
    few = sampled_graphs(9)
    rows = graph2vec_rows(few, dim=1000)
    assert rows.shape == (len(few), len(few) - 1)
    words = [np.concatenate(surroundings(colours_of(words_of(g)), wiring_of(g), radius=2)) for g in few]
    names = sorted({int(word) for each in words for word in each})
    count = np.array([[Counter(map(int, each))[name] for name in names] for each in words], dtype=float)
    with np.errstate(divide="ignore"):
        information = np.log(
            count * count.sum() / (count.sum(1, keepdims=True) * count.sum(0, keepdims=True))
        )
    left, value, _ = np.linalg.svd(np.maximum(information, 0), full_matrices=False)
    expected = left[:, :-1] * np.sqrt(value[:-1])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows @ rows.T, expected @ expected.T, atol=1e-6)


def test_words_that_all_graphs_have_weigh_nothing_with_tfidf(graphs: list[ComputationalGraph]) -> None:
    plain, weighed = dense(wl_rows(graphs)), dense(wl_rows(graphs, weighting="tfidf"))
    everywhere = (plain > 0).all(axis=0)
    assert everywhere.any()
    assert weighed[:, everywhere].max() < 1e-6
