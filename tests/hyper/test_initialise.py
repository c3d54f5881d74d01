"""Predicted parameters for a user's own module."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nasgraph.errors import TraceError
from nasgraph.hyper import GHNConfig, GraphHyperNetwork, initialise, orthogonalise


@pytest.fixture(scope="module")
def ghn() -> GraphHyperNetwork:
    return GraphHyperNetwork(
        GHNConfig(dim=16, num_layers=1, num_heads=2, decoder_hidden=8, max_size=8)
    ).eval()


class Own(nn.Module):
    """Everything that ownership has to get right: tied, transposed, scalar, unused and packed parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 12)
        self.flipped = nn.Parameter(torch.zeros(12, 9))  # used as x @ W
        self.norm = nn.LayerNorm(9)
        self.attention = nn.MultiheadAttention(9, 3, batch_first=True)
        self.gain = nn.Parameter(torch.tensor(3.0))
        self.lost = nn.Linear(2, 2)
        self.back = nn.Linear(9, 12, dtype=torch.float32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.table(ids) @ self.flipped)
        x = self.attention(x, x, x, need_weights=False)[0] * self.gain
        return F.linear(self.back(x), self.table.weight)


IDS = torch.arange(14).reshape(2, 7)


def test_every_used_parameter_is_predicted_with_its_shape_and_the_rest_is_kept(
    ghn: GraphHyperNetwork,
) -> None:
    module = Own()
    own = dict(module.named_parameters())
    result = initialise(ghn, module, IDS)
    assert set(result.kept) == {"lost.weight", "lost.bias"}
    assert set(result.parameters) == set(own) - set(result.kept)
    assert all(result.parameters[name].shape == own[name].shape for name in result.parameters)
    assert all(torch.isfinite(tensor).all() for tensor in result.parameters.values())


def test_the_module_is_not_touched_unless_wanted(ghn: GraphHyperNetwork) -> None:
    module = Own()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    result = initialise(ghn, module, IDS)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    initialise(ghn, module, IDS, inplace=True)
    for name, parameter in module.named_parameters():
        expected = result.parameters.get(name, before[name])
        torch.testing.assert_close(parameter.detach(), expected)
        assert parameter.requires_grad
        assert parameter.grad is None


def test_writing_in_place_allocates_no_second_copy(ghn: GraphHyperNetwork) -> None:
    module = Own()
    result = initialise(ghn, module, IDS, inplace=True)
    assert result.parameters["back.weight"].data_ptr() == module.back.weight.data_ptr()


def test_half_precision_modules_get_half_precision(ghn: GraphHyperNetwork) -> None:
    module = nn.Linear(6, 4).bfloat16()
    result = initialise(ghn, module, torch.zeros(2, 6, dtype=torch.bfloat16), inplace=True)
    assert {tensor.dtype for tensor in result.parameters.values()} == {torch.bfloat16}
    assert torch.equal(module.weight, result.parameters["weight"])


def test_a_module_that_cannot_be_traced_stays_as_it_was(ghn: GraphHyperNetwork) -> None:
    module = nn.Linear(6, 4)
    before = module.weight.detach().clone()
    with pytest.raises(TraceError, match="fails on the example inputs"):
        initialise(ghn, module, torch.zeros(2, 5), inplace=True)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 2, 3, 3), (64, 3)])
def test_orthogonal_weights_keep_their_norm_and_have_equal_singular_values(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=rng, dtype=torch.double)
    result = orthogonalise(weight)
    torch.testing.assert_close(result.norm(), weight.norm())
    values = torch.linalg.svdvals(result.flatten(1))
    torch.testing.assert_close(values, values.mean().expand_as(values))


def test_orthogonal_weights_and_noise_break_tiles(ghn: GraphHyperNetwork) -> None:
    module = nn.Linear(16, 16)
    x = torch.zeros(2, 16)
    plain = initialise(ghn, module, x).parameters["weight"]
    assert torch.equal(plain[:8], plain[8:])  # a block of eight is repeated
    noisy = initialise(ghn, module, x, orthogonal=True, noise=0.1, seed=1).parameters["weight"]
    assert torch.linalg.matrix_rank(noisy) == 16
    again = initialise(ghn, module, x, orthogonal=True, noise=0.1, seed=1).parameters["weight"]
    assert torch.equal(noisy, again)
    with pytest.raises(ValueError, match="'noise' of at least 0"):
        initialise(ghn, module, x, noise=-1.0)
