"""NAS-Bench-201 (Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
2020), also the topology space of NATS-Bench (Dong et al. 2021).

All cells of a network are alike. A cell has four nodes; node `j` sums one operation on each node `i < j`. Five
operations on six edges make 15,625 architectures.
"""

import re
from collections.abc import Sequence

from nasgraph.errors import InvalidChoiceError, NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Architecture, Chooser, SearchSpace

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The five operations, in the order of the benchmark."""
EDGES = tuple((source, target) for target in range(1, 4) for source in range(target))
"""The six edges, in the order in which the official string names them."""
NAME = "nasbench201"


class NASBench201(SearchSpace):
    """The 15,625 networks of NAS-Bench-201, with the macro skeleton of the benchmark.

    Stem, `num_cells` cells, a residual block that halves the image and doubles the channels, cells, another such
    block, cells, norm, mean over positions, linear. Operations that cannot reach the output of the cell, or that
    read only zeros, are left out of the graph, and a skip connection adds no node. So parameter counts equal the
    published ones for cells without such operations, and are lower for the others. (A convolution of
    zeros with a batch norm would give the norm's learnt shift rather than zeros; it is left out all the same,
    as the benchmark's own count of unique structures does.) A cell without any path gives `zero`.
    The 15,625 architectures have 6,334 distinct graphs.

    Args:
        input_shape: `(channels, height, width)`, sides divisible by four, since the two halvings must be exact.
        num_classes: Length of the output.
        channels: Channels of the first cells; 16 in the benchmark.
        num_cells: Cells per stage. If not given, the 5 of the benchmark for images of at least 32 x 32, and 1 for
            smaller ones, whose networks would otherwise cost far more than they need.

    Raises:
        NasGraphError: If the input is no such image, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        channels: int = 16,
        num_cells: int | None = None,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        if (
            len(self.input_shape) != 3
            or min(self.input_shape) < 1
            or any(side % 4 for side in self.input_shape[1:])
        ):
            raise NasGraphError(
                f"The space '{NAME}' expects images (channels, height, width) with sides divisible by four "
                f"(got shape {self.input_shape})"
            )
        if num_cells is None:
            num_cells = 5 if min(self.input_shape[1:]) >= 32 else 1
        if min(num_classes, channels, num_cells) < 1:
            raise NasGraphError(
                "Expected 'num_classes', 'channels' and 'num_cells' to be at least 1 "
                f"(got {num_classes}, {channels} and {num_cells})"
            )
        self._channels = channels
        self._num_cells = num_cells

    @property
    def name(self) -> str:
        return NAME

    def build(self, choose: Chooser) -> ComputationalGraph:
        operations = [choose.categorical(_edge_name(*edge), OPERATIONS) for edge in EDGES]
        graph = GraphBuilder()
        x = graph("input", shape=self.input_shape)
        x = _conv_norm(graph, x, self._channels, 3)
        for stage in range(3):
            if stage > 0:
                x = _residual_block(graph, x, self._channels * 2**stage)
            for _ in range(self._num_cells):
                x = _cell(graph, x, operations)
        x = graph("global_avg_pool2d", graph("relu", graph("batch_norm", x)))
        return graph.finish(graph("linear", x, out_features=self.num_classes))


def arch_string(architecture: Architecture) -> str:
    """The benchmark's own text for an architecture, such as
    `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|`.

    Raises:
        InvalidChoiceError: If the architecture belongs to another space or is not complete.
    """
    choices = dict(architecture.choices)
    if architecture.space != NAME or set(choices) != {_edge_name(*edge) for edge in EDGES}:
        raise InvalidChoiceError(
            f"Expected an architecture of '{NAME}' with its {len(EDGES)} choices "
            f"(got one of '{architecture.space}' with {len(choices)})"
        )
    nodes = [
        "|" + "".join(f"{choices[_edge_name(source, target)]}~{source}|" for source in range(target))
        for target in range(1, 4)
    ]
    return "+".join(nodes)


def architecture_from_string(text: str) -> Architecture:
    """The architecture that the benchmark's own text describes; the inverse of `arch_string`.

    Raises:
        InvalidChoiceError: If the text has another form, or names an operation that is not of the benchmark.
    """
    found: list[tuple[str, str]] = re.findall(r"([^|~+]+)~([0-9]+)", text)
    expected = [str(source) for source, _ in EDGES]
    choices = tuple(
        (_edge_name(*edge), operation) for edge, (operation, _) in zip(EDGES, found, strict=False)
    )
    architecture = Architecture(NAME, choices)
    if [source for _, source in found] != expected or arch_string(architecture) != text:
        raise InvalidChoiceError(
            f"Expected an architecture as '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|' (got {text!r:.200})"
        )
    for operation, source in found:
        if operation not in OPERATIONS:
            raise InvalidChoiceError(
                f"'{NAME}' has no operation '{operation}' (in '{operation}~{source}'). Allowed: {', '.join(OPERATIONS)}"
            )
    return architecture


def _edge_name(source: int, target: int) -> str:
    return f"edge_{source}_{target}"


def _conv_norm(graph: GraphBuilder, x: int, channels: int, kernel: int, *, stride: int = 1) -> int:
    x = graph("conv2d", x, out_channels=channels, kernel_size=kernel, stride=stride, padding=kernel // 2)
    return graph("batch_norm", x)


def _residual_block(graph: GraphBuilder, x: int, channels: int) -> int:
    """Halve the image and widen it: two convolutions beside a pooled shortcut."""
    y = _conv_norm(graph, graph("relu", x), channels, 3, stride=2)
    y = _conv_norm(graph, graph("relu", y), channels, 3)
    shortcut = graph(
        "conv2d", graph("avg_pool2d", x, kernel_size=2, stride=2), out_channels=channels, kernel_size=1
    )
    return graph("add", shortcut, y)


def _cell(graph: GraphBuilder, x: int, operations: Sequence[str]) -> int:
    """The output of one cell that reads `x`. `operations` stand in the order of `EDGES`."""
    nodes: list[int | None] = [x]  # None is a node that is zero
    for target in range(1, 4):
        arriving: list[int] = []
        for operation, (source, its_target) in zip(operations, EDGES, strict=True):
            value = nodes[source] if its_target == target else None
            if operation != "none" and value is not None:
                arriving.append(_apply(graph, operation, value))
        nodes.append(_sum(graph, arriving))
    return graph("zero", x) if nodes[3] is None else nodes[3]


def _apply(graph: GraphBuilder, operation: str, x: int) -> int:
    if operation == "skip_connect":
        return x
    if operation == "avg_pool_3x3":
        return graph("avg_pool2d", x, kernel_size=3, stride=1, padding=1)
    return _conv_norm(graph, graph("relu", x), graph.shape(x)[0], 1 if operation == "nor_conv_1x1" else 3)


def _sum(graph: GraphBuilder, values: Sequence[int]) -> int | None:
    if not values:
        return None
    return values[0] if len(values) == 1 else graph("add", *values)
