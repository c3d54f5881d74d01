"""Second gradients in closed form, beside numerical ones and torch's own."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.predict.zero_cost.twice import Settings, batch_norm, convolution


def doubles(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()


SETTINGS: list[Settings] = [
    ((1, 1), (1, 1), (1, 1), False, (0, 0), 1),
    ((2, 1), (0, 2), (1, 2), False, (0, 0), 2),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_convolution_equals_torchs_and_its_gradients_are_those_of_finite_differences(
    settings: Settings,
) -> None:
    x, weight, bias = doubles(2, 4, 6, 5), doubles(4, 4 // settings[5], 3, 2, seed=1), doubles(4, seed=2)
    stride, padding, dilation, _, _, groups = settings
    expected = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    torch.testing.assert_close(convolution(x, weight, bias, settings), expected)
    fixed = bias.detach()
    assert torch.autograd.gradcheck(lambda a, b: convolution(a, b, fixed, settings), (x, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: convolution(a, b, fixed, settings), (x, weight))


@pytest.mark.parametrize("shape", [(5, 3), (3, 2, 4), (2, 3, 2, 3)])
@pytest.mark.parametrize("is_affine", [True, False])
def test_a_batch_norm_equals_torchs_and_its_gradients_are_those_of_finite_differences(
    shape: tuple[int, ...], is_affine: bool
) -> None:
    x = doubles(*shape)
    scale = doubles(shape[1], seed=1).detach() if is_affine else None
    shift = doubles(shape[1], seed=2).detach() if is_affine else None
    expected = F.batch_norm(x, None, None, scale, shift, True, 0.0, 1e-3)
    torch.testing.assert_close(batch_norm(x, scale, shift, 1e-3), expected)
    assert torch.autograd.gradcheck(lambda a: batch_norm(a, scale, shift, 1e-3), (x,))
    assert torch.autograd.gradgradcheck(lambda a: batch_norm(a, scale, shift, 1e-3), (x,))


def test_a_first_convolution_whose_input_needs_no_gradient_has_second_gradients_by_its_weight() -> None:
    x, weight = doubles(2, 1, 5, 5).detach(), doubles(3, 1, 3, 3, seed=1)

    def second(y: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(y.sin().sum(), weight, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    torch.testing.assert_close(
        second(convolution(x, weight, None, SETTINGS[0])), second(F.conv2d(x, weight, padding=1))
    )
