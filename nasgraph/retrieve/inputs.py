# ruff: noqa: N815  shape letters after tensor names, in fields too
"""What the encoder reads of a graph: nodes, edges, motifs, and counts of hashed words.

Nothing depends on a vocabulary: words become numbers by hashing, so operators that come later, and opaque ones, have places
too. Sizes are relative to those of the graph itself, so that narrow and wide variants, and the same design for other
data, look alike.

Shape letters: M = nodes of all graphs together, A = names of a node, F = numeric features, E = edges, K = motifs of all graphs
together, L = edges between motifs, W = distinct words of all graphs together, G = graphs, P = numbers of a whole graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from nasgraph.encode import FEATURES, encode
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.graph_features import CLASSES, class_of
from nasgraph.retrieve.motifs import MotifGraph, find_motifs
from nasgraph.retrieve.words import (
    Colours,
    colour_of,
    colours_of,
    mix,
    stage_words,
    surroundings,
    width_words,
    wiring_of,
    words_of,
)

NAME_BUCKETS = 2048
NUM_NAMES = 4
"""Each node has two names, its operator and its kind, and each name two places, so that two names are never alike."""
WORD_BUCKETS = 8192
NUM_SIZES = 5
NODE_FEATURES = (*FEATURES, "depth", "nodes before", "nodes after", "place in motif")
"""Numeric features of a node: those of `nasgraph.encode`, sizes above one relative to the median of the graph; the share of the
longest path that lies before it; the longest paths that end and that start here, log2(1 + length) / 8; and the share of its
motif that stands before it."""
WORD_GROUPS = ("kind", "radius 1", "radius 2", "radius 3", "width", "width, radius 1", "stage", "motif")
"""Kinds of words that are counted: node kinds and their surroundings, kinds with relative widths, kinds with the number of halvings,
and motifs."""
GRAPH_COLUMNS = (
    *(f"number of {name}" for name in CLASSES),
    "nodes",
    "longest path",
    "edges",
    "motifs",
    "recurrent motifs",
)
"""Numbers of a whole graph, log2(1 + number) / 8."""


@dataclass(frozen=True)
class EncoderInputs:
    """One graph or several side by side.

    Attributes:
        name_MA: Places of the names of each node.
        x_MF: Numeric features, see `NODE_FEATURES`.
        source_E: What an edge reads.
        target_E: Who reads it.
        inner_E: Whether both ends of an edge lie in one motif.
        graph_M: The graph of each node.
        motif_M: The motif of each node.
        graph_K: The graph of each motif.
        key_K: A number per kind of motif, equal for equal motifs of any graphs.
        motif_source_L: Motif that is read.
        motif_target_L: Motif that reads it.
        word_W: Place of each word, in `[0, WORD_BUCKETS)`.
        group_W: Its group, an index into `WORD_GROUPS`.
        weight_W: log2(1 + times), divided by the Euclidean length of the graph's group.
        graph_W: Its graph.
        columns_GP: Numbers of each whole graph, see `GRAPH_COLUMNS`.
    """

    name_MA: Int[Tensor, "nodes names"]
    x_MF: Float[Tensor, "nodes features"]
    source_E: Int[Tensor, " edges"]
    target_E: Int[Tensor, " edges"]
    inner_E: Bool[Tensor, " edges"]
    graph_M: Int[Tensor, " nodes"]
    motif_M: Int[Tensor, " nodes"]
    graph_K: Int[Tensor, " motifs"]
    key_K: Int[Tensor, " motifs"]
    motif_source_L: Int[Tensor, " motif_edges"]
    motif_target_L: Int[Tensor, " motif_edges"]
    word_W: Int[Tensor, " words"]
    group_W: Int[Tensor, " words"]
    weight_W: Float[Tensor, " words"]
    graph_W: Int[Tensor, " words"]
    columns_GP: Float[Tensor, "graphs columns"]

    def __len__(self) -> int:
        return len(self.columns_GP)

    @property
    def num_nodes(self) -> int:
        """Nodes of all graphs together."""
        return len(self.graph_M)


def read_graph(graph: ComputationalGraph, *, motifs: MotifGraph | None = None) -> EncoderInputs:
    """Read one graph. Reordering its nodes reorders rows and changes nothing else.

    Args:
        graph: A checked graph.
        motifs: Its motifs, if they are known already.
    """
    words = words_of(graph)
    motifs = find_motifs(graph, words=words) if motifs is None else motifs
    encoded = encode(graph)
    source, target = torch.from_numpy(encoded.edges_2E)
    motif_M = torch.tensor(motifs.motif_of)
    place, group, weight = _word_counts(graph, words, motifs)
    macro = torch.tensor(motifs.edges, dtype=torch.int64).reshape(-1, 2)
    keys = [int(motif.key, 16) >> 1 for motif in motifs.motifs]
    return EncoderInputs(
        name_MA=torch.from_numpy(_names(graph, words)),
        x_MF=torch.from_numpy(_node_features(graph, encoded.features_NF, encoded.level_N, motifs)),
        source_E=source,
        target_E=target,
        inner_E=motif_M[source] == motif_M[target],
        graph_M=torch.zeros(len(graph), dtype=torch.int64),
        motif_M=motif_M,
        graph_K=torch.zeros(len(keys), dtype=torch.int64),
        key_K=torch.tensor(keys),
        motif_source_L=macro[:, 0],
        motif_target_L=macro[:, 1],
        word_W=torch.from_numpy(place),
        group_W=torch.from_numpy(group),
        weight_W=torch.from_numpy(weight),
        graph_W=torch.zeros(len(place), dtype=torch.int64),
        columns_GP=torch.tensor([_columns(graph, encoded.level_N, motifs)]),
    )


_SHIFTED = {
    "source_E": "nodes", "target_E": "nodes", "graph_M": "graphs", "motif_M": "motifs", "graph_K": "graphs",
    "motif_source_L": "motifs", "motif_target_L": "motifs", "graph_W": "graphs",
}  # fmt: skip


def join(parts: Sequence[EncoderInputs]) -> EncoderInputs:
    """Several graphs side by side, in their order. There is no padding.

    Raises:
        ValueError: If there are none.
    """
    if not parts:
        raise ValueError("Expected at least one graph")
    first = {
        "nodes": _starts([part.num_nodes for part in parts]),
        "graphs": _starts([len(part) for part in parts]),
        "motifs": _starts([len(part.graph_K) for part in parts]),
    }
    joined: dict[str, Tensor] = {}
    for name in EncoderInputs.__dataclass_fields__:
        tensors: list[Tensor] = [getattr(part, name) for part in parts]
        if name in _SHIFTED:
            tensors = [tensor + start for tensor, start in zip(tensors, first[_SHIFTED[name]], strict=True)]
        joined[name] = torch.cat(tensors)
    return EncoderInputs(**joined)


def _starts(sizes: Sequence[int]) -> list[int]:
    starts: list[int] = np.cumsum([0, *sizes[:-1]]).tolist()
    return starts


def _names(graph: ComputationalGraph, words: Sequence[str]) -> NDArray[np.int64]:
    rows = []
    for word, node in zip(words, graph.nodes, strict=True):
        kind, op = colour_of(word), colour_of(f"operator {node.op}")
        rows.append(
            [kind % NAME_BUCKETS, (kind >> 32) % NAME_BUCKETS, op % NAME_BUCKETS, (op >> 32) % NAME_BUCKETS]
        )
    return np.array(rows, dtype=np.int64)


def _node_features(
    graph: ComputationalGraph,
    features_NF: NDArray[np.float32],
    level_N: NDArray[np.int64],
    motifs: MotifGraph,
) -> NDArray[np.float32]:
    sizes = features_NF[:, :NUM_SIZES].copy()
    for column in sizes.T:  # views
        known = column > 0
        if known.any():
            column[known] -= np.median(column[known])
    after = np.zeros(len(graph), np.int64)
    for index in reversed(range(len(graph))):
        for source in graph.nodes[index].inputs:
            after[source] = max(after[source], after[index] + 1)
    inside = np.zeros(len(graph))
    for motif in motifs.motifs:
        for place, node in enumerate(motif.nodes):
            inside[node] = place / len(motif.nodes)
    depth = level_N / max(1, level_N.max())
    own = [depth, np.log2(1 + level_N) / 8, np.log2(1 + after) / 8, inside]
    return np.concatenate([sizes, features_NF[:, NUM_SIZES:], np.stack(own, axis=1)], axis=1).astype(
        np.float32
    )


def word_colours(
    graph: ComputationalGraph, words: tuple[str, ...], motifs: MotifGraph
) -> tuple[Colours, ...]:
    """The words of a graph, with repetitions, for each of `WORD_GROUPS`."""
    wiring = wiring_of(graph)
    kinds = surroundings(colours_of(words), wiring, radius=3)
    widths = surroundings(colours_of(width_words(graph, words)), wiring, radius=1)
    stages = colours_of(stage_words(graph, words))
    parts = np.array([int(motif.key, 16) for motif in motifs.motifs if len(motif.nodes) > 1], dtype=np.uint64)
    return (*kinds, *widths, stages, parts)


def _word_counts(
    graph: ComputationalGraph, words: tuple[str, ...], motifs: MotifGraph
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    places, groups, weights = [], [], []
    for group, colours in enumerate(word_colours(graph, words, motifs)):
        if not len(colours):
            continue
        distinct, times = np.unique(colours, return_counts=True)
        weight = np.log2(1 + times)
        salted = mix(distinct + np.uint64(colour_of(WORD_GROUPS[group])))
        places.append((salted % np.uint64(WORD_BUCKETS)).astype(np.int64))
        groups.append(np.full(len(distinct), group))
        weights.append(weight / np.sqrt(np.square(weight).sum()))
    return np.concatenate(places), np.concatenate(groups), np.concatenate(weights).astype(np.float32)


def _columns(graph: ComputationalGraph, level_N: NDArray[np.int64], motifs: MotifGraph) -> list[float]:
    classes = [class_of(graph, index) for index in range(len(graph))]
    edges = sum(len(node.inputs) for node in graph.nodes)
    recurrent = sum(len(motif.nodes) > 1 for motif in motifs.motifs)
    numbers = [
        *(classes.count(name) for name in CLASSES),
        len(graph),
        int(level_N.max()),
        edges,
        len(motifs.motifs),
        recurrent,
    ]
    return [log2(1 + number) / 8 for number in numbers]
