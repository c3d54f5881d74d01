"""The torch twin of the operator table: how each operator computes.

Each entry of `KERNELS` turns a node's attributes into a function from input tensors, the node's parameters and a
`RunContext` to the output tensor. Tensors carry a batch axis in front of the per-example shape. It has size one where
a value is the same for each example: parameters, constants and all that follows from them alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph, Node
from nasgraph.modules.kernels.attention import ATTENTION
from nasgraph.modules.kernels.convolution import CONVOLUTIONS
from nasgraph.modules.kernels.elementwise import ACTIVATIONS, FUNCTIONS, JOINING
from nasgraph.modules.kernels.kernel import Attrs, BatchNormBuffers, Kernel, Parameters, RunContext
from nasgraph.modules.kernels.linear import LINEAR
from nasgraph.modules.kernels.message_passing import MESSAGE_PASSING
from nasgraph.modules.kernels.norms import NORMS
from nasgraph.modules.kernels.pooling import POOLING
from nasgraph.modules.kernels.recurrent import RECURRENT
from nasgraph.modules.kernels.reductions import REDUCTIONS
from nasgraph.modules.kernels.sources import SOURCES, as_integers
from nasgraph.modules.kernels.structure import STRUCTURE

__all__ = ["KERNELS", "BatchNormBuffers", "Kernel", "Parameters", "Program", "RunContext"]

KERNELS: Mapping[str, Callable[[int, Attrs], Kernel]] = {
    **SOURCES,
    **CONVOLUTIONS,
    **LINEAR,
    **RECURRENT,
    **ATTENTION,
    **MESSAGE_PASSING,
    **NORMS,
    **POOLING,
    **REDUCTIONS,
    **JOINING,
    **STRUCTURE,
    **ACTIVATIONS,
    **FUNCTIONS,
}


class Program:
    """A graph made ready to run on tensors: one kernel per node, values dropped after their last use.

    Pure: parameters are passed to each call, nothing is kept between calls. Running statistics of batch norms
    change only if the context holds them and trains.

    Raises:
        UnsupportedOpError: If a node is `opaque`; the message names it.
    """

    def __init__(self, graph: ComputationalGraph) -> None:
        names: dict[int, dict[str, str]] = {}
        for name in graph.parameters:
            node, own = name[1:].split(".")
            names.setdefault(int(node), {})[own] = name
        last_use = {source: index for index, node in enumerate(graph.nodes) for source in node.inputs}
        outputs = set(graph.outputs)
        ends: dict[int, list[int]] = {}
        for source, index in last_use.items():
            if source not in outputs:
                ends.setdefault(index, []).append(source)
        self._inputs = graph.inputs
        self._outputs = graph.outputs
        self._sparse = _sparse_inputs(graph)
        self._length = len(graph)
        self._steps = [
            (index, node.inputs, _kernel(index, node), names.get(index, {}), ends.get(index, []))
            for index, node in enumerate(graph.nodes)
            if node.op != "input"
        ]

    def __call__(
        self, parameters: Parameters, inputs: Sequence[Tensor], context: RunContext
    ) -> tuple[Tensor, ...]:
        """Run the graph.

        Args:
            parameters: Every parameter of the graph by name.
            inputs: One tensor per input node, `[batch, *shape]`. Rows that are nearly all zero may come compressed (CSR) and
                stay so where linear maps and message passing read them.
            context: How to run.

        Returns:
            One tensor per output, `[batch, *shape]`.
        """
        values: list[Tensor | None] = [None] * self._length
        for index, value in zip(self._inputs, inputs, strict=True):
            is_welcome = value.layout == torch.strided or index in self._sparse
            values[index] = as_integers(value if is_welcome else value.to_dense())
        if context.real is None:
            context = replace(context, real=_real(parameters, inputs))
        for index, sources, kernel, names, ends in self._steps:
            own = {short: parameters[name] for short, name in names.items()}
            values[index] = kernel([cast(Tensor, values[source]) for source in sources], own, context)
            for source in ends:
                values[source] = None
        return tuple(_expanded(cast(Tensor, values[index]), context.batch_size) for index in self._outputs)


def _sparse_inputs(graph: ComputationalGraph) -> frozenset[int]:
    """Inputs that only linear maps and message passing read, maybe behind dropout."""
    readers: dict[int, list[int]] = {index: [] for index in range(len(graph))}
    for index, node in enumerate(graph.nodes):
        for source in node.inputs:
            readers[source].append(index)
    stays: dict[int, bool] = {}  # whether all that read a node can read it in compressed rows
    reads: dict[int, bool] = {}
    for index in reversed(range(len(graph))):
        op = graph.nodes[index].op
        stays[index] = index not in graph.outputs and all(reads[reader] for reader in readers[index])
        reads[index] = op == "linear" or op in MESSAGE_PASSING or (op == "dropout" and stays[index])
    return frozenset(index for index in graph.inputs if stays[index])


def _kernel(index: int, node: Node) -> Kernel:
    if node.op == "opaque":
        raise UnsupportedOpError(
            f"Cannot run '{node.attr('name')}' (node {index}): it is not part of the graph language"
        )
    return KERNELS[node.op](index, dict(node.attrs))


def _real(parameters: Parameters, inputs: Sequence[Tensor]) -> torch.dtype:
    for tensor in (*inputs, *parameters.values()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()


def _expanded(value: Tensor, batch_size: int) -> Tensor:
    return value if value.shape[0] == batch_size else value.expand(batch_size, *value.shape[1:])
