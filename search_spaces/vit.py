"""Small vision transformers (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

MAX_TOKENS = 256
FEWEST_TOKENS = 4


class ViT(SearchSpace):
    """Transformer encoders over image patches.

    Patches are cut by a convolution with equal kernel and stride. With a class token, the token is one more row
    among the patches, and a learnt query reads the result: attention of a single query, as in CaiT (Touvron et al.
    2021), since the graph language has no slicing. Without one, the mean over the patches is read.

    Args:
        input_shape: `(channels, height, width)`.
        num_classes: Length of the output.
        dims: Widths of a token. Every number of heads must divide each of them.
        heads: Numbers of attention heads.
        max_depth: Most encoder layers.

    Raises:
        NasGraphError: If no patch size gives 4 to 256 tokens, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        dims: tuple[int, ...] = (16, 32, 48, 64),
        heads: tuple[int, ...] = (1, 2, 4),
        max_depth: int = 4,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        if len(self.input_shape) != 3 or min(self.input_shape) < 1 or num_classes < 1:
            raise NasGraphError(
                "The space 'vit' expects images (channels, height, width) and at least one class "
                f"(got shape {input_shape} and {num_classes} classes)"
            )
        if (
            not dims
            or not heads
            or min(*dims, *heads) < 1
            or any(dim % number for dim in dims for number in heads)
        ):
            raise NasGraphError(
                f"Expected every number of 'heads' to divide each of 'dims' (got {heads} and {dims})"
            )
        if not 1 <= max_depth <= 100:
            raise NasGraphError(f"Expected 'max_depth' to be 1 to 100 (got {max_depth})")
        self._patch_sizes = _patch_sizes(*self.input_shape[1:])
        self._dims = dims
        self._heads = heads
        self._max_depth = max_depth

    @property
    def name(self) -> str:
        return "vit"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        patch = choose.categorical("patch_size", self._patch_sizes)
        dim = choose.categorical("dim", self._dims)
        layer = _Layer(
            graph=graph,
            num_heads=choose.categorical("heads", self._heads),
            hidden_dim=dim * choose.categorical("mlp_ratio", (1, 2, 4)),
            activation=choose.categorical("activation", ("gelu", "relu")),
            norm_first=choose.categorical("norm_place", ("before", "after")) == "before",
        )
        pooling = choose.categorical("pooling", ("mean", "class_token"))
        x = self._tokens(graph, patch, dim)
        if pooling == "class_token":
            x = graph("concat", graph("parameter", shape=(1, dim)), x, axis=0)
        if choose.categorical("positions", (True, False)):
            x = graph("add", x, graph("parameter", shape=graph.shape(x)))
        for _ in range(choose.integer("depth", 1, self._max_depth)):
            x = layer.encode(x)
        if layer.norm_first:
            x = graph("layer_norm", x)
        if pooling == "class_token":
            x = layer.attend(graph("parameter", shape=(1, dim)), x)
            x = graph("reshape", x, shape=(dim,))
        else:
            x = graph("mean", x, axis=0)
        return graph.finish(graph("linear", x, out_features=self.num_classes))

    def _tokens(self, graph: GraphBuilder, patch: int, dim: int) -> int:
        x = graph("input", shape=self.input_shape)
        x = graph("conv2d", x, out_channels=dim, kernel_size=patch, stride=patch, bias=True)
        _, rows, columns = graph.shape(x)
        return graph("permute", graph("reshape", x, shape=(dim, rows * columns)), order=(1, 0))


def _patch_sizes(height: int, width: int) -> tuple[int, ...]:
    """The up to three smallest square patches that divide the image into 4 to 256 tokens."""
    fewest = max(1, ceil(sqrt(height * width / MAX_TOKENS)))
    sizes = [
        size
        for size in range(fewest, min(height, width) + 1)
        if height % size == 0 and width % size == 0 and height * width // size**2 >= FEWEST_TOKENS
    ]
    if not sizes:
        raise NasGraphError(
            f"The space 'vit' finds no square patch that cuts {height} x {width} into {FEWEST_TOKENS} to "
            f"{MAX_TOKENS} tokens"
        )
    return tuple(sizes[:3])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Writes encoder layers, all of one form."""

    graph: GraphBuilder
    num_heads: int
    hidden_dim: int
    activation: str
    norm_first: bool

    def encode(self, x: int) -> int:
        x = self._residual(x, lambda y: self.attend(y, y))
        return self._residual(x, self._mlp)

    def _residual(self, x: int, inner: Callable[[int], int]) -> int:
        """Add a map of `x` to `x`, with the norm before the map or after the sum (Xiong et al. 2020)."""
        if self.norm_first:
            return self.graph("add", x, inner(self.graph("layer_norm", x)))
        return self.graph("layer_norm", self.graph("add", x, inner(x)))

    def attend(self, query: int, tokens: int) -> int:
        """Multi-head attention: three linear maps, the product, and one more linear map."""
        dim = self.graph.shape(tokens)[1]
        q, k, v = (self.graph("linear", x, out_features=dim) for x in (query, tokens, tokens))
        return self.graph(
            "linear", self.graph("attention", q, k, v, num_heads=self.num_heads), out_features=dim
        )

    def _mlp(self, x: int) -> int:
        dim = self.graph.shape(x)[1]
        hidden = self.graph(self.activation, self.graph("linear", x, out_features=self.hidden_dim))
        return self.graph("linear", hidden, out_features=dim)
