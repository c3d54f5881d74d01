"""A message passing network that gives every graph a score and an embedding.

Shape letters: M = nodes of all graphs together, D = size of a node state, G = graphs, K = columns, E = edges.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import ConfigError
from nasgraph.predict.graph_network.inputs import CODE_LENGTH, NODE_FEATURES, UNKNOWN, GraphTensors
from nasgraph.predict.graph_network.path_features import PathFeatures

SUM_UNIT = 16.0
"""Nodes of a graph of ordinary size: the sum over nodes enters in this unit, so that it is of order one."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Shape of a graph network.

    Attributes:
        vocabulary: Operators that it knows by name, see `node_key`; all others share one vector.
        dim: Size of a node state and of the embedding of a graph.
        num_layers: Rounds of messages.
        adapter_dim: Width of the adapter after each layer; 0 for none.

    Raises:
        ConfigError: If a number is out of bounds or a name stands twice.
    """

    vocabulary: tuple[str, ...]
    dim: int = 48
    num_layers: int = 4
    adapter_dim: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.dim, self.num_layers) < 1
            or self.adapter_dim < 0
            or max(self.dim, self.adapter_dim) > 4096
        ):
            raise ConfigError(
                "Expected 'dim' of 1 to 4096, 'num_layers' of at least 1 and 'adapter_dim' of 0 to 4096 "
                f"(got {self.dim}, {self.num_layers} and {self.adapter_dim})"
            )
        if self.num_layers > 64:
            raise ConfigError(f"Expected at most 64 layers (got {self.num_layers})")
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ConfigError("Expected each operator once in 'vocabulary'")


class GraphNetwork(nn.Module):
    """Scores graphs; higher is better, in normal scores of what it was trained on.

    A node starts with a vector of its operator plus a small network of its numeric features. Each layer adds what a small
    network makes of the node and of two sums: of the messages along the computation and of those against it, which have weights
    of their own, so that the direction of the graph is seen (Wen et al., "Neural Predictor for Neural Architecture Search",
    2020, section 3.2, use both directions too). Graphs are read out by sum, mean and maximum over nodes and by
    `PathFeatures`, standardised by the buffers `columns_mean` and `columns_std`. The order of nodes does not matter, nor
    do the other graphs of a batch.

    An operator outside the vocabulary has one vector that all such share, plus a learnt map of the sign pattern of its name.

    Adapters (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019; AIO-P, Mills et al. 2023, adapts a predictor
    that way) are bottlenecks after each layer whose second map starts at zero: a new adapter changes nothing.

    Args:
        config: Its shape.
        seed: Seed of the initial weights. Torch's global generator is left as it was.
    """

    columns_mean: Tensor
    columns_std: Tensor

    def __init__(self, config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        num_columns = len(PathFeatures().names)
        with torch.random.fork_rng(devices=[]):  # torch's layers can only draw from the global generator
            torch.default_generator.manual_seed(seed)
            dim = config.dim
            self.op = nn.Embedding(len(config.vocabulary) + 1, dim)
            self.code = nn.Linear(CODE_LENGTH, dim, bias=False)
            self.features = nn.Sequential(nn.Linear(len(NODE_FEATURES), dim), nn.GELU(), nn.Linear(dim, dim))
            self.layers = nn.ModuleList(_Layer(dim) for _ in range(config.num_layers))
            self.norm = nn.LayerNorm(dim)
            self.readout = nn.Sequential(
                nn.Linear(3 * dim + num_columns, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim), nn.GELU()
            )
            self.score = nn.Linear(dim, 1)
            width = config.adapter_dim
            self.adapters = nn.ModuleList(
                _Adapter(dim, width) for _ in range(config.num_layers if width else 0)
            )
        self.register_buffer("columns_mean", torch.zeros(num_columns))
        self.register_buffer("columns_std", torch.ones(num_columns))

    def forward(self, graphs: GraphTensors) -> Float[Tensor, " graphs"]:
        """One score per graph."""
        score: Tensor = self.score(self.embed(graphs)).squeeze(-1)
        return score

    def embed(self, graphs: GraphTensors) -> Float[Tensor, "graphs dim"]:
        """One vector per graph: what the score is a linear map of."""
        unknown_M1 = (graphs.op_M == UNKNOWN).to(graphs.x_MF.dtype).unsqueeze(-1)
        x_MD = self.op(graphs.op_M) + self.features(graphs.x_MF) + self.code(graphs.code_MC * unknown_M1)
        for index, layer in enumerate(self.layers):
            x_MD = layer(x_MD, graphs)
            if self.adapters:
                x_MD = self.adapters[index](x_MD)
        pooled = _pool(self.norm(x_MD), graphs)
        columns_GK = (graphs.columns_GK - self.columns_mean) / self.columns_std
        embedding: Tensor = self.readout(torch.cat([*pooled, columns_GK], dim=1))
        return embedding

    def set_columns(self, columns_GK: Float[Tensor, "graphs columns"]) -> None:
        """Standardise path features as they are spread in these rows; constant ones are only shifted."""
        self.columns_mean.copy_(columns_GK.mean(0))
        self.columns_std.copy_(columns_GK.std(0, correction=0).clamp(min=0.05))


def with_adapters(network: GraphNetwork, *, adapter_dim: int, seed: int = 0) -> GraphNetwork:
    """A copy with new adapters, which gives the same scores until they are trained. The network is not changed."""
    base = network.config
    config = NetworkConfig(
        vocabulary=base.vocabulary, dim=base.dim, num_layers=base.num_layers, adapter_dim=adapter_dim
    )
    adapted = GraphNetwork(config, seed=seed)
    adapted.load_state_dict({**adapted.state_dict(), **network.state_dict()})
    return adapted


def _pool(x_MD: Tensor, graphs: GraphTensors) -> list[Tensor]:
    """Sum, mean and maximum over the nodes of each graph."""
    shape = (len(graphs), x_MD.shape[1])
    index_MD = graphs.graph_M.unsqueeze(-1).expand_as(x_MD)
    total_GD = x_MD.new_zeros(shape).index_add(0, graphs.graph_M, x_MD)
    count_G1 = torch.bincount(graphs.graph_M, minlength=len(graphs)).unsqueeze(-1)
    most_GD = x_MD.new_zeros(shape).scatter_reduce(0, index_MD, x_MD, "amax", include_self=False)
    return [total_GD / SUM_UNIT, total_GD / count_G1, most_GD]


class _Layer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.message = nn.Linear(dim, 2 * dim)
        self.update = nn.Sequential(nn.Linear(3 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x_MD: Tensor, graphs: GraphTensors) -> Tensor:
        own_MD = self.norm(x_MD)
        # One row per node and direction: row 2 m + t holds what node m tells along edges of type t.
        told = F.gelu(self.message(own_MD)).view(2 * len(x_MD), -1)
        source, target = graphs.edge_index
        heard = torch.zeros_like(told).index_add(
            0, 2 * target + graphs.edge_type, told[2 * source + graphs.edge_type]
        )
        changed: Tensor = x_MD + self.update(torch.cat([own_MD, heard.view(len(x_MD), -1)], dim=1))
        return changed


class _Adapter(nn.Module):
    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.up = nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x_MD: Tensor) -> Tensor:
        changed: Tensor = x_MD + self.up(F.gelu(self.down(x_MD)))
        return changed
