"""The settings of a metanetwork: what decides the shapes of its weights and what it computes."""

from dataclasses import dataclass
from typing import Literal, get_args

from nasgraph.errors import ConfigError

Kind = Literal["message_passing", "relational", "scale"]
OUTPUTS = ("share", "number")
KINDS: tuple[str, ...] = get_args(Kind)
_AT_LEAST_ONE = (
    "layers",
    "node_dim",
    "edge_dim",
    "graph_dim",
    "frequencies",
    "heads",
    "max_positions",
    "targets",
    "embedding_dim",
)


@dataclass(frozen=True, kw_only=True)
class MetanetworkConfig:
    """Settings of a metanetwork.

    Edges are many and nodes are few (some 25 to one in a small multilayer perceptron), so the states of edges are thin and
    those of nodes are wide.

    Attributes:
        kind: "message_passing": messages are products of a node's and an edge's state (Kofinas et al. 2024; Lim et al. 2023);
            "relational": attention along edges (Diao and Loynd 2023); "scale": in addition equivariant to the rescaling of
            hidden units (Kalogeropoulos et al. 2024).
        layers: Rounds.
        node_dim: Size of a node's state.
        edge_dim: Size of an edge's state.
        graph_dim: Size of the state of a whole network.
        frequencies: Learnt sine features of the numbers of a node or an edge.
        heads: Heads of the relational kind; must divide `node_dim`.
        use_max: Whether messages are aggregated by their largest too, beside mean and standard deviation. Slower.
        max_positions: Inputs, and outputs, that can be told apart; those beyond share the last place.
        scale_by_fan_in: Whether weights are read times the root of their fan-in, so that networks of other widths look alike.
        output: "share": predictions are in (0, 1); "number": they are in the units of the targets trained on.
        targets: Numbers that `predict` gives for each network.
        embedding_dim: Size of what `embed` gives.
        dropout: On the hidden units of the head that predicts, in training.

    Raises:
        ConfigError: If a number is out of bounds.
    """

    kind: str = "message_passing"
    layers: int = 4
    node_dim: int = 32
    edge_dim: int = 16
    graph_dim: int = 32
    frequencies: int = 16
    heads: int = 4
    use_max: bool = False
    max_positions: int = 128
    scale_by_fan_in: bool = True
    targets: int = 1
    output: str = "share"
    embedding_dim: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"Expected 'kind' to be one of {', '.join(KINDS)} (got {self.kind!r})")
        if self.output not in OUTPUTS:
            raise ConfigError(f"Expected 'output' to be 'share' or 'number' (got {self.output!r})")
        for name in _AT_LEAST_ONE:
            if not 1 <= getattr(self, name) <= 100_000:
                raise ConfigError(f"Expected '{name}' from 1 to 100,000 (got {getattr(self, name)})")
        if self.kind == "relational" and self.node_dim % self.heads:
            raise ConfigError(f"Expected 'heads' to divide 'node_dim' (got {self.heads} and {self.node_dim})")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"Expected 'dropout' from 0 to below 1 (got {self.dropout})")
