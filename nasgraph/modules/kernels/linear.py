# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Linear maps, products of matrices and look-up tables."""

from collections.abc import Mapping, Sequence
from string import ascii_letters

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.kernels.kernel import (
    Attrs,
    Kernel,
    KernelMaker,
    Parameters,
    RunContext,
    apply_given,
    on_both,
    one_batch,
)


def _linear(node: int, attrs: Attrs) -> Kernel:
    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        weight, bias = own["weight"], own.get("bias")
        if inputs[0].layout != torch.strided:  # bags of words
            product: Tensor = torch.sparse.mm(inputs[0], weight.t())
            return product if bias is None else product + bias
        # Where the input is not contiguous, torch's result depends, in the last bit, on whether the weight requires a gradient.
        return F.linear(inputs[0].contiguous(), weight, bias)

    return run


def _given_linear(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: apply_given(F.linear, (inputs[0].contiguous(), *inputs[1:]))


def _bilinear(node: int, attrs: Attrs) -> Kernel:
    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        first, second = one_batch(inputs)
        return F.bilinear(first, second, own["weight"], own.get("bias"))

    return run


def _embedding(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: F.embedding(inputs[0], own["weight"])


def _given_embedding(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: apply_given(F.embedding, inputs)


def _einsum(node: int, attrs: Attrs) -> Kernel:
    equation = str(attrs["equation"]).replace(" ", "")
    batch = next(letter for letter in ascii_letters if letter not in equation)
    left, right = equation.split("->")
    batched = ",".join(batch + term for term in left.split(",")) + f"->{batch}{right}"
    return lambda inputs, own, context: torch.einsum(batched, *one_batch(inputs))


LINEAR: Mapping[str, KernelMaker] = {
    "linear": _linear,
    "apply_linear": _given_linear,
    "bilinear": _bilinear,
    "embedding": _embedding,
    "apply_embedding": _given_embedding,
    "matmul": on_both(torch.matmul),
    "einsum": _einsum,
}
