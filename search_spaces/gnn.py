"""Networks for the nodes of one graph: a design space like those of GraphGym (You, Ying and Leskovec, "Design Space for
Graph Neural Networks", 2020) and Auto-GNN (Zhou et al., "Auto-GNN: Neural Architecture Search of Graph Neural Networks",
2019)."""

from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

KINDS = ("gcn", "gat", "gin", "sage", "cheb", "arma", "graph")
"""Layers that pass messages; the operators are called `<kind>_conv`."""
ACTIVATIONS = ("relu", "leaky_relu", "elu", "silu", "tanh")
DROPOUTS = (0.0, 0.3, 0.5, 0.7)
MAX_FEATURES = 2**20
_AGGREGATING = ("gin", "sage", "graph")


class GNN(SearchSpace):
    """Linear layers, layers that pass messages, linear layers, classes.

    The features of a node are mapped to `hidden_dim` numbers first, which keeps sparse features cheap whatever follows:
    by as many layers as `pre_layers` says, or by a linear map alone if that is 0. Then come 1 to `max_layers` layers
    that pass messages, each of a kind of its own; all share the number of attention heads and the aggregation, where a
    kind has them. `skip` adds each layer's input to its output, or concatenates the outputs of all layers at the end
    ("jumping knowledge", Xu et al. 2018). The classes come from linear layers, or from one more layer that passes messages, of
    the last kind and with one head, as in the networks of Kipf and Welling (2017) and Velickovic et al. (2018). Dropout
    stands before every layer, batch norm (if chosen) and the activation behind it; a bare linear map at the start counts
    to the layer after it. The edges belong to the data: see `nasgraph.modules.RunContext`.

    Args:
        input_shape: `(features,)` of one node.
        num_classes: Length of the output.
        hidden_dims: Widths. Each of `heads` must divide each of them.
        heads: Numbers of attention heads.
        max_layers: Most layers that pass messages.

    Raises:
        NasGraphError: If the input is no vector, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        hidden_dims: tuple[int, ...] = (16, 32, 64),
        heads: tuple[int, ...] = (1, 2, 4, 8),
        max_layers: int = 4,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        if len(self.input_shape) != 1 or not 1 <= self.input_shape[0] <= MAX_FEATURES:
            raise NasGraphError(
                f"The space 'gnn' expects nodes of a graph with one vector of features each, such as those of 'cora' "
                f"(got shape {self.input_shape})"
            )
        if num_classes < 1 or not 1 <= max_layers <= 100:
            raise NasGraphError(
                f"Expected 'num_classes' of at least 1 and 'max_layers' of 1 to 100 (got {num_classes} and {max_layers})"
            )
        if not hidden_dims or not heads or min(*hidden_dims, *heads) < 1:
            raise NasGraphError(f"Expected 'hidden_dims' and 'heads' above 0 (got {hidden_dims} and {heads})")
        if any(dim % head for dim in hidden_dims for head in heads):
            raise NasGraphError(
                f"Expected every number of 'heads' to divide each of 'hidden_dims' (got {heads} and {hidden_dims})"
            )
        self._hidden_dims, self._heads, self._max_layers = hidden_dims, heads, max_layers

    @property
    def name(self) -> str:
        return "gnn"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        writer = _Writer(
            graph=graph,
            dim=choose.categorical("hidden_dim", self._hidden_dims),
            dropout=choose.categorical("dropout", DROPOUTS),
            activation=choose.categorical("activation", ACTIVATIONS),
            normalised=choose.categorical("batch_norm", (False, True)),
        )
        kinds = [
            choose.categorical(f"kind_{place}", KINDS)
            for place in range(1, choose.integer("layers", 1, self._max_layers) + 1)
        ]
        heads = choose.categorical("heads", self._heads) if "gat" in kinds else 1
        aggregation = "mean"
        if any(kind in _AGGREGATING for kind in kinds):
            aggregation = choose.categorical("aggregation", ("sum", "mean", "max"))
        skip = choose.categorical("skip", ("none", "sum", "concat"))
        pre_layers = choose.integer("pre_layers", 0, 2)
        settings = {
            kind: {"num_heads": heads} if kind == "gat" else {"aggregation": aggregation}
            for kind in ("gat", *_AGGREGATING)
        }
        x = graph("input", shape=self.input_shape)
        if pre_layers == 0:
            x = graph("linear", writer.dropped(x), out_features=writer.dim, bias=False)
        for _ in range(pre_layers):
            x = writer.layer("linear", x)
        outputs = []
        for place, kind in enumerate(kinds):
            is_dropped = place > 0 or pre_layers > 0
            y = writer.layer(f"{kind}_conv", x, is_dropped=is_dropped, **settings.get(kind, {}))
            x = graph("add", x, y) if skip == "sum" else y
            outputs.append(x)
        if skip == "concat" and len(outputs) > 1:
            x = graph("concat", *outputs, axis=0)
        if choose.categorical("output", ("linear", "messages")) == "messages":
            last = {} if kinds[-1] == "gat" else settings.get(kinds[-1], {})
            x = graph(f"{kinds[-1]}_conv", writer.dropped(x), out_features=self.num_classes, **last)
            return graph.finish(x)
        for _ in range(choose.integer("post_layers", 0, 2)):
            x = writer.layer("linear", x)
        return graph.finish(graph("linear", writer.dropped(x), out_features=self.num_classes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Writes layers, all with the same width, dropout, activation and norm."""

    graph: GraphBuilder
    dim: int
    dropout: float
    activation: str
    normalised: bool

    def dropped(self, x: int) -> int:
        return self.graph("dropout", x, p=self.dropout) if self.dropout else x

    def layer(self, op: str, x: int, *, is_dropped: bool = True, **settings: object) -> int:
        x = self.graph(op, self.dropped(x) if is_dropped else x, out_features=self.dim, **settings)
        if self.normalised:
            x = self.graph("batch_norm", x)
        return self.graph(self.activation, x)
