"""A search space small enough to be known by heart."""

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace


class Toy(SearchSpace):
    """Depth 1 to 3; per layer a width of 2 or 4; with more than one layer also whether they are biased: 2 + 8 + 16."""

    @property
    def name(self) -> str:
        return "toy"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        x = graph("input", shape=self.input_shape)
        depth = choose.integer("depth", 1, 3)
        bias = depth > 1 and choose.categorical("bias", (False, True))
        for layer in range(depth):
            x = graph("linear", x, out_features=choose.categorical(f"width{layer}", (2, 4)), bias=bias)
        return graph.finish(graph("linear", x, out_features=self.num_classes))


def toy() -> Toy:
    return Toy(input_shape=(3,), num_classes=2)
