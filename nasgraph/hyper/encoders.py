"""Networks that give every node of a graph a state.

Letters: B = graphs, N = nodes (padded), M = B * N nodes flattened, H = heads, D = state size, F = numeric features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.encode import FEATURES, OP_IDS, GraphBatch
from nasgraph.encode.distances import MAX_DENSE_NODES, MAX_DISTANCE

MAX_DEGREE = 15
MAX_BIAS_BYTES = 2**22
"""Attention biases that are kept for all layers where no gradient is wanted."""


class NodeEmbedding(nn.Module):
    """First state of every node: its operator (learnt vector) plus a small network over its numeric features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.op = nn.Embedding(len(OP_IDS), dim)
        self.features = nn.Sequential(nn.Linear(len(FEATURES), dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, graphs: GraphBatch) -> Float[Tensor, "graphs nodes dim"]:
        """States [graphs, nodes, dim]; padded nodes hold numbers without meaning."""
        x_BND: Tensor = self.op(graphs.op_BN) + self.features(graphs.features_BNF)
        return x_BND


class TransformerEncoder(nn.Module):
    """Self-attention over all nodes with biases from signed distances, as in GHN-3.

    Knyazev, Hwang and Lacoste-Julien, "Can We Scale Transformers to Predict Parameters of Diverse ImageNet
    Models?", 2023, section 3: centrality (degree) embeddings at the input, and attention scores shifted by a learnt
    function of the forward and the backward shortest path, here one table over the signed distance, which holds
    both because a graph is acyclic; all layers share it. Departures: a table in place of a small network over
    distance embeddings, and norms before the sub-layers. Node order does not matter; padding has no influence.

    Up to 4,096 nodes attention is exact. Where no gradient is wanted, the biases are looked up for a few rows at a time
    (at most 4 MiB), in every layer anew, so that memory grows with the nodes and not with their square. Beyond, a node
    attends to its own and the two neighbouring windows of a `DistanceBand` only: nodes of like depth, 256 to 512 before
    and after it. Memory and time are then proportional to the number of nodes.

    Args:
        dim: Size of a node state.
        num_layers: Attention layers.
        num_heads: Heads. Must divide `dim`.
    """

    def __init__(self, dim: int, *, num_layers: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"Expected 'num_heads' to divide 'dim' (got {num_heads} and {dim})")
        self.embed = NodeEmbedding(dim)
        self.in_degree = nn.Embedding(MAX_DEGREE + 1, dim)
        self.out_degree = nn.Embedding(MAX_DEGREE + 1, dim)
        self.layers = nn.ModuleList(_AttentionLayer(dim, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.bias = nn.Embedding(2 * MAX_DISTANCE + 1, num_heads)
        nn.init.normal_(self.bias.weight, std=0.02)

    def forward(self, graphs: GraphBatch) -> Float[Tensor, "graphs nodes dim"]:
        """Node states; padded nodes hold numbers without meaning."""
        B, N = graphs.mask_BN.shape
        degrees = [
            torch.bincount(ends, minlength=B * N).clamp(max=MAX_DEGREE).view(B, N)
            for ends in graphs.edge_index
        ]
        x_BND = self.embed(graphs) + self.out_degree(degrees[0]) + self.in_degree(degrees[1])
        order_N = graphs.band_order_N
        if order_N is not None:
            x_BND = x_BND[:, order_N]
        spans = list(self._spans(graphs))
        for layer in self.layers:
            x_BND = layer(x_BND, spans)
        if order_N is not None:
            x_BND = torch.empty_like(x_BND).index_copy(1, order_N, x_BND)
        out_BND: Tensor = self.norm(x_BND)
        return out_BND

    def _spans(self, graphs: GraphBatch) -> Iterator["_Span"]:
        """Queries that are attended together, in order, with the keys that they see."""
        B, N = graphs.mask_BN.shape
        if graphs.band_distance_KWV is not None:
            window = graphs.band_distance_KWV.shape[1]
            for k, distance_WV in enumerate(graphs.band_distance_KWV):
                rows, keys = (
                    slice(k * window, min((k + 1) * window, N)),
                    slice(max(0, (k - 1) * window), min((k + 2) * window, N)),
                )
                seen_WV = distance_WV[: rows.stop - rows.start, keys.start - (k - 1) * window :]
                index_BNN = seen_WV[None, :, : keys.stop - keys.start]
                yield _Span(rows, keys, partial(self._bias, index_BNN, None))
            return
        assert graphs.distance_BNN is not None
        hidden_BN = None if B == 1 else ~graphs.mask_BN  # a graph that is alone has no padding
        bytes_per_row = B * N * self.bias.embedding_dim * self.bias.weight.element_size()
        if torch.is_grad_enabled() or N * bytes_per_row <= MAX_BIAS_BYTES:
            bias_BHNN = self._bias(graphs.distance_BNN, hidden_BN)
            yield _Span(slice(0, N), slice(0, N), lambda: bias_BHNN)
            return
        step = max(1, MAX_BIAS_BYTES // bytes_per_row)
        for start in range(0, N, step):
            rows = slice(start, min(start + step, N))
            yield _Span(rows, slice(0, N), partial(self._bias, graphs.distance_BNN[:, rows], hidden_BN))

    def _bias(self, distance_BQN: Tensor, hidden_BN: Tensor | None) -> Tensor:
        """What is added to the scores of some rows [graphs, heads, rows, nodes]; -inf where a node is hidden."""
        index_BQN = distance_BQN.to(torch.int32) + MAX_DISTANCE
        bias_BHQN: Tensor = self.bias(index_BQN).permute(0, 3, 1, 2)
        if hidden_BN is not None:
            bias_BHQN = bias_BHQN.masked_fill(hidden_BN[:, None, None, :], float("-inf"))
        return bias_BHQN


@dataclass(frozen=True, slots=True)
class _Span:
    """Consecutive queries, the keys that they see, and what is added to their scores."""

    rows: slice
    keys: slice
    bias: Callable[[], Tensor]


class _AttentionLayer(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x_BND: Tensor, spans: Sequence[_Span]) -> Tensor:
        qkv = self.qkv(self.norm1(x_BND)).unflatten(-1, (3, self.num_heads, -1))
        query_BHNd, key_BHNd, value_BHNd = qkv.permute(2, 0, 3, 1, 4)  # d = D / H
        attended = [
            F.scaled_dot_product_attention(
                query_BHNd[:, :, span.rows],
                key_BHNd[:, :, span.keys],
                value_BHNd[:, :, span.keys],
                attn_mask=span.bias(),
            )
            for span in spans
        ]
        attended_BHNd = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        x_BND = x_BND + self.out(attended_BHNd.transpose(1, 2).flatten(-2))
        result: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return result


class GatedEncoder(nn.Module):
    """Gated graph network that follows the computation forwards and backwards, as in GHN-2.

    Knyazev et al., "Parameter Prediction for Unseen Deep Architectures", 2021, equations 3 and 4: nodes are
    visited in topological order, then in reverse; a node's message sums an MLP of the states of its direct
    neighbours and, along virtual edges, another MLP of the states of all nodes that reach it, weighted by
    1 / distance; a gated recurrent unit updates the state. Nodes of one level are updated together, which changes
    nothing, since they do not reach each other. Node order does not matter; padding has no influence. Reads graphs of at
    most 4,096 nodes: it visits them one level after the other, which takes too long beyond.

    Without virtual edges only equation 3 remains, the encoder of GHN-1 (Zhang, Ren and Urtasun, "Graph HyperNetworks for
    Neural Architecture Search", 2019).

    Args:
        dim: Size of a node state.
        num_rounds: Passes forwards and backwards.
        virtual_edges: Let nodes hear of all that reaches them, not of their direct neighbours alone.
    """

    def __init__(self, dim: int, *, num_rounds: int, virtual_edges: bool = True) -> None:
        super().__init__()
        self.num_rounds = num_rounds
        self.embed = NodeEmbedding(dim)
        self.direct = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)) for _ in range(2)
        )
        self.virtual = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
            for _ in range(2 if virtual_edges else 0)
        )
        self.update = nn.ModuleList(nn.GRUCell(dim, dim) for _ in range(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, graphs: GraphBatch) -> Float[Tensor, "graphs nodes dim"]:
        """Node states; padded nodes hold numbers without meaning."""
        B, N = graphs.mask_BN.shape
        if graphs.distance_BNN is None:
            raise ValueError(
                f"The 'gated' encoder reads graphs of at most {MAX_DENSE_NODES:,} nodes (got {N:,}). "
                "Use a hypernetwork whose encoder is 'transformer'"
            )
        distance_MN = graphs.distance_BNN.flatten(0, 1)
        level_M = graphs.level_BN.flatten()
        order = [torch.nonzero(level_M == level).flatten() for level in range(int(level_M.max()) + 1)]
        state_MD = self.embed(graphs).flatten(0, 1)
        for _ in range(self.num_rounds):
            state_MD = self._traverse(0, order, state_MD, -distance_MN)
            state_MD = self._traverse(1, order[::-1], state_MD, distance_MN)
        result: Tensor = self.norm(state_MD).view(B, N, -1)
        return result

    def _traverse(self, way: int, order: list[Tensor], state_MD: Tensor, distance_MN: Tensor) -> Tensor:
        """One pass over the levels; `distance_MN[v, u]` is the distance from u to v where u comes first."""
        N, D = distance_MN.shape[1], state_MD.shape[1]
        direct_MN = (distance_MN == 1).to(state_MD.dtype)
        virtual_MN = torch.where(distance_MN > 1, 1.0 / distance_MN.clamp(min=1).to(state_MD.dtype), 0.0)
        # What a node tells others is computed once, when its level is done; until then it is zero.
        direct_MD, virtual_MD = torch.zeros_like(state_MD), torch.zeros_like(state_MD)
        for nodes in order:
            graph = nodes // N
            message = torch.einsum("mn,mnd->md", direct_MN[nodes], direct_MD.view(-1, N, D)[graph])
            if self.virtual:
                message = message + torch.einsum(
                    "mn,mnd->md", virtual_MN[nodes], virtual_MD.view(-1, N, D)[graph]
                )
            new = self.update[way](message, state_MD[nodes])
            state_MD = state_MD.index_copy(0, nodes, new)
            direct_MD = direct_MD.index_copy(0, nodes, self.direct[way](new))
            if self.virtual:
                virtual_MD = virtual_MD.index_copy(0, nodes, self.virtual[way](new))
        return state_MD
