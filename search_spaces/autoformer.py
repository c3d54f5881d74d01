"""Vision transformers whose layers differ (Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", 2021).

The width of a token and the depth are choices of the network; the number of heads and the ratio of the perceptron are
choices of each layer. To make such networks larger step by step (Chen et al., "Auto-scaling Vision Transformers without
Training", 2022), see `nasgraph.spaces.scaling.enlarge`.
"""

from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

LARGE = 96
SMALLEST, LARGEST = 4, 1024
FEWEST_TOKENS, USUAL_TOKENS, MOST_TOKENS = 4, 64, 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What the choices of a space are made from.

    Attributes:
        dims: Widths of a token.
        mlp_ratios: Factors from that width to the hidden width of the perceptron.
        heads: Numbers of heads in a layer.
        depths: Numbers of layers.
        head_dim: Width of a head; so queries, keys and values have `heads * head_dim`.
    """

    dims: tuple[int, ...]
    mlp_ratios: tuple[float, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int = 64

    def __post_init__(self) -> None:
        for name in ("dims", "mlp_ratios", "heads", "depths"):
            options = getattr(self, name)
            if not options or min(options) <= 0 or len(set(options)) != len(options):
                raise NasGraphError(f"Expected '{name}' above 0 and without repeats (got {options})")
        if max(self.depths) > 200 or max(self.heads) > 256 or self.head_dim < 1:
            raise NasGraphError(
                "Expected at most 200 layers and 256 heads, and a head of at least 1 "
                f"(got {max(self.depths)}, {max(self.heads)} and {self.head_dim})"
            )


SIZES = {
    "micro": Options((32, 48, 64), (2.0, 3.0, 4.0), (1, 2, 3, 4), (2, 3, 4, 5, 6), head_dim=16),
    "tiny": Options((192, 216, 240), (3.5, 4.0), (3, 4), (12, 13, 14)),
    "small": Options((320, 384, 448), (3.0, 3.5, 4.0), (5, 6, 7), (12, 13, 14)),
    "base": Options((528, 576, 624), (3.0, 3.5, 4.0), (8, 9, 10), (14, 15, 16)),
}
"""The three spaces of the paper (table 1), and one for small images."""


class AutoFormer(SearchSpace):
    """Vision transformers with heads and hidden width of their own in each layer.

    A convolution cuts patches, a class token is put before them, learnt positions are added; layers have their norm first
    and are the DeiT layers of the paper; the class token is read. The relative positions that the paper adds to keys
    and values are left out. DeiT-Ti and DeiT-S (Touvron et al. 2021) are in `tiny` and `small`.

    Args:
        input_shape: `(channels, height, width)` with sides of 4 to 1,024 that one patch size divides.
        num_classes: Length of the output.
        size: A name of `SIZES`, or `Options` of your own. If not given, "tiny" from sides of 96 on and "micro" below.
        patch_size: Side of a patch. If not given 16 from sides of 96 on where it divides them, otherwise the smallest that
            gives at most 64 tokens.
        drop_path: Chance with which what the last layer adds is dropped (Huang et al. 2016); it grows linearly from 0 over
            the layers. 0.1 in the paper; at 0 no such nodes are written.

    Raises:
        NasGraphError: If the input is no such image, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        size: str | Options | None = None,
        patch_size: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        sides = self.input_shape[1:]
        if len(self.input_shape) != 3 or not all(SMALLEST <= side <= LARGEST for side in sides):
            raise NasGraphError(
                f"The space 'autoformer' expects images (channels, height, width) with sides of {SMALLEST} to "
                f"{LARGEST:,} (got shape {self.input_shape})"
            )
        if num_classes < 1:
            raise NasGraphError(f"Expected 'num_classes' to be at least 1 (got {num_classes})")
        if not 0 <= drop_path < 1:
            raise NasGraphError(f"Expected 'drop_path' in [0, 1) (got {drop_path})")
        size = ("tiny" if min(sides) >= LARGE else "micro") if size is None else size
        if isinstance(size, str) and size not in SIZES:
            raise NasGraphError(f"Expected 'size' to be one of {', '.join(SIZES)} (got {size!r:.60})")
        self._options = SIZES[size] if isinstance(size, str) else size
        self._patch_size = _patch_size(sides[0], sides[1], patch_size)
        self._drop_path = drop_path

    @property
    def name(self) -> str:
        return "autoformer"

    def build(self, choose: Chooser) -> ComputationalGraph:
        options = self._options
        dim = choose.categorical("dim", options.dims)
        depth = choose.categorical("depth", options.depths)
        pen = _Pen(GraphBuilder(), options.head_dim)
        x = self._tokens(pen.graph, dim)
        for place in range(depth):
            heads = choose.categorical(f"layer{place}_heads", options.heads)
            ratio = choose.categorical(f"layer{place}_mlp_ratio", options.mlp_ratios)
            chance = self._drop_path * place / max(1, depth - 1)
            x = pen.add(x, pen.attend(pen.graph("layer_norm", x), heads), chance)
            x = pen.add(x, pen.perceptron(pen.graph("layer_norm", x), round(dim * ratio)), chance)
        x = pen.graph("layer_norm", pen.graph("slice", x, axis=0, start=0, stop=1))
        x = pen.graph("reshape", x, shape=(dim,))
        return pen.graph.finish(pen.graph("linear", x, out_features=self.num_classes))

    def _tokens(self, graph: GraphBuilder, dim: int) -> int:
        x = graph("input", shape=self.input_shape)
        patch = self._patch_size
        x = graph("conv2d", x, out_channels=dim, kernel_size=patch, stride=patch, bias=True)
        _, rows, columns = graph.shape(x)
        x = graph("permute", graph("reshape", x, shape=(dim, rows * columns)), order=(1, 0))
        x = graph("concat", graph("parameter", shape=(1, dim)), x, axis=0)
        return graph("add", x, graph("parameter", shape=graph.shape(x)))


def _patch_size(height: int, width: int, wanted: int | None) -> int:
    """The side of a patch. Raises `NasGraphError` if none divides the image into few enough and enough patches."""

    def fits(size: int, most: int) -> bool:
        return (
            height % size == 0
            and width % size == 0
            and FEWEST_TOKENS <= (height // size) * (width // size) <= most
        )

    if wanted is not None:
        if wanted < 1 or not fits(wanted, MOST_TOKENS):
            raise NasGraphError(
                f"The space 'autoformer' cannot cut {height} x {width} into {FEWEST_TOKENS} to {MOST_TOKENS:,} patches "
                f"with sides of {wanted}"
            )
        return wanted
    if min(height, width) >= LARGE and fits(16, MOST_TOKENS):
        return 16
    for most in (USUAL_TOKENS, MOST_TOKENS):
        for size in range(1, min(height, width) + 1):
            if fits(size, most):
                return size
    raise NasGraphError(
        f"The space 'autoformer' finds no square patch that cuts {height} x {width} into {FEWEST_TOKENS} to "
        f"{MOST_TOKENS:,} tokens"
    )


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes layers."""

    graph: GraphBuilder
    head_dim: int

    def add(self, x: int, value: int, chance: float) -> int:
        if chance > 0:
            value = self.graph("drop_path", value, p=chance)
        return self.graph("add", x, value)

    def attend(self, x: int, heads: int) -> int:
        """Multi-head attention whose heads have one width, however many they are."""
        dim = self.graph.shape(x)[1]
        q, k, v = (self.graph("linear", x, out_features=heads * self.head_dim) for _ in range(3))
        return self.graph("linear", self.graph("attention", q, k, v, num_heads=heads), out_features=dim)

    def perceptron(self, x: int, hidden: int) -> int:
        dim = self.graph.shape(x)[1]
        y = self.graph("gelu", self.graph("linear", x, out_features=hidden))
        return self.graph("linear", y, out_features=dim)
