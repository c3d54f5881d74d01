"""Cells of two kinds, stacked: the spaces of DARTS and of NASNet.

Liu et al., "DARTS: Differentiable Architecture Search", 2019; Zoph et al., "Learning Transferable Architectures for
Scalable Image Recognition", 2018. A cell reads the outputs of the two cells before it (states 0 and 1). Each of its
nodes adds two operations on earlier states; the nodes are concatenated. A reduction cell halves the image: its operations
on states 0 and 1 have stride two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, permutations

from nasgraph.errors import InvalidChoiceError, NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Architecture, Choice, Chooser, SearchSpace

OPERATIONS = (
    *("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3"),
    "dil_conv_5x5",
)
"""The eight operations of DARTS, in the order of the paper's code."""
NASNET_OPERATIONS = (
    *("skip_connect", "conv_1x3_3x1", "conv_1x7_7x1", "dil_conv_3x3", "avg_pool_3x3", "max_pool_3x3", "max_pool_5x5"),
    *("max_pool_7x7", "conv_1x1", "conv_3x3", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7"),
)  # fmt: skip
"""The thirteen operations of NASNet."""
KINDS = ("normal", "reduction")
SMALLEST, LARGEST, LARGE = 8, 1024, 96

Edge = tuple[int, str]
"""State that is read, and operation on it."""
Cell = tuple[tuple[Edge, ...], ...]
"""The edges of each node. A node without edges is zero."""

DARTS_V2: Mapping[str, Cell] = {
    "normal": (
        ((0, "sep_conv_3x3"), (1, "sep_conv_3x3")),
        ((0, "sep_conv_3x3"), (1, "sep_conv_3x3")),
        ((0, "skip_connect"), (1, "sep_conv_3x3")),
        ((0, "skip_connect"), (2, "dil_conv_3x3")),
    ),
    "reduction": (
        ((0, "max_pool_3x3"), (1, "max_pool_3x3")),
        ((1, "max_pool_3x3"), (2, "skip_connect")),
        ((0, "max_pool_3x3"), (2, "skip_connect")),
        ((1, "max_pool_3x3"), (2, "skip_connect")),
    ),
}
"""The cells that second-order DARTS found on CIFAR-10 (Liu et al. 2019, figures 4 and 5)."""


class DARTS(SearchSpace):
    """Networks of DARTS: 8 operations, 4 nodes per cell, two different inputs per node, all nodes concatenated.

    From sides of 96 on, the stem divides the image by eight before the second cell input, as the paper has it for ImageNet;
    otherwise it is one convolution. The reduction cells stand at one and two thirds of the depth and double the
    channels. Nodes are put into a canonical order before the graph is written, so that cells that differ in
    the numbering of their nodes only have one fingerprint. What reads only zeros ("none") is left out of the graph.

    Args:
        input_shape: `(channels, height, width)` with sides of 8 to 1,024.
        num_classes: Length of the output.
        channels: Channels of the first cells; 36 in the paper for CIFAR-10, 48 for ImageNet. Even.
        num_cells: Cells in all; 20 in the paper for CIFAR-10, 14 for ImageNet. If not given 8 (as in the paper's search)
            from sides of 32 on, otherwise 5.
        drop_path: Chance at the end of training with which the value of an edge that is no identity is dropped
            (ScheduledDropPath of Zoph et al. 2018; 0.2 in the paper). At 0 no such nodes are written.
        operations: The operations that may be chosen, in this order; without "none" as in NAS-Bench-301, say.

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
        drop_path: float = 0.0,
        operations: tuple[str, ...] = OPERATIONS,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        self._skeleton = _skeleton("darts", self, channels, num_cells, drop_path, concat_all=True)
        self._operations = _checked_operations(operations)

    @property
    def name(self) -> str:
        return "darts"

    def build(self, choose: Chooser) -> ComputationalGraph:
        cells = [_ask_cell(choose, kind, self._operations, num_nodes=4, may_repeat=False) for kind in KINDS]
        return self._skeleton.network(*cells)


class NASNet(SearchSpace):
    """Networks of NASNet: 13 operations, 5 nodes per cell, any two inputs per node, unread nodes concatenated.

    The skeleton, the inputs of a cell and their projections are those of DARTS, which follow NASNet's.

    Args:
        input_shape: `(channels, height, width)` with sides of 8 to 1,024.
        num_classes: Length of the output.
        channels: Channels of the first cells. Even.
        num_cells: Cells in all; 8 from sides of 32 on and 5 otherwise, if not given.
        drop_path: As for `DARTS`.

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
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        self._skeleton = _skeleton("nasnet", self, channels, num_cells, drop_path, concat_all=False)

    @property
    def name(self) -> str:
        return "nasnet"

    def build(self, choose: Chooser) -> ComputationalGraph:
        cells = [_ask_cell(choose, kind, NASNET_OPERATIONS, num_nodes=5, may_repeat=True) for kind in KINDS]
        return self._skeleton.network(*cells)


def architecture_of_cells(cells: Mapping[str, Cell]) -> Architecture:
    """The architecture of `darts` with these cells, by kind, such as `DARTS_V2`.

    Raises:
        InvalidChoiceError: If a node does not have two edges from different states. Names of operations and states
            are checked when the architecture is replayed.
    """
    choices: list[tuple[str, Choice]] = []
    for kind in KINDS:
        for place, edges in enumerate(cells[kind]):
            if len(edges) != 2 or edges[0][0] == edges[1][0]:
                raise InvalidChoiceError(
                    f"Expected node {place} of the {kind} cell to read two different states (got {edges})"
                )
            (left, left_operation), (right, right_operation) = sorted(edges)
            if place > 0:
                choices.append((f"{kind}_node{place}_inputs", f"{left},{right}"))
            choices.append((f"{kind}_node{place}_left", left_operation))
            choices.append((f"{kind}_node{place}_right", right_operation))
    return Architecture("darts", tuple(choices))


# ---- questions


def _ask_cell(
    choose: Chooser, kind: str, operations: Sequence[str], *, num_nodes: int, may_repeat: bool
) -> Cell:
    nodes = []
    for place in range(num_nodes):
        at = f"{kind}_node{place}"
        pick = combinations_with_replacement if may_repeat else combinations
        pairs = [f"{left},{right}" for left, right in pick(range(place + 2), 2)]
        pair = choose.categorical(f"{at}_inputs", pairs) if len(pairs) > 1 else pairs[0]
        left, right = (int(state) for state in pair.split(","))
        nodes.append(
            (
                (left, choose.categorical(f"{at}_left", operations)),
                (right, choose.categorical(f"{at}_right", operations)),
            )
        )
    return canonical_cell(tuple(nodes))


def canonical_cell(cell: Cell) -> Cell:
    """The same cell for all numberings of its nodes, without edges that carry zeros.

    The least of all numberings in which every node reads earlier states. Exact for any cell; the time grows with the
    factorial of the number of nodes, of which there are at most five here.
    """
    alive: list[tuple[Edge, ...]] = []
    for edges in cell:
        kept = [edge for edge in edges if edge[1] != "none" and (edge[0] < 2 or alive[edge[0] - 2])]
        alive.append(tuple(sorted(kept)))
    best: Cell | None = None
    for order in permutations(range(len(alive))):
        state = {0: 0, 1: 1} | {old + 2: new + 2 for new, old in enumerate(order)}
        if any(state[source] >= state[old + 2] for old, edges in enumerate(alive) for source, _ in edges):
            continue
        cell = tuple(tuple(sorted((state[source], name) for source, name in alive[old])) for old in order)
        if best is None or cell < best:
            best = cell
    assert best is not None  # the given numbering is one
    return best


# ---- the network


def _skeleton(
    name: str,
    space: SearchSpace,
    channels: int,
    num_cells: int | None,
    drop_path: float,
    *,
    concat_all: bool,
) -> "_Skeleton":
    shape = space.input_shape
    if len(shape) != 3 or shape[0] < 1 or not all(SMALLEST <= side <= LARGEST for side in shape[1:]):
        raise NasGraphError(
            f"The space '{name}' expects images (channels, height, width) with sides of {SMALLEST} to {LARGEST:,} "
            f"(got shape {shape})"
        )
    if num_cells is None:
        num_cells = 8 if min(shape[1:]) >= 32 else 5
    if space.num_classes < 1 or not 1 <= num_cells <= 100:
        raise NasGraphError(
            "Expected 'num_classes' to be at least 1 and 'num_cells' 1 to 100 "
            f"(got {space.num_classes} and {num_cells})"
        )
    if channels < 2 or channels % 2:
        raise NasGraphError(f"Expected 'channels' to be even and at least 2 (got {channels})")
    if not 0 <= drop_path < 1:
        raise NasGraphError(f"Expected 'drop_path' in [0, 1) (got {drop_path})")
    return _Skeleton(shape, space.num_classes, channels, num_cells, drop_path, concat_all)


def _checked_operations(operations: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(operations) - set(OPERATIONS))
    if unknown or not operations or len(set(operations)) != len(operations):
        raise NasGraphError(
            f"Expected 'operations' to be different ones of {', '.join(OPERATIONS)} (got {operations})"
        )
    return operations


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """What all networks of a space have in common."""

    input_shape: tuple[int, ...]
    num_classes: int
    channels: int
    num_cells: int
    drop_path: float
    concat_all: bool

    def network(self, normal: Cell, reduction: Cell) -> ComputationalGraph:
        pen = _Pen(GraphBuilder(), self.drop_path)
        before_last, last = self._stem(pen, pen.graph("input", shape=self.input_shape))
        channels = self.channels
        for place in range(self.num_cells):
            reduces = place in (self.num_cells // 3, 2 * self.num_cells // 3)
            channels *= 1 + reduces
            states = pen.states(before_last, last, channels)
            cell = reduction if reduces else normal
            before_last, last = last, self._cell(pen, cell, states, 2 if reduces else 1)
        features = pen.graph("global_avg_pool2d", last)
        return pen.graph.finish(pen.graph("linear", features, out_features=self.num_classes))

    def _stem(self, pen: "_Pen", image: int) -> tuple[int, int]:
        if min(self.input_shape[1:]) < LARGE:
            x = pen.norm(pen.conv(image, 3 * self.channels, 3))
            return x, x
        half = pen.norm(pen.conv(image, self.channels // 2, 3, stride=2))
        first = pen.norm(pen.conv(pen.graph("relu", half), self.channels, 3, stride=2))
        return first, pen.norm(pen.conv(pen.graph("relu", first), self.channels, 3, stride=2))

    def _cell(self, pen: "_Pen", cell: Cell, inputs: tuple[int, int], stride: int) -> int:
        states: list[int | None] = [*inputs]
        for edges in cell:
            values = []
            for source, operation in edges:
                value = states[source]
                assert value is not None  # the canonical form reads no zeros
                values.append(pen.edge(operation, value, stride if source < 2 else 1))
            states.append(
                None if not values else values[0] if len(values) == 1 else pen.graph("add", *values)
            )
        read = {source for edges in cell for source, _ in edges}
        joined = [
            value
            for place, value in enumerate(states)
            if place > 1 and (self.concat_all or place not in read)
        ]
        return pen.concat(joined, inputs[1], stride)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes convolutions with batch norms and the operations of the cells."""

    graph: GraphBuilder
    drop_path: float

    def conv(
        self,
        x: int,
        channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> int:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        return self.graph(
            "conv2d",
            x,
            out_channels=channels,
            kernel_size=(height, width),
            stride=stride,
            padding=(dilation * (height // 2), dilation * (width // 2)),
            dilation=dilation,
            groups=groups,
            bias=False,
        )

    def norm(self, x: int) -> int:
        return self.graph("batch_norm", x)

    def project(self, x: int, channels: int) -> int:
        """ReLU, convolution 1x1, batch norm."""
        return self.norm(self.conv(self.graph("relu", x), channels, 1))

    def halve(self, x: int, channels: int) -> int:
        """Factorised reduction: two convolutions 1x1 of stride two, the second one pixel further on (Zoph et al. 2018)."""
        x = self.graph("relu", x)
        _, height, width = self.graph.shape(x)
        shifted = x
        if height % 2 or width % 2:
            shifted = self.graph("pad", x, amounts=(0, 0, 0, height % 2, 0, width % 2))
        for axis in (1, 2):
            stop = self.graph.shape(shifted)[axis]
            shifted = self.graph("slice", shifted, axis=axis, start=1, stop=stop)
        parts = (self.conv(each, channels // 2, 1, stride=2) for each in (x, shifted))
        return self.norm(self.graph("concat", *parts))

    def states(self, before_last: int, last: int, channels: int) -> tuple[int, int]:
        """The two inputs of a cell with its channels, and both of the size of the later one."""
        same_size = self.graph.shape(before_last)[1:] == self.graph.shape(last)[1:]
        first = (self.project if same_size else self.halve)(before_last, channels)
        return first, self.project(last, channels)

    def concat(self, states: Sequence[int | None], like: int, stride: int) -> int:
        """The states side by side; None stands for zeros."""
        if None in states:
            sample = next((state for state in states if state is not None), None)
            if sample is None:
                sample = like if stride == 1 else self._pool("max", like, 3, stride)
            zero = self.graph("zero", sample)
            states = [zero if state is None else state for state in states]
        known = [state for state in states if state is not None]
        return self.graph("concat", *known) if len(known) > 1 else known[0]

    def edge(self, operation: str, x: int, stride: int) -> int:
        """An operation, and drop path unless it is the identity."""
        value = self._apply(operation, x, stride)
        if value == x or self.drop_path == 0:
            return value
        return self.graph("drop_path", value, p=self.drop_path, scheduled=True)

    def _apply(self, operation: str, x: int, stride: int) -> int:
        channels = self.graph.shape(x)[0]
        if operation == "skip_connect":
            return x if stride == 1 else self.halve(x, channels)
        family, _, sizes = operation.partition("_")
        kernel = int(operation[-1])
        match family:
            case "max" | "avg":
                return self._pool(family, x, kernel, stride)
            case "sep":
                return self._depthwise(self._depthwise(x, kernel, stride=stride), kernel)
            case "dil":
                return self._depthwise(x, kernel, stride=stride, dilation=2)
            case _ if sizes in ("1x3_3x1", "1x7_7x1"):
                long = int(sizes[2])
                y = self.norm(self.conv(self.graph("relu", x), channels, (1, long), stride=stride))
                return self.norm(self.conv(self.graph("relu", y), channels, (long, 1)))
            case _:
                return self.norm(self.conv(self.graph("relu", x), channels, kernel, stride=stride))

    def _pool(self, kind: str, x: int, kernel: int, stride: int) -> int:
        """Padding does not count in a mean."""
        return self.graph(f"{kind}_pool2d", x, kernel_size=kernel, stride=stride, padding=kernel // 2)

    def _depthwise(self, x: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> int:
        """ReLU, depthwise convolution, convolution 1x1, batch norm."""
        channels = self.graph.shape(x)[0]
        x = self.conv(
            self.graph("relu", x), channels, kernel, stride=stride, dilation=dilation, groups=channels
        )
        return self.norm(self.conv(x, channels, 1))
