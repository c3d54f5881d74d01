"""Multilayer perceptrons for any shape of input."""

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

NORMS = ("none", "batch", "layer")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh")


class MLP(SearchSpace):
    """One to `max_depth` hidden layers, each of a width of its own, with one norm and one activation.

    A hidden layer is linear, norm, activation. Where it is as wide as what it reads, its input may be added to its
    output. Linear maps that a norm follows have no bias. Inputs with several axes are flattened.

    Args:
        input_shape: Any shape.
        num_classes: Length of the output.
        widths: Widths that a hidden layer may have.
        max_depth: Most hidden layers.

    Raises:
        NasGraphError: If a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        widths: tuple[int, ...] = (16, 32, 64, 128, 256),
        max_depth: int = 5,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        if not self.input_shape or min(self.input_shape) < 1 or num_classes < 1:
            raise NasGraphError(
                f"Expected sizes of at least 1 (got shape {input_shape} and {num_classes} classes)"
            )
        if not widths or min(widths) < 1 or not 1 <= max_depth <= 100:
            raise NasGraphError(
                f"Expected positive 'widths' and a 'max_depth' of 1 to 100 (got {widths}, {max_depth})"
            )
        self._widths = widths
        self._max_depth = max_depth

    @property
    def name(self) -> str:
        return "mlp"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        norm = choose.categorical("norm", NORMS)
        activation = choose.categorical("activation", ACTIVATIONS)
        x = graph("input", shape=self.input_shape)
        if len(self.input_shape) > 1:
            x = graph("flatten", x)
        for layer in range(choose.integer("depth", 1, self._max_depth)):
            width = choose.categorical(f"layer{layer}_width", self._widths)
            y = graph("linear", x, out_features=width, bias=norm == "none")
            if norm != "none":
                y = graph(f"{norm}_norm", y)
            y = graph(activation, y)
            # Asked only between hidden layers: the width of the data is no choice.
            may_add = layer > 0 and graph.shape(x) == graph.shape(y)
            x = (
                graph("add", x, y)
                if may_add and choose.categorical(f"layer{layer}_residual", (False, True))
                else y
            )
        return graph.finish(graph("linear", x, out_features=self.num_classes))
