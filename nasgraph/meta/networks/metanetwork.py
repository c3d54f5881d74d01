"""Metanetworks: networks that read the parameter graphs of networks, and predict, edit or embed them.

Hidden units carry no identity, so an order of units that computes the same function gives the same prediction and the same
embedding, and an edit that is reordered likewise (Lim et al., "Graph Metanetworks for Processing Diverse Neural Architectures",
2024, proposition 1). With kind "scale" the same holds for the rescaling of hidden units that compensates.

Shape letters: N = nodes, E = edges, G = networks, T = targets, Z = size of an embedding, V = columns of a node's numbers, K = numbers
of an edge.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.meta.graph import NODE_COLUMNS, ParameterGraph
from nasgraph.meta.networks.body import Body
from nasgraph.meta.networks.config import MetanetworkConfig
from nasgraph.meta.networks.encoding import edge_scale
from nasgraph.meta.networks.scale import ScaleBody

LEARNT = tuple(not name.startswith("running_") for name in NODE_COLUMNS)
"""Columns of a node's numbers that an edit may change: not those that are measured."""


class Metanetwork(nn.Module):
    """A network over parameter graphs with three heads.

    Guaranteed, up to rounding: `predict` and `embed` do not depend on the order of hidden units nor on the other networks of a
    batch; `edit` gives each unit and weight its new number wherever it stands, and changes nothing before training.

    Args:
        config: Its shape.
        seed: Seed of the initial weights. Torch's global generator is left as it was.
    """

    def __init__(self, config: MetanetworkConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config = MetanetworkConfig() if config is None else config
        with torch.random.fork_rng(devices=[]):  # torch's layers can only draw from the global generator
            torch.default_generator.manual_seed(seed)
            self.body = ScaleBody(config) if config.kind == "scale" else Body(config)
            self.to_targets = _head(self.body.read_dim, config.targets, config)
            self.to_embedding = _head(self.body.read_dim, config.embedding_dim, config)
        self.target_mean_T: Tensor
        self.target_std_T: Tensor
        self.register_buffer("target_mean_T", torch.zeros(config.targets))
        self.register_buffer("target_std_T", torch.ones(config.targets))

    def read(self, pg: ParameterGraph) -> Float[Tensor, "G read"]:
        """What the heads for whole networks read."""
        return self.body.read(pg, self._weights(pg))

    def _weights(self, pg: ParameterGraph) -> Float[Tensor, "E K"]:
        weights_EK = pg.edge_values.to(self.target_mean_T)
        return weights_EK * edge_scale(pg).to(weights_EK) if self.config.scale_by_fan_in else weights_EK

    def raw(self, pg: ParameterGraph) -> Float[Tensor, "G T"]:
        """Log odds of shares, or standardised numbers: what training compares with targets."""
        found: Tensor = self.to_targets(self.read(pg))
        return found

    def predict(self, pg: ParameterGraph) -> Float[Tensor, "G T"]:
        """Numbers for each network: shares in (0, 1), or numbers in the units of the targets trained on."""
        raw_GT = self.raw(pg)
        if self.config.output == "share":
            return raw_GT.sigmoid()
        return raw_GT * self.target_std_T + self.target_mean_T

    @torch.no_grad()
    def standardise(self, targets_GT: Float[Tensor, "G T"]) -> None:
        """Take mean and spread of these targets as the units of predictions."""
        self.target_mean_T.copy_(targets_GT.mean(0))
        self.target_std_T.copy_(targets_GT.std(0, correction=0).clamp(min=1e-8))

    def standardised(self, targets_GT: Float[Tensor, "G T"]) -> Float[Tensor, "G T"]:
        """Targets as `raw` should give them."""
        return (targets_GT - self.target_mean_T) / self.target_std_T

    def embed(self, pg: ParameterGraph) -> Float[Tensor, "G Z"]:
        """A unit vector for each network."""
        return F.normalize(self.to_embedding(self.read(pg)), dim=1)

    def edit(self, pg: ParameterGraph) -> tuple[Float[Tensor, "N V"], Float[Tensor, "E K"]]:
        """New numbers for all units and weights, for `pg.to_states`. Running statistics keep theirs.

        A weight's change is divided by the root of its fan-in, as its number is multiplied when it is read.
        """
        change_NV, change_EK = self.body.changes(pg, self._weights(pg))
        learnt_V = torch.tensor(LEARNT, device=pg.node_mask.device)
        change_NV = change_NV * (pg.node_mask & learnt_V)
        if self.config.scale_by_fan_in:
            change_EK = change_EK / edge_scale(pg).to(change_EK)
        change_EK = change_EK * pg.edge_mask
        return pg.node_values + change_NV.to(pg.node_values), pg.edge_values + change_EK.to(pg.edge_values)

    def forward(self, pg: ParameterGraph) -> Float[Tensor, "G T"]:
        """The same as `predict`."""
        return self.predict(pg)


def _head(read: int, result: int, config: MetanetworkConfig) -> nn.Sequential:
    hidden = 2 * (config.node_dim + config.graph_dim)
    return nn.Sequential(
        nn.Linear(read, hidden), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(hidden, result)
    )
