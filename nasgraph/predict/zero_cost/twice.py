"""Convolution and batch norm whose gradients can be differentiated once more at the cost of plain kernels.

Torch differentiates the gradient of a batch norm by some thirty passes over the data, and that of a convolution by convolutions
over transposed copies. Here each takes a few calls of the same kernels as the first gradient, in closed form. Measured on
cells of NAS-Bench-201 (`benchmarks/predictors/zero_cost.py`): the second gradient takes about half the time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_aten = torch.ops.aten
Pair = tuple[int, int]
Settings = tuple[Pair, Pair, Pair, bool, Pair, int]
"""Stride, padding, dilation, transposed, output padding and groups, as `aten::convolution` takes them."""


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
    """A convolution. Gradients flow to `x` and `weight`, up to the second; the bias is a constant."""
    y: Tensor = _applied(_Convolution)(x, weight, None if bias is None else bias.detach(), settings)
    return y


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """A batch norm by the statistics of the batch. Gradients flow to `x`, up to the second; scale and shift are constants."""
    fixed = [None if tensor is None else tensor.detach() for tensor in (weight, bias)]
    y: Tensor = _applied(_BatchNorm)(x, *fixed, eps)
    return y


def _applied(function: type[Function]) -> Callable[..., Any]:
    apply: Callable[..., Any] = function.apply
    return apply


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        y: Tensor = _aten.convolution(x, weight, bias, *settings)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = _applied(_ConvolutionGradient)(
            grad_y, x, weight, ctx.settings, ctx.needs_input_grad[:2]
        )
        return grad_x, grad_weight, None, None


class _ConvolutionGradient(Function):
    """The gradients by data and weight: each is linear in `grad_y` and in the other of the two."""

    @staticmethod
    def forward(
        ctx: Any, grad_y: Tensor, x: Tensor, weight: Tensor, settings: Settings, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad_y, x, weight)
        ctx.settings = settings
        grad_x, grad_weight, _ = _aten.convolution_backward(
            grad_y, x, weight, None, *settings, [*wanted, False]
        )
        return grad_x, grad_weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, by_grad_x: Tensor | None, by_grad_weight: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grad_y, x, weight = ctx.saved_tensors
        by_grad_y = by_x = by_weight = None
        if by_grad_x is not None:
            by_grad_y = _aten.convolution(by_grad_x, weight, None, *ctx.settings)
            by_weight = _gradient(grad_y, by_grad_x, weight, ctx.settings, 1)
        if by_grad_weight is not None:
            other = _aten.convolution(x, by_grad_weight, None, *ctx.settings)
            by_grad_y = other if by_grad_y is None else by_grad_y.add_(other)
            if ctx.needs_input_grad[1]:
                by_x = _gradient(grad_y, x, by_grad_weight, ctx.settings, 0)
        return by_grad_y, by_x, by_weight, None, None


def _gradient(grad_y: Tensor, x: Tensor, weight: Tensor, settings: Settings, which: int) -> Tensor:
    mask = [which == 0, which == 1, False]
    gradient: Tensor = _aten.convolution_backward(grad_y, x, weight, None, *settings, mask)[which]
    return gradient


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        y, mean, inverse_std = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, inverse_std)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        return _applied(_BatchNormGradient)(grad_y, *ctx.saved_tensors, ctx.eps), None, None, None


class _BatchNormGradient(Function):
    """`w r P(g)` with the normalised data z, r = 1 / std and P(g) = g - mean(g) - z mean(g z), per channel.

    P is symmetric, and dz = r P(dx). So the gradient of <u, w r P(g)> by g is `w r P(u)`, and by the data it is
    `-r (mean(g z) w r P(u) + mean(u z) w r P(g) + z <u, w r P(g)> / n)`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        eps: float,
    ) -> Tensor:
        grad_x, along, _ = _backward(grad_y, x, weight, mean, inverse_std, eps)
        ctx.save_for_backward(x, weight, mean, inverse_std, grad_x, along)
        ctx.eps = eps
        return grad_x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_grad_x: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std, grad_x, along = ctx.saved_tensors
        by_grad_y, by_along, _ = _backward(by_grad_x, x, weight, mean, inverse_std, ctx.eps)
        count = x.numel() // x.shape[1]
        axes, shape = [0, *range(2, x.dim())], (-1, *(1,) * (x.dim() - 2))
        product = (by_grad_x * grad_x).sum(axes)
        slope = -inverse_std.square() * product / count
        by_x = by_grad_y * (-inverse_std * along / count).view(shape)
        by_x.addcmul_(grad_x, (-inverse_std * by_along / count).view(shape))
        by_x.addcmul_(x, slope.view(shape)).sub_((slope * mean).view(shape))
        return by_grad_y, by_x, None, None, None, None


def _backward(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse_std: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient by the data, and the sums of `grad_y` times the normalised data and of `grad_y`, per channel."""
    scale = torch.ones_like(mean) if weight is None else weight
    result: tuple[Tensor, Tensor, Tensor] = _aten.native_batch_norm_backward(
        grad_y, x, scale, None, None, mean, inverse_std, True, eps, [True, True, True]
    )
    return result
