# ruff: noqa: N815  shape letters after tensor names, in fields too
"""A network that gives every architecture a unit vector: similar designs point the same way.

After Pei et al., "Neural Architecture Retrieval", 2024 (sections 3.2 to 3.4): nodes are pooled into motifs, motifs exchange
messages along the graph of motifs, and the graph is pooled from both. Departures: messages go both ways, a second
branch reads the whole graph node by node, and a third is a learnt linear map of hashed counts of words and surroundings. Of
an encoder without training, that third branch is a random projection of Weisfeiler-Lehman features, which keeps their angles.

Shape letters: M = nodes of all graphs together, D = size of a node state, G = graphs, K = motifs, Z = size of an embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph
from nasgraph.retrieve.inputs import (
    GRAPH_COLUMNS,
    NAME_BUCKETS,
    NODE_FEATURES,
    WORD_BUCKETS,
    WORD_GROUPS,
    EncoderInputs,
    join,
    read_graph,
)

BATCH_NODES = 16384
"""Nodes of one pass: a pass holds about 20 kB per node. A graph with more is alone in its pass."""
BATCH_GRAPHS = 1024


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of an architecture encoder.

    Attributes:
        dim: Size of a node state.
        num_layers: Rounds of messages between nodes.
        num_motif_layers: Rounds of messages inside motifs, and again between motifs; 0 for an encoder without motifs.
        word_dim: Size of the projection of word counts; 0 for an encoder that does not read them.
        embedding_dim: Size of an embedding.

    Raises:
        ConfigError: If a number is out of bounds.
    """

    dim: int = 64
    num_layers: int = 3
    num_motif_layers: int = 2
    word_dim: int = 96
    embedding_dim: int = 128

    def __post_init__(self) -> None:
        if not (1 <= self.dim <= 4096 and 1 <= self.embedding_dim <= 4096 and 0 <= self.word_dim <= 4096):
            raise ConfigError(
                "Expected 'dim' and 'embedding_dim' of 1 to 4096 and 'word_dim' of 0 to 4096 "
                f"(got {self.dim}, {self.embedding_dim} and {self.word_dim})"
            )
        if not (0 <= self.num_layers <= 64 and 0 <= self.num_motif_layers <= 64):
            raise ConfigError(f"Expected 0 to 64 layers (got {self.num_layers} and {self.num_motif_layers})")


@dataclass(frozen=True)
class Encoding:
    """What the encoder makes of a batch.

    Attributes:
        embedding_GZ: Unit vectors.
        motif_KD: What each motif is by itself; None for an encoder without motifs.
        context_KD: What the motifs beside each motif say of their surroundings, without the motif itself; None likewise.
    """

    embedding_GZ: Float[Tensor, "graphs embedding"]
    motif_KD: Float[Tensor, "motifs dim"] | None
    context_KD: Float[Tensor, "motifs dim"] | None


class ArchitectureEncoder(nn.Module):
    """Embeds graphs of any search space and any traced module.

    The embedding of a graph does not depend on the order of its nodes nor on the other graphs of its batch, up to rounding.

    Args:
        config: Its shape.
        seed: Seed of the initial weights. Torch's global generator is left as it was.
    """

    def __init__(self, config: EncoderConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        config = EncoderConfig() if config is None else config
        self.config = config
        dim = config.dim
        with torch.random.fork_rng(devices=[]):  # torch's layers can only draw from the global generator
            torch.default_generator.manual_seed(seed)
            self.name = nn.EmbeddingBag(NAME_BUCKETS, dim, mode="sum")
            self.features = nn.Sequential(nn.Linear(len(NODE_FEATURES), dim), nn.GELU(), nn.Linear(dim, dim))
            self.layers = nn.ModuleList(_Layer(dim) for _ in range(config.num_layers))
            self.inner = nn.ModuleList(_Layer(dim) for _ in range(config.num_motif_layers))
            self.outer = nn.ModuleList(_Layer(dim) for _ in range(config.num_motif_layers))
            self.to_motif = nn.Linear(2 * dim, dim)
            self.to_context = nn.Linear(2 * dim, dim)
            self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
            pooled = 3 * dim * (1 + bool(config.num_motif_layers)) + len(GRAPH_COLUMNS)
            self.readout = nn.Sequential(
                nn.LayerNorm(pooled),
                nn.Linear(pooled, 2 * dim),
                nn.GELU(),
                nn.Linear(2 * dim, config.embedding_dim),
            )
            if config.word_dim:
                self.words = nn.Embedding(WORD_BUCKETS, config.word_dim)
                self.group_gain = nn.Parameter(torch.full((len(WORD_GROUPS),), len(WORD_GROUPS) ** -0.5))
                self.from_words = nn.Linear(config.word_dim, config.embedding_dim, bias=False)
                nn.init.normal_(self.words.weight, std=config.word_dim**-0.5)
                nn.init.orthogonal_(self.from_words.weight)
            nn.init.normal_(self.name.weight, std=0.5)
        with torch.no_grad():  # at first the words decide
            last = self.readout[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.3)

    def forward(self, graphs: EncoderInputs) -> Float[Tensor, "graphs embedding"]:
        """One unit vector per graph."""
        return self.encode(graphs).embedding_GZ

    def encode(self, graphs: EncoderInputs) -> Encoding:
        """Unit vectors, with the states of motifs and contexts that pre-training compares."""
        start_MD = self.name(graphs.name_MA) + self.features(graphs.x_MF)
        pools = []
        x_MD = start_MD
        for layer in self.layers:
            x_MD = layer(x_MD, graphs.source_E, graphs.target_E)
        pools += _pool(self.norms[0](x_MD), graphs.graph_M, len(graphs))
        motif_KD = context_KD = None
        if self.config.num_motif_layers:
            motif_KD, context_KD, state_KD = self._motifs(start_MD, graphs)
            pools += _pool(self.norms[1](state_KD), graphs.graph_K, len(graphs))
        embedding_GZ = self.readout(torch.cat([*pools, graphs.columns_GP], dim=1))
        if self.config.word_dim:
            embedding_GZ = embedding_GZ + self.from_words(self._words(graphs))
        return Encoding(F.normalize(embedding_GZ, dim=1), motif_KD, context_KD)

    def _motifs(self, x_MD: Tensor, graphs: EncoderInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Motifs by themselves, their contexts, and motifs after messages between them."""
        source, target = graphs.source_E[graphs.inner_E], graphs.target_E[graphs.inner_E]
        for layer in self.inner:
            x_MD = layer(x_MD, source, target)
        num_motifs = len(graphs.graph_K)
        total_KD, mean_KD, _ = _pool(x_MD, graphs.motif_M, num_motifs)
        motif_KD = self.to_motif(torch.cat([total_KD, mean_KD], dim=1))
        context_KD = self.to_context(_heard(motif_KD, graphs.motif_source_L, graphs.motif_target_L))
        state_KD = motif_KD
        for layer in self.outer:
            state_KD = layer(state_KD, graphs.motif_source_L, graphs.motif_target_L)
        return motif_KD, context_KD, state_KD

    def _words(self, graphs: EncoderInputs) -> Tensor:
        """Weighted sum of the vectors of all words of each graph."""
        weight_W1 = (graphs.weight_W * self.group_gain[graphs.group_W]).unsqueeze(1)
        total = weight_W1.new_zeros(len(graphs), self.config.word_dim)
        return total.index_add(0, graphs.graph_W, self.words(graphs.word_W) * weight_W1)

    def embed(self, graphs: Sequence[ComputationalGraph]) -> Float[np.ndarray, "graphs embedding"]:
        """Unit vectors of graphs, in their order, without gradients. Memory is bounded: graphs are read a few at a time.

        Args:
            graphs: Checked graphs; none give an array of no rows.
        """
        rows = [np.zeros((0, self.config.embedding_dim), np.float32)]
        was_training = self.training
        self.eval()
        with torch.no_grad():
            for batch in _batches(graphs):
                rows.append(self(batch).numpy(force=True).astype(np.float32))
        self.train(was_training)
        return np.concatenate(rows)


def _batches(graphs: Sequence[ComputationalGraph]) -> Iterator[EncoderInputs]:
    waiting: list[EncoderInputs] = []
    nodes = 0
    for graph in graphs:
        if waiting and (nodes + len(graph) > BATCH_NODES or len(waiting) == BATCH_GRAPHS):
            yield join(waiting)
            waiting, nodes = [], 0
        waiting.append(read_graph(graph))
        nodes += len(graph)
    if waiting:
        yield join(waiting)


def _heard(x: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Sums of what is read and of what reads, divided by the square root of their numbers."""
    zeros, ones = torch.zeros_like(x), x.new_ones(len(source))
    read = zeros.index_add(0, target, x[source])
    used = zeros.index_add(0, source, x[target])
    num_read = x.new_zeros(len(x)).index_add(0, target, ones)
    num_used = x.new_zeros(len(x)).index_add(0, source, ones)
    parts = [
        read / num_read.clamp(min=1).sqrt().unsqueeze(1),
        used / num_used.clamp(min=1).sqrt().unsqueeze(1),
    ]
    return torch.cat(parts, dim=1)


def _pool(x: Tensor, group: Int[Tensor, " rows"], num_groups: int) -> list[Tensor]:
    """Of each group the sum in units of its square root's logarithmic growth, the mean and the maximum."""
    index = group.unsqueeze(-1).expand_as(x)
    total = x.new_zeros(num_groups, x.shape[1]).index_add(0, group, x)
    count = torch.bincount(group, minlength=num_groups).clamp(min=1).unsqueeze(1).to(x.dtype)
    most = x.new_zeros(num_groups, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)
    mean = total / count
    return [mean * torch.log2(1 + count) / 4, mean, most]


class _Layer(nn.Module):
    """One round of messages, along the edges and against them, with weights of their own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.update = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        own = self.norm(x)
        changed: Tensor = x + self.update(torch.cat([own, _heard(own, source, target)], dim=1))
        return changed
