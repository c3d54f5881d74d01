"""Networks that give every node of a graph a state.

Letters: B = graphs, N = nodes (padded), M = B * N nodes flattened, H = heads, D = state size, F = numeric features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.encode import FEATURES, OP_IDS, GraphBatch
from nasgraph.encode.features import MAX_DISTANCE

MAX_DEGREE = 15


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
        bias_BHNN = self.bias(graphs.distance_BNN + MAX_DISTANCE).permute(0, 3, 1, 2)
        bias_BHNN = bias_BHNN.masked_fill(~graphs.mask_BN[:, None, None, :], float("-inf"))
        for layer in self.layers:
            x_BND = layer(x_BND, bias_BHNN)
        out_BND: Tensor = self.norm(x_BND)
        return out_BND


class _AttentionLayer(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x_BND: Tensor, bias_BHNN: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x_BND)).unflatten(-1, (3, self.num_heads, -1))
        query_BHNd, key_BHNd, value_BHNd = qkv.permute(2, 0, 3, 1, 4)  # d = D / H
        attended_BHNd = F.scaled_dot_product_attention(query_BHNd, key_BHNd, value_BHNd, attn_mask=bias_BHNN)
        x_BND = x_BND + self.out(attended_BHNd.transpose(1, 2).flatten(-2))
        result: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return result


class GatedEncoder(nn.Module):
    """Gated graph network that follows the computation forwards and backwards, as in GHN-2.

    Knyazev et al., "Parameter Prediction for Unseen Deep Architectures", 2021, equations 3 and 4: nodes are
    visited in topological order, then in reverse; a node's message sums an MLP of the states of its direct
    neighbours and, along virtual edges, another MLP of the states of all nodes that reach it, weighted by
    1 / distance; a gated recurrent unit updates the state. Nodes of one level are updated together, which changes
    nothing, since they do not reach each other. Node order does not matter; padding has no influence.

    Args:
        dim: Size of a node state.
        num_rounds: Passes forwards and backwards.
    """

    def __init__(self, dim: int, *, num_rounds: int) -> None:
        super().__init__()
        self.num_rounds = num_rounds
        self.embed = NodeEmbedding(dim)
        self.direct = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)) for _ in range(2)
        )
        self.virtual = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)) for _ in range(2)
        )
        self.update = nn.ModuleList(nn.GRUCell(dim, dim) for _ in range(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, graphs: GraphBatch) -> Float[Tensor, "graphs nodes dim"]:
        """Node states; padded nodes hold numbers without meaning."""
        B, N = graphs.mask_BN.shape
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
            message = message + torch.einsum(
                "mn,mnd->md", virtual_MN[nodes], virtual_MD.view(-1, N, D)[graph]
            )
            new = self.update[way](message, state_MD[nodes])
            state_MD = state_MD.index_copy(0, nodes, new)
            direct_MD = direct_MD.index_copy(0, nodes, self.direct[way](new))
            virtual_MD = virtual_MD.index_copy(0, nodes, self.virtual[way](new))
        return state_MD
