"""A hierarchical space written as a grammar: blocks within blocks, of any form.

The macro level is a chain of stages, each a block that stands up to three times in a row, with a down-sampling between two.
A block is an operator or is composed of blocks, in sequence, in parallel with a merge, around a skip, or inside a routing that
changes what is looked at: half of the channels, the image at half its resolution, or its positions as tokens. In the spirit of
Schrodi et al., "Construction of Hierarchical Neural Architecture Search Spaces based on Context-free Grammars", 2023, whose
symbols carry a resolution, and of Ericsson et al., "einspace: Searching for Neural Architectures from Fundamental
Operations", 2024, whose modules are computations, sequences, branches with a merge, and routings. Departing from both,
convolutions come with a norm and an activation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2, prod

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace
from nasgraph.spaces.grammar import Derivation, Grammar, Rule

SMALLEST = 4
"""Smallest side of an image, and of a feature map that blocks work on."""
MOST_TOKENS = 256
"""Most positions between which attention may be."""
MOST_REPEATS = 3
"""How often the block of a stage may stand in a row."""
OPERATORS = ("conv1", "conv3", "conv5", "separable3", "separable5", "dilated3", "max3", "mean3", "skip")
NORMS = ("batch", "group", "none")
ACTIVATIONS = ("relu", "gelu", "silu", "hardswish")
DOWN = ("max", "mean", "conv", "wide")


class GrammarSpace(SearchSpace):
    """Convolutional networks and mixtures of convolutions and attention, derived from a grammar of nested blocks.

    Settled by the input shape: how often the image may be halved, until its shorter side is below eight; the last
    halving is a choice. From 48 on the stem halves, too. All else is derived.

    Args:
        input_shape: `(channels, height, width)`, with sides of at least four.
        num_classes: Length of the output.
        widths: Channels of the first stage, multiples of eight.
        block_depth: Most rules on a path within a block.
        max_expected: Most rules of a block in expectation, with uniform answers; lowers the depth, if need be.

    Raises:
        NasGraphError: If the input is no such image, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        widths: tuple[int, ...] = (8, 16, 24, 32),
        block_depth: int = 5,
        max_expected: float = 16.0,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        if len(self.input_shape) != 3 or min(self.input_shape[1:]) < SMALLEST:
            raise NasGraphError(
                f"The space 'grammar' expects images (channels, height, width) with sides of at least {SMALLEST} "
                f"(got shape {self.input_shape})"
            )
        if num_classes < 1 or block_depth < 1:
            raise NasGraphError(
                f"Expected 'num_classes' and 'block_depth' to be at least 1 (got {num_classes} and {block_depth})"
            )
        if not widths or any(width < 8 or width % 8 for width in widths):
            raise NasGraphError(f"Expected 'widths' to be multiples of eight (got {widths})")
        self._widths = widths
        self._stem_stride = 2 if min(self.input_shape[1:]) >= 48 else 1
        sides = [-(-side // self._stem_stride) for side in self.input_shape[1:]]
        halvings = int(log2(min(sides) / SMALLEST))
        self._network = Grammar(
            _network_rules(halvings), start=f"network{halvings}", max_depth=2 * halvings + 1
        )
        self._blocks = [
            Grammar(
                _block_rules(halvings, sides),
                start=f"block{halving}",
                max_depth=block_depth,
                max_expected=max_expected,
            )
            for halving in range(halvings + 1)
        ]

    @property
    def name(self) -> str:
        return "grammar"

    def build(self, choose: Chooser) -> ComputationalGraph:
        pen = _Pen(
            GraphBuilder(), choose.categorical("norm", NORMS), choose.categorical("activation", ACTIVATIONS)
        )
        x = pen.graph("input", shape=self.input_shape)
        x = pen.conv(x, choose.categorical("width", self._widths), 3, stride=self._stem_stride)
        stage, part = 0, self._network.derive(choose)
        while True:  # the macro level is a chain: a stage, a step down, what follows
            halvings = int(part.symbol.removeprefix("network"))
            repeats = choose.integer(f"stage{stage} repeats", 1, MOST_REPEATS)
            block = self._blocks[halvings].derive(choose, at=f"stage{stage}")
            for _ in range(repeats):  # with parameters of their own
                x = _write(pen, x, block)
            if not part.children:
                return pen.graph.finish(
                    pen.graph("linear", pen.graph("global_avg_pool2d", x), out_features=self.num_classes)
                )
            down = part.children[0]
            x = _down(pen, x, down.rule)
            stage, part = stage + 1, down.children[0]


def _network_rules(halvings: int) -> dict[str, list[Rule]]:
    """Stages, by how often the image may still be halved. The last halving may be left out."""
    rules = {"network0": [Rule("end")]}
    for left in range(1, halvings + 1):
        rules[f"network{left}"] = [
            Rule("go on", (("down", f"down{left}"),)),
            *([Rule("end")] if left == 1 else []),
        ]
        rules[f"down{left}"] = [Rule(kind, (("then", f"network{left - 1}"),)) for kind in DOWN]
    return rules


def _block_rules(halvings: int, sides: Sequence[int]) -> dict[str, list[Rule]]:
    """Blocks, by how often the image may still be halved; `half` blocks stand inside a split and are not split again."""
    rules: dict[str, list[Rule]] = {}
    for left in range(halvings + 1):
        tokens = f"tokens{left}"
        for kind in ("block", "half"):
            symbol = f"{kind}{left}"
            one, two = (("first", symbol),), (("first", symbol), ("second", symbol))
            rules[symbol] = [
                *map(Rule, OPERATORS),
                *(Rule(name, two) for name in ("sequence", "sum", "concat")),
                *(Rule(name, one) for name in ("residual", "gate")),
                *([Rule("lower", (("lower", f"{kind}{left - 1}"),))] if left else []),
                *([Rule("split", (("half", f"half{left}"),))] if kind == "block" else []),
                Rule("tokens", (("tokens", tokens),)),
            ]
        most = prod(ceil(side / 2 ** (halvings - left)) for side in sides)
        rules[tokens] = [
            *map(
                Rule,
                (
                    "linear",
                    "mlp",
                    "normalise",
                    *(("attention1", "attention2") if most <= MOST_TOKENS else ()),
                ),
            ),
            Rule("sequence", (("first", tokens), ("second", tokens))),
            Rule("residual", (("first", tokens),)),
        ]
    return rules


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes convolutions with the norm and the activation of the network."""

    graph: GraphBuilder
    norm: str
    activation: str

    def width(self, x: int) -> int:
        return self.graph.shape(x)[0]

    def conv(
        self, x: int, width: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> int:
        x = self.graph(
            "conv2d",
            x,
            out_channels=width,
            kernel_size=kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            bias=self.norm == "none",
        )
        if self.norm == "batch":
            x = self.graph("batch_norm", x)
        elif self.norm == "group":
            x = self.graph("group_norm", x, groups=4)
        return self.graph(self.activation, x)


def _down(pen: _Pen, x: int, kind: str) -> int:
    """Halve the image, and double the channels if it is 'wide'."""
    if kind in ("conv", "wide"):
        return pen.conv(x, pen.width(x) * (2 if kind == "wide" else 1), 3, stride=2)
    return pen.graph("max_pool2d" if kind == "max" else "avg_pool2d", x, kernel_size=2, stride=2)


def _write(pen: _Pen, x: int, block: Derivation) -> int:
    """A block, which keeps the shape of what it reads."""
    if block.rule in OPERATORS:
        return _operator(pen, x, block.rule)
    return _COMPOSITIONS[block.rule](pen, x, *block.children)


def _operator(pen: _Pen, x: int, name: str) -> int:
    if name == "skip":
        return x
    kind, kernel, width = name[:-1], int(name[-1]), pen.width(x)
    if kind in ("max", "mean"):
        op = "max_pool2d" if kind == "max" else "avg_pool2d"
        return pen.graph(op, x, kernel_size=kernel, stride=1, padding=kernel // 2)
    if kind == "separable":
        return pen.conv(pen.conv(x, width, kernel, groups=width), width, 1)
    return pen.conv(x, width, kernel, dilation=2 if kind == "dilated" else 1)


def _sequence(pen: _Pen, x: int, first: Derivation, second: Derivation) -> int:
    return _write(pen, _write(pen, x, first), second)


def _sum(pen: _Pen, x: int, first: Derivation, second: Derivation) -> int:
    return pen.graph("add", _write(pen, x, first), _write(pen, x, second))


def _concat(pen: _Pen, x: int, first: Derivation, second: Derivation) -> int:
    return pen.conv(pen.graph("concat", _write(pen, x, first), _write(pen, x, second)), pen.width(x), 1)


def _residual(pen: _Pen, x: int, first: Derivation) -> int:
    return pen.graph("add", x, _write(pen, x, first))


def _gate(pen: _Pen, x: int, first: Derivation) -> int:
    return pen.graph("mul", x, pen.graph("sigmoid", _write(pen, x, first)))


def _lower(pen: _Pen, x: int, lower: Derivation) -> int:
    """The block at half the resolution."""
    small = _write(pen, pen.graph("avg_pool2d", x, kernel_size=2, stride=2), lower)
    return pen.graph("upsample", small, size=pen.graph.shape(x)[1:])


def _split(pen: _Pen, x: int, half: Derivation) -> int:
    """The block on one half of the channels; the halves change places, so that the next split takes the other."""
    middle, width = pen.width(x) // 2, pen.width(x)
    changed = _write(pen, pen.graph("slice", x, axis=0, start=0, stop=middle), half)
    return pen.graph("concat", pen.graph("slice", x, axis=0, start=middle, stop=width), changed)


def _tokens(pen: _Pen, x: int, tokens: Derivation) -> int:
    """Positions as tokens, (positions, channels)."""
    shape = pen.graph.shape(x)
    flat = pen.graph("reshape", x, shape=(shape[0], prod(shape[1:])))
    y = _write_tokens(pen, pen.graph("permute", flat, order=(1, 0)), tokens)
    return pen.graph("reshape", pen.graph("permute", y, order=(1, 0)), shape=shape)


_COMPOSITIONS: Mapping[str, Callable[..., int]] = {
    "sequence": _sequence,
    "sum": _sum,
    "concat": _concat,
    "residual": _residual,
    "gate": _gate,
    "lower": _lower,
    "split": _split,
    "tokens": _tokens,
}


def _write_tokens(pen: _Pen, x: int, tokens: Derivation) -> int:
    """Layers over tokens, which keep the shape."""
    g, dim = pen.graph, pen.graph.shape(x)[-1]
    match tokens.rule:
        case "sequence":
            return _write_tokens(pen, _write_tokens(pen, x, tokens.children[0]), tokens.children[1])
        case "residual":
            return g("add", x, _write_tokens(pen, x, tokens.children[0]))
        case "linear":
            return g("linear", x, out_features=dim)
        case "mlp":
            hidden = g(pen.activation, g("linear", x, out_features=2 * dim))
            return g("linear", hidden, out_features=dim)
        case "normalise":
            return g("layer_norm", x)
        case _:
            query, key, value = (g("linear", x, out_features=dim) for _ in range(3))
            heads = int(tokens.rule.removeprefix("attention"))
            return g("linear", g("attention", query, key, value, num_heads=heads), out_features=dim)
