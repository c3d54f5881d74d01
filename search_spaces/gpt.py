"""Decoder-only language models (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019)."""

from dataclasses import dataclass, replace
from typing import TypeVar

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

NORMS = ("layer_norm", "rms_norm")
ACTIVATIONS = ("gelu", "relu", "silu", "swiglu")
"""What stands between the linear maps of a perceptron; `swiglu` has a gate and two thirds of the hidden width."""
GATED = "swiglu_full"
"""A gated perceptron of the whole hidden width, as in LLaMA (Touvron et al. 2023) and HW-GPT-Bench."""
MAX_TOKENS = 65_536
Option = TypeVar("Option", str, bool)


class GPT(SearchSpace):
    """Causal transformers over token sequences: integers in, logits of the next token out.

    Tokens are embedded, maybe with learnt positions; every layer is causal attention and a perceptron (or the gated one
    of Shazeer, "GLU Variants Improve Transformer", 2020, with two thirds of the hidden width), each with a residual and a
    norm before or after it; without learnt positions only the causal mask tells the order. The logits are those of
    the last position, unless those of all are wanted. Where the classes are the vocabulary, the table of the embedding may
    serve as the last linear map too (Press and Wolf, "Using the Output Embedding to Improve Language Models", 2017).
    With `per_layer` every layer has heads and a hidden width of its own, as in HW-GPT-Bench (Sukthanker et al. 2024), whose
    space `hw_gpt_bench` gives.

    Args:
        input_shape: `(tokens,)`. The input is of integers from 0 to below `vocabulary`.
        num_classes: Length of the output: the vocabulary, where the next token is predicted.
        vocabulary: Number of different tokens; `num_classes` if not given.
        dims: Widths of a token. Every number of heads must divide each of them.
        heads: Numbers of attention heads.
        max_depth: Most layers.
        min_depth: Fewest layers.
        mlp_ratios: Factors from the width of a token to the hidden width of the perceptron.
        activations: Some of `ACTIVATIONS` and `GATED`.
        norms: Some of `NORMS`.
        norm_places: "before" a map, "after" the sum, or both to choose from.
        head_dim: Width of a head, whatever the number of heads; if not given, the heads share the width of a token.
        per_layer: Heads and the ratio of the perceptron are choices of each layer.
        biases: Whether linear maps have a bias, to choose from. If not given, all but those of `swiglu` have one.
        positions: Whether there are learnt positions, to choose from.
        tied: Whether the table serves twice, to choose from, where that is possible.
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
        min_depth: int = 1,
        mlp_ratios: tuple[int, ...] = (1, 2, 4),
        activations: tuple[str, ...] = ACTIVATIONS,
        norms: tuple[str, ...] = NORMS,
        norm_places: tuple[str, ...] = ("before", "after"),
        head_dim: int | None = None,
        per_layer: bool = False,
        biases: tuple[bool, ...] | None = None,
        positions: tuple[bool, ...] = (True, False),
        tied: tuple[bool, ...] = (False, True),
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
        if (
            not dims
            or not heads
            or min(*dims, *heads) < 1
            or (head_dim is None and any(d % h for d in dims for h in heads))
        ):
            raise NasGraphError(
                f"Expected every number of 'heads' to divide each of 'dims' (got {heads} and {dims})"
            )
        if not 1 <= max_depth <= 200:
            raise NasGraphError(f"Expected 'max_depth' to be 1 to 200 (got {max_depth})")
        if not 1 <= min_depth <= max_depth:
            raise NasGraphError(f"Expected 'min_depth' to be 1 to 'max_depth' (got {min_depth})")
        if not mlp_ratios or min(mlp_ratios) < 1 or (head_dim is not None and head_dim < 1):
            raise NasGraphError(
                f"Expected 'mlp_ratios' and 'head_dim' of at least 1 (got {mlp_ratios} and {head_dim})"
            )
        _check_options("activations", activations, (*ACTIVATIONS, GATED))
        _check_options("norms", norms, NORMS)
        _check_options("norm_places", norm_places, ("before", "after"))
        for name, options in (("positions", positions), ("tied", tied), ("biases", biases)):
            if options is not None:
                _check_options(name, options, (True, False))
        self._dims, self._heads, self._depths = dims, heads, (min_depth, max_depth)
        self._mlp_ratios, self._head_dim, self._per_layer = mlp_ratios, head_dim, per_layer
        self._activations, self._norms, self._norm_places = activations, norms, norm_places
        self._biases, self._positions, self._tied = biases, positions, tied
        self._every_position = every_position

    @property
    def name(self) -> str:
        return "gpt"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        dim = choose.categorical("dim", self._dims)
        heads = 0 if self._per_layer else choose.categorical("heads", self._heads)
        ratio = 0 if self._per_layer else choose.categorical("mlp_ratio", self._mlp_ratios)
        layer = _Layer(
            graph=graph,
            num_heads=heads,
            head_dim=self._head_dim,
            hidden_dim=dim * ratio,
            activation=choose.categorical("activation", self._activations),
            norm=choose.categorical("norm", self._norms),
            norm_first=choose.categorical("norm_place", self._norm_places) == "before",
            bias=None if self._biases is None else choose.categorical("bias", self._biases),
        )
        may_tie = self._vocabulary == self.num_classes
        table = None
        if may_tie and choose.categorical("tied", self._tied):
            table = graph("parameter", shape=(self._vocabulary, dim), role="embedding")
        tokens = graph("input", shape=self.input_shape, dtype="int")
        if table is None:
            x = graph("embedding", tokens, num_embeddings=self._vocabulary, dim=dim)
        else:
            x = graph("apply_embedding", tokens, table)
        if choose.categorical("positions", self._positions):
            x = graph("add", x, graph("parameter", shape=graph.shape(x)))
        for place in range(choose.integer("depth", *self._depths)):
            x = self._own(choose, layer, dim, place).decode(x)
        if layer.norm_first:
            x = graph(layer.norm, x)
        if not self._every_position:
            last = self.input_shape[0] - 1
            x = graph("reshape", graph("slice", x, axis=0, start=last, stop=last + 1), shape=(dim,))
        if table is not None:
            return graph.finish(graph("apply_linear", x, table))
        return graph.finish(graph("linear", x, out_features=self.num_classes, bias=False))

    def _own(self, choose: Chooser, layer: "_Layer", dim: int, place: int) -> "_Layer":
        """The layer in this place: like all, or with choices of its own."""
        if not self._per_layer:
            return layer
        heads = choose.categorical(f"layer{place}_heads", self._heads)
        ratio = choose.categorical(f"layer{place}_mlp_ratio", self._mlp_ratios)
        return replace(layer, num_heads=heads, hidden_dim=dim * ratio)


def hw_gpt_bench(*, tokens: int = 1024, every_position: bool = False) -> GPT:
    """The small space of HW-GPT-Bench (Sukthanker et al., "HW-GPT-Bench: Hardware-Aware Architecture Benchmark for Language
    Models", 2024). The benchmark's rotary positions have no parameters and are left out."""
    return GPT(
        input_shape=(tokens,),
        num_classes=50_254,
        dims=(192, 384, 768),
        heads=(4, 8, 12),
        min_depth=10,
        max_depth=12,
        mlp_ratios=(2, 3, 4),
        activations=(GATED,),
        norms=("layer_norm",),
        norm_places=("before",),
        head_dim=64,
        per_layer=True,
        biases=(True, False),
        positions=(False,),
        tied=(False,),
        every_position=every_position,
    )


def _check_options(name: str, options: tuple[Option, ...], known: tuple[Option, ...]) -> None:
    if not options or len(set(options)) != len(options) or not set(options) <= set(known):
        raise NasGraphError(f"Expected '{name}' to be different ones of {known} (got {options})")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Writes decoder layers, all of one form."""

    graph: GraphBuilder
    num_heads: int
    head_dim: int | None
    hidden_dim: int
    activation: str
    norm: str
    norm_first: bool
    bias: bool | None

    def decode(self, x: int) -> int:
        for inner in (self._attend, self._mlp):
            if self.norm_first:
                x = self.graph("add", x, inner(self.graph(self.norm, x)))
            else:
                x = self.graph(self.norm, self.graph("add", x, inner(x)))
        return x

    def _linear(self, x: int, width: int, *, bias: bool = True) -> int:
        bias = bias if self.bias is None else self.bias
        return self.graph("linear", x, out_features=width, bias=bias)

    def _attend(self, x: int) -> int:
        dim = self.graph.shape(x)[1]
        inner = dim if self.head_dim is None else self.num_heads * self.head_dim
        q, k, v = (self._linear(x, inner) for _ in range(3))
        mixed = self.graph("attention", q, k, v, num_heads=self.num_heads, causal=True)
        return self._linear(mixed, dim)

    def _mlp(self, x: int) -> int:
        dim = self.graph.shape(x)[1]
        if self.activation not in ("swiglu", GATED):
            return self._linear(self.graph(self.activation, self._linear(x, self.hidden_dim)), dim)
        # Two thirds, in multiples of eight: as many parameters as without the gate.
        width = self.hidden_dim if self.activation == GATED else 8 * -(-2 * self.hidden_dim // 24)
        gate, value = (self._linear(x, width, bias=False) for _ in range(2))
        return self._linear(self.graph("mul", self.graph("silu", gate), value), dim, bias=False)
