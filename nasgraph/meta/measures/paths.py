"""The path norm: the sum over all paths from an input to an output of the squared product of the weights on it.

Neyshabur, Tomioka and Srebro, "Norm-Based Capacity Control in Neural Networks", 2015; computed as in Jiang, Neyshabur, Mobahi, Krishnan and
Bengio, "Fantastic Generalization Measures and Where to Find Them", 2020, equation 44: square every weight, feed ones, add up the outputs.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph, Node
from nasgraph.meta.measures.layers import CONVOLUTIONS
from nasgraph.meta.views import run_stack
from nasgraph.modules import State

_ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
    *("tanh", "sigmoid", "hardsigmoid", "softplus", "softsign"),
)
_TINY = 1e-150
_LINEAR = ("linear", *CONVOLUTIONS)
_NEUTRAL = (
    *(
        "input",
        "add",
        "identity",
        "dropout",
        "drop_path",
        "flatten",
        "reshape",
        "permute",
        "concat",
        "pad",
        "slice",
    ),
    *("avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "global_avg_pool2d"),
    *(
        "max_pool2d",
        "max_pool3d",
        "adaptive_max_pool2d",
        "pixel_shuffle",
        "mean",
        "reduce_mean",
        "reduce_sum",
    ),
)


def path_norms(graph: ComputationalGraph, stacked: State) -> Float[Tensor, " networks"]:
    """Square root of the sum over paths, for networks of linear layers, convolutions, batch norms, sums and poolings.

    A bias counts as the weight of a unit that is always one. Batch norms count as the linear map that they are in inference. Activations have
    no weights and are passed over; pooling is applied as it stands, to sums of squares. The norm of a network with ReLU or leaky ReLU does not change
    when a unit's weights are multiplied by a positive number and those that read it are divided by it.

    Raises:
        UnsupportedOpError: If paths are not defined for an operator; the message names it.
    """
    for index, node in enumerate(graph.nodes):
        if node.op not in (*_ACTIVATIONS, *_LINEAR, *_NEUTRAL, "batch_norm"):
            raise UnsupportedOpError(
                f"The path norm is not defined for '{node.op}' (node {index}): leave this measure out for such networks"
            )
    without = tuple(
        Node("identity", node.inputs) if node.op in _ACTIVATIONS else node for node in graph.nodes
    )
    linear = ComputationalGraph(without, graph.outputs)
    ones = [torch.ones(1, *graph.shapes[index], dtype=torch.float64) for index in graph.inputs]
    outputs = run_stack(linear, _squared(graph, stacked), ones)
    total: Tensor = sum((output.flatten(1).sum(1) for output in outputs), torch.zeros(1))
    return total.sqrt().to(next(iter(stacked.values())).dtype)


def _squared(graph: ComputationalGraph, stacked: State) -> Mapping[str, Tensor]:
    """Squared parameters in double precision, batch norms folded into one factor and one shift each."""
    state = {name: tensor.detach().double() for name, tensor in stacked.items()}
    squared = {name: tensor.square() for name, tensor in state.items()}
    for index, node in enumerate(graph.nodes):
        if node.op != "batch_norm":
            continue
        eps = node.attr("eps")
        assert isinstance(eps, float)
        mean, variance = state[f"n{index}.running_mean"], state[f"n{index}.running_var"]
        gain, shift = state.get(f"n{index}.weight"), state.get(f"n{index}.bias")
        factor = (1.0 if gain is None else gain) / (variance + eps).sqrt()
        offset = (0.0 if shift is None else shift) - mean * factor
        squared[f"n{index}.running_mean"] = -offset.square() / factor.square().clamp(min=_TINY)
        squared[f"n{index}.running_var"] = factor.pow(-4).clamp(max=1 / _TINY) - eps
        for own in ("weight", "bias"):
            if f"n{index}.{own}" in squared:
                squared[f"n{index}.{own}"] = torch.full_like(mean, float(own == "weight"))
    return squared
