"""What an encoder has to beat: counts of operators and of surroundings, plain features, factorised counts.

Every function gives one row of Euclidean length one per graph, so that products of rows are cosines. None is trained; `graph2vec_rows` and
those with `tfidf` weigh words by the graphs that they are given.

Shape letters: G = graphs, W = words, Z = size of an embedding.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from nasgraph.ir import ComputationalGraph
from nasgraph.predict.graph_features import GraphFeatures
from nasgraph.retrieve.words import Colours, colours_of, surroundings, wiring_of, words_of

Array = NDArray[np.float64]
Weighting = Literal["count", "sqrt", "tfidf"]


def operator_rows(graphs: Sequence[ComputationalGraph]) -> csr_array:
    """Square roots of the numbers of nodes of each kind."""
    return wl_rows(graphs, radius=0, weighting="sqrt")


def wl_rows(
    graphs: Sequence[ComputationalGraph], *, radius: int = 2, weighting: Weighting = "count"
) -> csr_array:
    """Weisfeiler-Lehman subtree features: products of these rows are the normalised kernel.

    Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", 2011, eq. 2, over kinds of nodes and both directions of edges.

    Args:
        graphs: At least one.
        radius: Rounds of refinement. Words of all radii from 0 count.
        weighting: "count" is the kernel of the paper; "sqrt" takes square roots of the counts; "tfidf" multiplies
            1 + log(count) with log(graphs / graphs that have the word).
    """
    count_GW = _counts([_wl_words(graph, radius) for graph in graphs])
    if weighting == "sqrt":
        count_GW = count_GW.sqrt()
    elif weighting == "tfidf":
        present_W = np.bincount(count_GW.indices, minlength=count_GW.shape[1])
        count_GW.data = 1 + np.log(count_GW.data)
        count_GW = csr_array(count_GW @ diags_array(np.log(len(graphs) / present_W) + 1e-9))
    return _unit_rows(count_GW)


def graph2vec_rows(
    graphs: Sequence[ComputationalGraph], *, radius: int = 2, dim: int = 128, seed: int = 0
) -> Array:
    """Embeddings of graphs as documents of Weisfeiler-Lehman words.

    Graph2vec (Narayanan et al., "graph2vec: Learning Distributed Representations of Graphs", 2017) trains document vectors by skip-gram with
    negative samples. What that factorises is the matrix of pointwise mutual information (Levy and Goldberg, "Neural Word
    Embedding as Implicit Matrix Factorization", 2014, eq. 7); here its positive part is factorised exactly, with the square roots of the
    singular values, so that no chance and no learning rate plays a part.

    Args:
        graphs: What is embedded; the words are weighed by their numbers in these.
        radius: Rounds of refinement.
        dim: Size of an embedding; at most one less than the number of graphs and of words is used.
        seed: Where the iteration begins.
    """
    count_GW = _counts([_wl_words(graph, radius) for graph in graphs])
    total = count_GW.sum()
    by_graph = count_GW.sum(axis=1)
    by_word = count_GW.sum(axis=0)
    rows, columns = count_GW.nonzero()
    information = np.log(count_GW.data * total / (by_graph[rows] * by_word[columns]))
    positive_GW = csr_array((np.maximum(information, 0), (rows, columns)), shape=count_GW.shape)
    size = min(dim, min(count_GW.shape) - 1)
    start = np.random.default_rng(seed).normal(size=min(count_GW.shape))
    left_GZ, value_Z, _ = svds(positive_GW, k=size, v0=start)
    return _unit(left_GZ * np.sqrt(value_Z))


def plain_rows(graphs: Sequence[ComputationalGraph]) -> Array:
    """`GraphFeatures.universal()`, standardised over the graphs."""
    row_GF = np.asarray(GraphFeatures.universal()(graphs), dtype=np.float64)
    row_GF = np.sign(row_GF) * np.log1p(np.abs(row_GF))
    spread_F = row_GF.std(axis=0)
    varying = spread_F > 0
    return _unit((row_GF[:, varying] - row_GF.mean(axis=0)[varying]) / spread_F[varying])


def gcn_rows(
    graphs: Sequence[ComputationalGraph], *, dim: int = 128, rounds: int = 3, seed: int = 0
) -> Array:
    """A graph convolutional network without training (Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional
    Networks", 2017, eq. 2) with the mean over nodes as readout.

    Every kind of node starts with a random vector of its own; weights are random and orthogonal on average.
    """
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(dim, dim)) * np.sqrt(2 / dim) for _ in range(rounds)]
    vectors: dict[str, Array] = {}
    rows = []
    for graph in graphs:
        words = words_of(graph)
        for word in words:
            if word not in vectors:
                own = int(colours_of((word,))[0])
                vectors[word] = np.random.default_rng([seed, own]).normal(size=dim)
        state = np.stack([vectors[word] for word in words])
        wiring = wiring_of(graph)
        ones = np.ones(len(wiring.source_E))
        edges = csr_array((ones, (wiring.target_E, wiring.source_E)), shape=(len(graph), len(graph)))
        around = edges + edges.T + diags_array(np.ones(len(graph)))
        scale = diags_array(1 / np.sqrt(around.sum(axis=1)))
        for weight in weights:
            state = np.maximum((scale @ around @ scale) @ state @ weight, 0)
        rows.append(state.mean(axis=0))
    return _unit(np.stack(rows))


Rows = Callable[[Sequence[ComputationalGraph]], Array | csr_array]
BASELINES: dict[str, Rows] = {
    "operator histogram": operator_rows,
    "plain features": plain_rows,
    "WL kernel, radius 1": lambda graphs: wl_rows(graphs, radius=1),
    "WL kernel, radius 2": lambda graphs: wl_rows(graphs, radius=2),
    "WL kernel, radius 2, square roots": lambda graphs: wl_rows(graphs, radius=2, weighting="sqrt"),
    "WL kernel, radius 2, tf-idf": lambda graphs: wl_rows(graphs, radius=2, weighting="tfidf"),
    "graph2vec-like": graph2vec_rows,
    "untrained GCN": gcn_rows,
}
"""Every baseline by its name."""


def _wl_words(graph: ComputationalGraph, radius: int) -> Colours:
    return np.concatenate(surroundings(colours_of(words_of(graph)), wiring_of(graph), radius=radius))


def _counts(words: Sequence[Colours]) -> csr_array:
    """Numbers of each word in each graph; columns are the distinct words in the order of their colours."""
    distinct, column = np.unique(np.concatenate(words), return_inverse=True)
    row = np.repeat(np.arange(len(words)), [len(each) for each in words])
    table = csr_array((np.ones(len(row)), (row, column)), shape=(len(words), len(distinct)))
    table.sum_duplicates()
    return table


def _unit_rows(table: csr_array) -> csr_array:
    length = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return csr_array(diags_array(1 / np.maximum(length, 1e-12)) @ table)


def _unit(rows: Array) -> Array:
    scaled: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return scaled
