# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""The torch twin of the operator table: how each operator computes.

Each entry of `KERNELS` turns a node's attributes into a function from input tensors, the node's parameters and a
`RunContext` to the output tensor. Tensors carry a batch axis in front of the per-example shape.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.ir import ComputationalGraph, Scalar

Attrs = Mapping[str, Scalar]
BatchNormBuffers = tuple[Tensor, Tensor]  # running mean, running variance
BATCH_NORM_MOMENTUM = 0.1


@dataclass(slots=True)
class RunContext:
    """How a graph is run.

    Attributes:
        batch_size: Examples in the batch.
        training: Dropout drops, and batch norms use the statistics of the batch.
        generator: Source of dropout's randomness; None: torch's global one, as torch modules do.
        buffers: Running statistics of batch norms by node, updated in place while training. A batch norm
            without an entry uses the statistics of the batch, in training or not.
    """

    batch_size: int
    training: bool = False
    generator: torch.Generator | None = None
    buffers: Mapping[int, BatchNormBuffers] = field(default_factory=dict)


Parameters = Mapping[str, Tensor]
Kernel = Callable[[Sequence[Tensor], Parameters, RunContext], Tensor]


def _pair(attrs: Attrs, name: str) -> tuple[int, int]:
    return cast(tuple[int, int], attrs[name])


def _conv2d(node: int, attrs: Attrs) -> Kernel:
    stride, padding, dilation = (_pair(attrs, name) for name in ("stride", "padding", "dilation"))
    groups = cast(int, attrs["groups"])

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        return F.conv2d(inputs[0], own["weight"], own.get("bias"), stride, padding, dilation, groups)

    return run


def _linear(node: int, attrs: Attrs) -> Kernel:
    # Where the input is not contiguous, torch's result depends, in the last bit, on whether the weight requires a gradient.
    return lambda inputs, own, context: F.linear(inputs[0].contiguous(), own["weight"], own.get("bias"))


def _embedding(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: F.embedding(inputs[0], own["weight"])


def _parameter(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: own["weight"].expand(context.batch_size, *own["weight"].shape)


def _attention(node: int, attrs: Attrs) -> Kernel:
    num_heads, causal = cast(int, attrs["num_heads"]), cast(bool, attrs["causal"])

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        query, key, value = (x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2) for x in inputs)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return out.transpose(1, 2).flatten(-2)

    return run


def _batch_norm(node: int, attrs: Attrs) -> Kernel:
    eps = cast(float, attrs["eps"])

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        mean, variance = context.buffers.get(node, (None, None))
        use_batch = context.training or mean is None
        return F.batch_norm(
            inputs[0], mean, variance, own["weight"], own["bias"], use_batch, BATCH_NORM_MOMENTUM, eps
        )

    return run


def _group_norm(node: int, attrs: Attrs) -> Kernel:
    groups, eps = cast(int, attrs["groups"]), cast(float, attrs["eps"])
    return lambda inputs, own, context: F.group_norm(inputs[0], groups, own["weight"], own["bias"], eps)


def _layer_norm(node: int, attrs: Attrs) -> Kernel:
    eps = cast(float, attrs["eps"])
    return lambda inputs, own, context: F.layer_norm(
        inputs[0], inputs[0].shape[-1:], own["weight"], own["bias"], eps
    )


def _max_pool2d(node: int, attrs: Attrs) -> Kernel:
    kernel, stride, padding = (_pair(attrs, name) for name in ("kernel_size", "stride", "padding"))
    return lambda inputs, own, context: F.max_pool2d(inputs[0], kernel, stride, padding)


def _avg_pool2d(node: int, attrs: Attrs) -> Kernel:
    kernel, stride, padding = (_pair(attrs, name) for name in ("kernel_size", "stride", "padding"))
    return lambda inputs, own, context: F.avg_pool2d(
        inputs[0], kernel, stride, padding, count_include_pad=False
    )


def _mean(node: int, attrs: Attrs) -> Kernel:
    axis = cast(int, attrs["axis"]) + 1
    return lambda inputs, own, context: inputs[0].mean(axis)


def _add(node: int, attrs: Attrs) -> Kernel:
    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        total = inputs[0] + inputs[1]
        for other in inputs[2:]:
            total = total + other
        return total

    return run


def _concat(node: int, attrs: Attrs) -> Kernel:
    axis = cast(int, attrs["axis"]) + 1
    return lambda inputs, own, context: torch.cat(list(inputs), axis)


def _reshape(node: int, attrs: Attrs) -> Kernel:
    shape = cast(tuple[int, ...], attrs["shape"])
    return lambda inputs, own, context: inputs[0].reshape(-1, *shape)


def _permute(node: int, attrs: Attrs) -> Kernel:
    order = (0, *(axis + 1 for axis in cast(tuple[int, ...], attrs["order"])))
    return lambda inputs, own, context: inputs[0].permute(order)


def _softmax(node: int, attrs: Attrs) -> Kernel:
    axis = cast(int, attrs["axis"]) + 1
    return lambda inputs, own, context: inputs[0].softmax(axis)


def _dropout(node: int, attrs: Attrs) -> Kernel:
    p = cast(float, attrs["p"])

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        if not context.training or context.generator is None:
            return F.dropout(inputs[0], p, context.training)
        # Drawn where the generator lives: a CPU seed then gives the same mask on every device.
        noise = torch.rand(inputs[0].shape, generator=context.generator, device=context.generator.device)
        return inputs[0] * (noise >= p).to(inputs[0]) / (1 - p)

    return run


def _elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[int, Attrs], Kernel]:
    return lambda node, attrs: lambda inputs, own, context: function(inputs[0])


KERNELS: Mapping[str, Callable[[int, Attrs], Kernel]] = {
    "parameter": _parameter,
    "conv2d": _conv2d,
    "linear": _linear,
    "embedding": _embedding,
    "attention": _attention,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool2d": _elementwise(lambda x: x.mean((2, 3))),
    "mean": _mean,
    "add": _add,
    "mul": lambda node, attrs: lambda inputs, own, context: inputs[0] * inputs[1],
    "concat": _concat,
    "reshape": _reshape,
    "flatten": _elementwise(lambda x: x.flatten(1)),
    "permute": _permute,
    "relu": _elementwise(F.relu),
    "leaky_relu": _elementwise(F.leaky_relu),
    "elu": _elementwise(F.elu),
    "gelu": _elementwise(F.gelu),
    "silu": _elementwise(F.silu),
    "hardswish": _elementwise(F.hardswish),
    "hardsigmoid": _elementwise(F.hardsigmoid),
    "sigmoid": _elementwise(torch.sigmoid),
    "tanh": _elementwise(torch.tanh),
    "softmax": _softmax,
    "dropout": _dropout,
    "identity": _elementwise(lambda x: x),
    "zero": _elementwise(torch.zeros_like),
}


class Program:
    """A graph made ready to run on tensors: one kernel per node, values dropped after their last use.

    Pure: parameters are passed to each call, nothing is kept between calls. Running statistics of batch norms
    change only if the context holds them and trains.
    """

    def __init__(self, graph: ComputationalGraph) -> None:
        names: dict[int, dict[str, str]] = {}
        for name in graph.parameters:
            node, own = name[1:].split(".")
            names.setdefault(int(node), {})[own] = name
        last_use = {source: index for index, node in enumerate(graph.nodes) for source in node.inputs}
        ends: dict[int, list[int]] = {}
        for source, index in last_use.items():
            if source not in graph.outputs:
                ends.setdefault(index, []).append(source)
        self._inputs = graph.inputs
        self._outputs = graph.outputs
        self._length = len(graph)
        self._steps = [
            (
                index,
                node.inputs,
                KERNELS[node.op](index, dict(node.attrs)),
                names.get(index, {}),
                ends.get(index, []),
            )
            for index, node in enumerate(graph.nodes)
            if node.op != "input"
        ]

    def __call__(
        self, parameters: Parameters, inputs: Sequence[Tensor], context: RunContext
    ) -> tuple[Tensor, ...]:
        """Run the graph.

        Args:
            parameters: Every parameter of the graph by name.
            inputs: One tensor per input node, `[batch, *shape]`.
            context: How to run.

        Returns:
            One tensor per output, `[batch, *shape]`.
        """
        values: list[Tensor | None] = [None] * self._length
        for index, value in zip(self._inputs, inputs, strict=True):
            values[index] = value
        for index, sources, kernel, names, ends in self._steps:
            own = {short: parameters[name] for short, name in names.items()}
            values[index] = kernel([cast(Tensor, values[source]) for source in sources], own, context)
            for source in ends:
                values[source] = None
        return tuple(cast(Tensor, values[index]) for index in self._outputs)
