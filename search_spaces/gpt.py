"""Decoder-only language models (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019)."""

from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

NORMS = ("layer_norm", "rms_norm")
ACTIVATIONS = ("gelu", "relu", "silu", "swiglu")
MAX_TOKENS = 65_536


class GPT(SearchSpace):
    """Causal transformers over token sequences: integers in, logits of the next token out.

    Tokens are embedded, maybe with learnt positions; every layer is causal attention and a perceptron (or the gated one
    of Shazeer, "GLU Variants Improve Transformer", 2020, with two thirds of the hidden width), each with a residual and a
    norm before or after it; without learnt positions only the causal mask tells the order. The logits are those of
    the last position, unless those of all are wanted. Where the classes are the vocabulary, the table of the embedding may
    serve as the last linear map too (Press and Wolf, "Using the Output Embedding to Improve Language Models", 2017).

    Args:
        input_shape: `(tokens,)`. The input is of integers from 0 to below `vocabulary`.
        num_classes: Length of the output: the vocabulary, where the next token is predicted.
        vocabulary: Number of different tokens; `num_classes` if not given.
        dims: Widths of a token. Every number of heads must divide each of them.
        heads: Numbers of attention heads.
        max_depth: Most layers.
        every_position: The output is `(tokens, num_classes)`, for training as a language model. Such graphs do not keep
            to the contract that the output is `(num_classes,)`.

    Raises:
        NasGraphError: If the input is no sequence, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        vocabulary: int | None = None,
        dims: tuple[int, ...] = (32, 64, 96, 128),
        heads: tuple[int, ...] = (1, 2, 4, 8),
        max_depth: int = 6,
        every_position: bool = False,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        self._vocabulary = num_classes if vocabulary is None else vocabulary
        if len(self.input_shape) != 1 or not 1 <= self.input_shape[0] <= MAX_TOKENS:
            raise NasGraphError(
                f"The space 'gpt' expects sequences of integers (tokens,), 1 to {MAX_TOKENS:,} of them "
                f"(got shape {self.input_shape})"
            )
        if min(num_classes, self._vocabulary) < 1:
            raise NasGraphError(
                "Expected 'num_classes' and 'vocabulary' to be at least 1 "
                f"(got {num_classes} and {self._vocabulary})"
            )
        if not dims or not heads or min(*dims, *heads) < 1 or any(d % h for d in dims for h in heads):
            raise NasGraphError(
                f"Expected every number of 'heads' to divide each of 'dims' (got {heads} and {dims})"
            )
        if not 1 <= max_depth <= 200:
            raise NasGraphError(f"Expected 'max_depth' to be 1 to 200 (got {max_depth})")
        self._dims, self._heads, self._max_depth = dims, heads, max_depth
        self._every_position = every_position

    @property
    def name(self) -> str:
        return "gpt"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        dim = choose.categorical("dim", self._dims)
        layer = _Layer(
            graph=graph,
            num_heads=choose.categorical("heads", self._heads),
            hidden_dim=dim * choose.categorical("mlp_ratio", (1, 2, 4)),
            activation=choose.categorical("activation", ACTIVATIONS),
            norm=choose.categorical("norm", NORMS),
            norm_first=choose.categorical("norm_place", ("before", "after")) == "before",
        )
        may_tie = self._vocabulary == self.num_classes
        table = None
        if may_tie and choose.categorical("tied", (False, True)):
            table = graph("parameter", shape=(self._vocabulary, dim), role="embedding")
        tokens = graph("input", shape=self.input_shape, dtype="int")
        if table is None:
            x = graph("embedding", tokens, num_embeddings=self._vocabulary, dim=dim)
        else:
            x = graph("apply_embedding", tokens, table)
        if choose.categorical("positions", (True, False)):
            x = graph("add", x, graph("parameter", shape=graph.shape(x)))
        for _ in range(choose.integer("depth", 1, self._max_depth)):
            x = layer.decode(x)
        if layer.norm_first:
            x = graph(layer.norm, x)
        if not self._every_position:
            last = self.input_shape[0] - 1
            x = graph("reshape", graph("slice", x, axis=0, start=last, stop=last + 1), shape=(dim,))
        if table is not None:
            return graph.finish(graph("apply_linear", x, table))
        return graph.finish(graph("linear", x, out_features=self.num_classes, bias=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Writes decoder layers, all of one form."""

    graph: GraphBuilder
    num_heads: int
    hidden_dim: int
    activation: str
    norm: str
    norm_first: bool

    def decode(self, x: int) -> int:
        for inner in (self._attend, self._mlp):
            if self.norm_first:
                x = self.graph("add", x, inner(self.graph(self.norm, x)))
            else:
                x = self.graph(self.norm, self.graph("add", x, inner(x)))
        return x

    def _attend(self, x: int) -> int:
        dim = self.graph.shape(x)[1]
        q, k, v = (self.graph("linear", x, out_features=dim) for _ in range(3))
        mixed = self.graph("attention", q, k, v, num_heads=self.num_heads, causal=True)
        return self.graph("linear", mixed, out_features=dim)

    def _mlp(self, x: int) -> int:
        dim = self.graph.shape(x)[1]
        if self.activation != "swiglu":
            hidden = self.graph("linear", x, out_features=self.hidden_dim)
            return self.graph("linear", self.graph(self.activation, hidden), out_features=dim)
        # Two thirds, in multiples of eight: as many parameters as without the gate.
        width = 8 * -(-2 * self.hidden_dim // 24)
        gate, value = (self.graph("linear", x, out_features=width, bias=False) for _ in range(2))
        gated = self.graph("mul", self.graph("silu", gate), value)
        return self.graph("linear", gated, out_features=dim, bias=False)
