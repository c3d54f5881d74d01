"""Writes a variant of a graph, asking for every choice that its nodes need."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nasgraph.errors import InvalidChoiceError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.ir.op import Attrs, Scalar, Shape, whole, wholes
from nasgraph.spaces.around_blocks import Block, Run
from nasgraph.spaces.around_offers import POOLS, Offer, Offers, changed_axes
from nasgraph.spaces.around_rules import made_by
from nasgraph.spaces.around_widths import Axis, length
from nasgraph.spaces.space import Choice, Chooser


def write_variant(offers: Offers, choose: Chooser) -> ComputationalGraph:
    """The variant that a chooser wants. Asks for nothing that the variant has no use for."""
    writer = _Writer(offers, choose)
    writer.decide_blocks()
    writer.write()
    return writer.builder.finish(*(writer.place[writer.source(output)] for output in offers.graph.outputs))


@dataclass
class _Writer:
    offers: Offers
    choose: Chooser
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    answers: dict[str, Choice] = field(default_factory=dict)
    skipped: dict[int, int] = field(
        default_factory=dict
    )  # ends of blocks that are left out, and where they began
    copies: dict[int, tuple[Block, int]] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)
    place: dict[int, int] = field(default_factory=dict)

    def ask_known(self, offer: Offer) -> Choice:
        """The answer to a choice whose options have a meaning each. Raises `InvalidChoiceError` if it has none."""
        if (answer := self.ask(offer)) not in offer.options:
            raise InvalidChoiceError(f"The choice '{offer.name}' cannot be {answer!r}")
        return answer

    def ask(self, offer: Offer) -> Choice:
        """The answer to a choice, asked for once."""
        if offer.name not in self.answers:
            options = offer.options
            if isinstance(options, range):
                self.answers[offer.name] = self.choose.integer(offer.name, options[0], options[-1])
            else:
                self.answers[offer.name] = self.choose.categorical(offer.name, options)
        return self.answers[offer.name]

    # ---- which nodes there are

    def decide_blocks(self) -> None:
        """Ask, from the outputs on, for depths and for the single blocks that are left."""
        nodes = self.offers.graph.nodes
        runs = {run.blocks[-1].exit: (offer, run) for offer, run in self.offers.runs}
        self.live.update(self.offers.graph.outputs)
        self.live.update(self.offers.graph.inputs)
        for index in reversed(range(len(nodes))):
            if index not in self.live:
                continue
            if index in runs:
                self._decide_depth(*runs[index])
            branch = self.offers.branches.get(index)
            if branch is not None and not self.ask_known(branch[0]):
                self.skipped[index] = branch[1].entry
            self.live.update((self.skipped[index],) if index in self.skipped else nodes[index].inputs)

    def _decide_depth(self, offer: Offer, run: Run) -> None:
        depth, blocks = int(self.ask(offer)), run.blocks
        if depth < 1 or (depth > len(blocks) and not run.is_repeatable):
            raise InvalidChoiceError(f"The choice '{offer.name}' cannot be {depth}")
        for block in blocks[depth:]:
            self.skipped[block.exit] = block.entry
        if depth > len(blocks):
            self.copies[blocks[-1].exit] = (blocks[-1], depth - len(blocks))

    def source(self, index: int) -> int:
        """The node that stands for this one, where blocks are left out."""
        while index in self.skipped:
            index = self.skipped[index]
        return index

    # ---- the nodes themselves

    def write(self) -> None:
        for index in range(len(self.offers.graph)):
            if index not in self.live or index in self.skipped:
                continue
            self.place[index] = self._node(index, self.place)
            if index in self.copies:
                self._copy(*self.copies[index])

    def _copy(self, block: Block, times: int) -> None:
        """Write a block again, with parameters of its own."""
        for _ in range(times):
            inner = {**self.place, block.entry: self.place[block.exit]}
            for index in block.nodes:
                if index in self.live and index not in self.skipped:
                    inner[index] = self._node(index, inner)
            self.place[block.exit] = inner[block.exit]

    def _node(self, index: int, place: Mapping[int, int]) -> int:
        node = self.offers.graph.nodes[index]
        inputs = [place[self.source(source)] for source in node.inputs]
        attrs = dict(self._resized(index))
        op: str = node.op
        if index in self.offers.activations:
            wanted = str(self.ask(self.offers.activations[index]))
            op, attrs = (op, attrs) if wanted == op else (wanted, {})
        elif index in self.offers.poolings:
            op, attrs = self._pooling(index, attrs)
        if index in self.offers.kernels:
            self._set_kernel(attrs, self.offers.kernels[index])
        if index in self.offers.kinds:
            kind = self.ask_known(self.offers.kinds[index])
            if kind == "separable":
                return self._separable(inputs[0], attrs)
            if kind == "dense":
                attrs["groups"] = 1
        return self.builder(op, *inputs, **attrs)

    def _separable(self, source: int, attrs: Attrs) -> int:
        """A depthwise and a pointwise convolution in place of a dense one (Howard et al. 2017, "MobileNets")."""
        channels = self.builder.shape(source)[0]
        window = {name: attrs[name] for name in ("kernel_size", "stride", "padding", "dilation")}
        depthwise = self.builder("conv2d", source, out_channels=channels, groups=channels, **window)
        return self.builder(
            "conv2d", depthwise, out_channels=attrs["out_channels"], kernel_size=1, bias=attrs["bias"]
        )

    def _set_kernel(self, attrs: dict[str, Scalar], offer: Offer) -> None:
        size = int(self.ask(offer))
        if (size - int(offer.original)) % 2:
            raise InvalidChoiceError(f"A kernel of {size} in '{offer.name}' cannot keep the shape")
        kernel, padding, dilation = (
            list(wholes(attrs, name)) for name in ("kernel_size", "padding", "dilation")
        )
        for axis in changed_axes(kernel):
            padding[axis] += dilation[axis] * (size - kernel[axis]) // 2
            kernel[axis] = size
        attrs.update(kernel_size=tuple(kernel), padding=tuple(padding))

    def _pooling(self, index: int, attrs: dict[str, Scalar]) -> tuple[str, dict[str, Scalar]]:
        op = self.offers.graph.nodes[index].op
        own, other = POOLS[op]
        if self.ask_known(self.offers.poolings[index]) == own:
            return op, attrs
        if other == "reduce_max":
            return other, {"axes": (1, 2)}
        return other, {
            name: value for name, value in attrs.items() if name not in ("dilation", "count_include_pad")
        }

    # ---- sizes

    def _value(self, unknown: int) -> int:
        width = self.offers.widths.get(unknown)
        if width is None:
            return self.offers.reader.widths.sizes[unknown]
        answer = int(self.ask(width.offer))
        if answer < 1 or answer % width.step:
            raise InvalidChoiceError(
                f"Expected '{width.offer.name}' to be a multiple of {width.step} (got {answer})"
            )
        return answer // width.factor

    def _length(self, axis: Axis) -> int:
        return length(self.offers.reader.widths.resolve(axis), self._value)

    def _resized(self, index: int) -> dict[str, Scalar]:
        """The attributes of a node for the widths chosen."""
        offers, node = self.offers, self.offers.graph.nodes[index]
        attrs: dict[str, Scalar] = dict(node.attrs)
        axes, reader = offers.axes[index], offers.reader
        if (made := made_by(node)) is not None:
            attrs[made] = self._length(axes[0] if node.op.startswith("conv") else axes[-1])
        if index in reader.followers:
            attrs["groups"] = self._length(offers.axes[node.inputs[0]][0])
        if node.op in ("reshape", "expand", "parameter"):
            shape = tuple(map(self._length, axes))
            attrs["shape"] = shape
            if node.op == "parameter":
                attrs["fan_in"] = self._fan_in(index, shape)
        if index in reader.cuts:
            attrs["start"], attrs["stop"] = map(self._length, reader.cuts[index])
        if index in reader.scales:
            before, after = reader.widths.size(reader.scales[index]), self._length(reader.scales[index])
            if before != after:
                attrs["scale"] = float(str(attrs["scale"])) * (before / after) ** 0.5
        return attrs

    def _fan_in(self, index: int, shape: Shape) -> int:
        """What a free weight sums over: the axis that had this size."""
        before, fan_in = (
            self.offers.graph.shapes[index],
            whole(dict(self.offers.graph.nodes[index].attrs), "fan_in"),
        )
        return next((shape[axis] for axis in reversed(range(len(shape))) if before[axis] == fan_in), fan_in)
