"""What can be varied in a graph: every choice with its options, and what stays fixed with the reason."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, lcm
from typing import TYPE_CHECKING

from nasgraph.ir import ComputationalGraph
from nasgraph.ir.op import MAX_SIZE, whole, wholes
from nasgraph.spaces.around_blocks import Block, BlockFinder, Run, common_path
from nasgraph.spaces.around_rules import SizeReader, made_by
from nasgraph.spaces.around_widths import FIXED, Axis
from nasgraph.spaces.space import Choice

if TYPE_CHECKING:
    from nasgraph.spaces.around import AroundConfig

ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "softplus", "tanh",
)  # fmt: skip
"""Activations that may stand for each other. Sigmoids are gates more often than activations."""
POOLS: Mapping[str, tuple[str, str]] = {
    "max_pool2d": ("max", "avg_pool2d"),
    "avg_pool2d": ("mean", "max_pool2d"),
    "adaptive_max_pool2d": ("max", "adaptive_avg_pool2d"),
    "adaptive_avg_pool2d": ("mean", "adaptive_max_pool2d"),
    "global_avg_pool2d": ("mean", "reduce_max"),
}
"""What each pooling takes of its windows, and the operator that takes the other."""
FEW_CHANNELS = 4
"""Convolutions of so few channels are not made depthwise-separable: the step in between would be too narrow."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One choice: its name, its options (a `range` for integers), and the original's answer."""

    name: str
    options: Sequence[Choice]
    original: Choice


@dataclass(frozen=True, slots=True)
class Width:
    """The choice of an unknown size: the answer is `factor` times its value, and a multiple of `step`."""

    offer: Offer
    factor: int
    step: int


@dataclass(frozen=True)
class Offers:
    """All that can be varied, by what it concerns.

    Attributes:
        graph: The original.
        reader: Sizes of axes in unknowns.
        axes: For every node the axes of its value, in unknowns that are free.
        widths: By unknown.
        kernels, kinds, activations, poolings: By node.
        runs: Rows of equal blocks.
        branches: Single blocks, by the node at which they end.
        fixed: What stays as it is, and why.
    """

    graph: ComputationalGraph
    reader: SizeReader
    axes: tuple[tuple[Axis, ...], ...]
    widths: dict[int, Width] = field(default_factory=dict)
    kernels: dict[int, Offer] = field(default_factory=dict)
    kinds: dict[int, Offer] = field(default_factory=dict)
    activations: dict[int, Offer] = field(default_factory=dict)
    poolings: dict[int, Offer] = field(default_factory=dict)
    runs: list[tuple[Offer, Run]] = field(default_factory=list)
    branches: dict[int, tuple[Offer, Block]] = field(default_factory=dict)
    fixed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def all(self) -> tuple[Offer, ...]:
        """Every choice once."""
        found = [
            *(offer for offer, _ in self.runs),
            *(offer for offer, _ in self.branches.values()),
            *(width.offer for width in self.widths.values()),
            *self.kernels.values(),
            *self.kinds.values(),
            *self.activations.values(),
            *self.poolings.values(),
        ]
        return tuple({offer.name: offer for offer in found}.values())


def node_names(graph: ComputationalGraph, given: Sequence[str] | None) -> tuple[str, ...]:
    """Different names for all nodes: the given ones; else the operator with a number, or after the node that it follows."""
    counts: dict[str, int] = {}
    used: set[str] = set()
    order: list[str] = []
    for index, node in enumerate(graph.nodes):
        if given is not None and given[index]:
            name = given[index]
        elif given is not None and node.inputs:
            name = f"{_anchor(order[max(node.inputs)])} {node.op}"
        else:
            count = counts.get(node.op, 0)
            counts[node.op] = count + 1
            name = f"{node.op}{count}" if given is None else f"{node.op} {count}"
        while name in used:
            stem, _, number = name.rpartition(" #")
            name = f"{stem} #{int(number) + 1}" if stem and number.isdecimal() else f"{name} #2"
        used.add(name)
        order.append(name)
    return tuple(order)


def find_offers(graph: ComputationalGraph, names: Sequence[str], config: "AroundConfig") -> Offers:
    """Look for everything that `config` wants varied."""
    finder = BlockFinder(graph, names)
    runs = finder.runs() if "depth" in config.families else ()
    reader = SizeReader(graph, names)
    reader.read()
    for run in runs:  # so that any number of blocks fits
        for block in run.blocks:
            for one, two in zip(reader.axes[block.entry], reader.axes[block.exit], strict=True):
                reader.widths.equate(one, two, f"it goes through the blocks of '{_run_path(run, names)}'")
    axes = tuple(tuple(map(reader.widths.resolve, axes)) for axes in reader.axes)
    search = _Search(Offers(graph, reader, axes), names, config, used=set())
    search.depths(runs)
    if "branch" in config.families:
        search.branches(finder.branches(runs))
    if "width" in config.families:
        search.widths()
    for index in range(len(graph)):
        search.operators(index)
    return search.offers


@dataclass
class _Search:
    offers: Offers
    names: Sequence[str]
    config: "AroundConfig"
    used: set[str]

    @property
    def graph(self) -> ComputationalGraph:
        return self.offers.graph

    def _name(self, *wanted: str) -> str:
        """The first of the names that is free; the last one with a number, if none is."""
        name, number = next((w for w in wanted if w not in self.used), wanted[-1]), 2
        while name in self.used:
            name, number = f"{wanted[-1]} #{number}", number + 1
        self.used.add(name)
        return name

    def _fix(self, what: str, reason: str) -> None:
        self.offers.fixed.append((what, reason))

    # ---- blocks

    def depths(self, runs: Sequence[Run]) -> None:
        for run in runs:
            count = len(run.blocks)
            most = max(count + 1, int(count * self.config.repeat)) if run.is_repeatable else count
            first = _path(run.blocks[0], self.names)
            name = self._name(f"{_run_path(run, self.names)} depth", f"{first} depth")
            self.offers.runs.append((Offer(name, range(1, most + 1), count), run))

    def branches(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            name = self._name(f"{_path(block, self.names)} kept")
            self.offers.branches[block.exit] = (Offer(name, (True, False), True), block)

    # ---- widths

    def widths(self) -> None:
        """Name every unknown after the first layer that makes it alone, or else as a part of what a layer makes."""
        makers = [
            (index, axis)
            for index, axis in self._made()
            if index not in self.offers.reader.followers or not self._free(axis)
        ]
        for index, axis in makers:
            free = self._free(axis)
            if len(free) == 1 and all(unknown in free for _, unknown in axis):
                factor = sum(f for f, _ in axis)
                self._width(free[0], f"{self.names[index]} width", factor)
        for index, axis in makers:
            free = self._free(axis)
            missing = [unknown for unknown in free if unknown not in self.offers.widths]
            for unknown in missing:
                part = free.index(unknown) + 1
                self._width(unknown, f"{self.names[index]} width{f' {part}' if len(free) > 1 else ''}", 1)
            if not free:
                self._fix(f"{self.names[index]} width", self._reason(index, axis))

    def _made(self) -> Iterator[tuple[int, Axis]]:
        for index, node in enumerate(self.graph.nodes):
            if made_by(node) is not None:
                axes = self.offers.axes[index]
                yield index, axes[0] if node.op.startswith("conv") else axes[-1]

    def _free(self, axis: Axis) -> list[int]:
        reasons = self.offers.reader.widths.reasons
        return list(dict.fromkeys(u for _, u in axis if u != FIXED and u not in reasons))

    def _reason(self, index: int, axis: Axis) -> str:
        if index in self.offers.reader.followers:
            return "it has as many channels as it reads, and these stay"
        reasons = self.offers.reader.widths.reasons
        found = [reasons[unknown] for _, unknown in axis if unknown in reasons]
        return found[0] if found else "a part of it cannot be divided"

    def _width(self, unknown: int, name: str, factor: int) -> None:
        if unknown in self.offers.widths:
            return
        widths = self.offers.reader.widths
        size, step = widths.sizes[unknown], widths.divisors[unknown]
        coarse = lcm(step, self.config.multiple_of // gcd(self.config.multiple_of, factor))
        sizes = {size}
        for wanted in self.config.width_factors:
            sizes.add(min(max(1, round(size * wanted / coarse)) * coarse, MAX_SIZE // factor // step * step))
        if len(sizes) == 1:
            self._fix(name, "no other width fits")
            widths.reasons[unknown] = "no other width fits"
            return
        options = tuple(factor * size for size in sorted(sizes))
        self.offers.widths[unknown] = Width(
            Offer(self._name(name), options, factor * size), factor, factor * step
        )

    # ---- operators

    def operators(self, index: int) -> None:
        """Choices of one node."""
        op, families = self.graph.nodes[index].op, self.config.families
        if op.startswith("conv"):
            if "kernel" in families:
                self._kernel(index)
            if "kind" in families:
                self._kind(index)
        elif op in ACTIVATIONS and "activation" in families:
            self._activation(index)
        elif op in POOLS and "pooling" in families:
            self._pooling(index)

    def _kernel(self, index: int) -> None:
        attrs = dict(self.graph.nodes[index].attrs)
        kernel, stride = wholes(attrs, "kernel_size"), wholes(attrs, "stride")
        what = f"{self.names[index]} kernel"
        sizes = {size for size in kernel if size > 1} or {1}
        if len(sizes) > 1:
            self._fix(what, f"it is {' x '.join(map(str, kernel))}")
            return
        size = sizes.pop()
        if size == max(stride) > 1:
            self._fix(what, "it divides its input into patches")
            return
        options = {size, *(other for other in self.config.kernel_sizes if self._fits(index, size, other))}
        if len(options) == 1:
            self._fix(what, "no other size keeps the shape")
            return
        self.offers.kernels[index] = Offer(self._name(what), tuple(sorted(options)), size)

    def _fits(self, index: int, size: int, other: int) -> bool:
        """Whether a kernel of another size can keep the shape, and all of it meets data."""
        if (other - size) % 2:
            return False
        attrs = dict(self.graph.nodes[index].attrs)
        space = self.graph.input_shapes(index)[0][1:]
        axes = changed_axes(wholes(attrs, "kernel_size"))
        padding, dilation = wholes(attrs, "padding"), wholes(attrs, "dilation")
        return all(
            0 <= padding[axis] + dilation[axis] * (other - size) // 2 <= 1024
            and dilation[axis] * (other - 1) + 1 <= 2 * space[axis] - 1
            for axis in axes
        )

    def _kind(self, index: int) -> None:
        node = self.graph.nodes[index]
        attrs = dict(node.attrs)
        if node.op != "conv2d" or max(wholes(attrs, "kernel_size")) == 1:
            return
        name, channels = f"{self.names[index]} kind", self.graph.input_shapes(index)[0][0]
        if index in self.offers.reader.followers:
            self.offers.kinds[index] = Offer(self._name(name), ("depthwise", "dense"), "depthwise")
        elif whole(attrs, "groups") == 1 and channels > FEW_CHANNELS:
            self.offers.kinds[index] = Offer(self._name(name), ("dense", "separable"), "dense")

    def _activation(self, index: int) -> None:
        node = self.graph.nodes[index]
        if index in self.graph.outputs:
            self._fix(self.names[index], "it is an output of the network")
            return
        if self.config.shared_activation:
            for other, offer in self.offers.activations.items():
                if (self.graph.nodes[other].op, self.graph.nodes[other].attrs) == (node.op, node.attrs):
                    self.offers.activations[index] = offer
                    return
            name = self._name(f"activation {node.op}")
        else:
            name = self._name(f"{_anchor(self.names[index])} activation")
        options = (node.op, *(other for other in self.config.activations if other != node.op))
        if len(options) > 1:
            self.offers.activations[index] = Offer(name, options, node.op)

    def _pooling(self, index: int) -> None:
        node = self.graph.nodes[index]
        if max(wholes(dict(node.attrs), "dilation") if node.op == "max_pool2d" else (1,)) > 1:
            self._fix(f"{self.names[index]} pooling", "its windows are dilated")
            return
        name = self._name(f"{_anchor(self.names[index])} pooling")
        self.offers.poolings[index] = Offer(name, ("max", "mean"), POOLS[node.op][0])


def changed_axes(kernel: Sequence[int]) -> list[int]:
    """Axes of space over which a kernel changes its size: those where it is longer than one, or all."""
    return [axis for axis, size in enumerate(kernel) if size > 1 or max(kernel) == 1]


def _anchor(name: str) -> str:
    """`bn1` of `bn1 relu`."""
    return name.partition(" ")[0]


def _path(block: Block, names: Sequence[str]) -> str:
    inner = [names[node] for node in block.nodes]
    return _common(inner) or next((name for name in inner if " " not in name), inner[0])


def _run_path(run: Run, names: Sequence[str]) -> str:
    every = (names[node] for block in run.blocks for node in block.nodes)
    return _common(every) or _path(run.blocks[0], names)


def _common(names: Iterator[str] | Sequence[str]) -> str:
    """The path that names of nodes have in common, by whole words between points. Those of nodes without any do not count."""
    given = list(names)
    own = [name for name in given if " " not in name]
    return ".".join(common_path([_anchor(name) for name in own or given]))
