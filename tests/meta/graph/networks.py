"""Networks that the tests of parameter graphs share."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder
from tests.merge.networks import random_state
from tests.modules.operator_cases import Shape
from tests.modules.samples import random_constants


def among_parameters(op: str, shapes: Sequence[Shape], attrs: Mapping[str, object]) -> ComputationalGraph:
    """The operator reads free parameters, and what it gives is weighted by a parameter and summed: nothing is fixed by
    its surroundings, so whatever moves is what its rule leaves open."""
    g = GraphBuilder()
    anchor = g("input", shape=(1,))
    reads = OPS[op].reads
    sources = []
    for place, shape in enumerate(shapes):
        if reads[min(place, len(reads) - 1)] == "int":
            sources.append(g("input", shape=shape, dtype="int"))
        else:
            sources.append(g("affine", g("parameter", shape=shape), shift=0.9))
    x = g(op, *sources, **attrs) if OPS[op].num_inputs != (0, 0) else g(op, **attrs)
    x = g("cast", x, dtype="float")
    weighted = g("mul", x, g("parameter", shape=g.shape(x)))
    flat = g("reshape", weighted, shape=(1, *g.shape(x)))
    return g.finish(g("add", g("reduce_sum", flat, axes=tuple(range(1, len(g.shape(x)) + 1))), anchor))


def full_state(
    graph: ComputationalGraph, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Parameters, running statistics and constants; no two numbers are alike."""
    return random_state(graph, seed=seed, dtype=dtype) | random_constants(graph, seed=seed)


def mlp(*widths: int, activation: str = "relu") -> ComputationalGraph:
    """Linear layers with an activation between each two."""
    g = GraphBuilder()
    x = g("input", shape=(widths[0],))
    for width in widths[1:-1]:
        x = g(activation, g("linear", x, out_features=width))
    return g.finish(g("linear", x, out_features=widths[-1]))


def attention(*, heads: int = 2, width: int = 4, tokens: int = 5) -> ComputationalGraph:
    """One layer of attention with linear maps before and behind."""
    g = GraphBuilder()
    x = g("input", shape=(tokens, 3))
    query, key, value = (g("linear", x, out_features=heads * width) for _ in range(3))
    x = g("attention", query, key, value, num_heads=heads)
    return g.finish(g("linear", x, out_features=2))


def same_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two states have the same tensors bit by bit."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(_bits(first[name]), _bits(second[name]))
        for name in first
    )


def _bits(tensor: Tensor) -> Tensor:
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()]) if tensor.is_floating_point() else tensor
