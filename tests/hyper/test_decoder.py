"""The decoder against the formulas of its docstring, one number at a time."""

from math import cos, erf, exp, pi, prod, sin, sqrt, tanh

import pytest
import torch
from torch import Tensor

from nasgraph.encode import ParameterSlot, encode
from nasgraph.hyper.decoder import EPS, TensorDecoder, _UnitBlocks
from tests.modules.samples import sampled_graphs, wide_graph

DIM, HIDDEN, MAX_SIZE, MAX_KERNEL = 6, 4, 5, 3
SLOTS = (
    ParameterSlot("n1.weight", 1, (7, 3, 2, 2), "weight", 12, False),  # tiled along its outputs
    ParameterSlot("n1.bias", 1, (7,), "bias", 12, False),
    ParameterSlot("n2.weight", 2, (4, 11, 5, 1), "weight", 55, False),  # tiled along inputs and height
    ParameterSlot("n3.weight", 3, (5, 5), "weight", 5, False),
    ParameterSlot("n4.weight", 4, (9,), "scale", 5, False),
    ParameterSlot("n4.bias", 4, (3,), "shift", 5, False),
    ParameterSlot("n5.weight", 5, (8, 4), "embedding", 5, False),
    ParameterSlot("n6.weight", 6, (6,), "position", 5, False),
    ParameterSlot("n7.weight", 7, (2, 6), "position", 5, False),
    ParameterSlot("n8.weight", 8, (2, 3, 4), "position", 5, False),
    ParameterSlot("n9.weight", 9, (2, 3, 2, 2, 3), "position", 5, False),
    ParameterSlot("n10.weight", 10, (3, 8), "weight", 8, True),
    ParameterSlot("n10.bias", 10, (3,), "bias", 8, True),
    ParameterSlot("n11.weight", 11, (3, 2, 3, 3), "weight", 18, True),
    ParameterSlot("n1.again", 1, (4, 3, 2, 2), "weight", 12, False),
)


def make_decoder(*, mip: bool, max_size: int = MAX_SIZE, max_kernel: int = MAX_KERNEL) -> TensorDecoder:
    decoder = TensorDecoder(DIM, hidden=HIDDEN, max_size=max_size, max_kernel=max_kernel, mip=mip).double()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(generator=rng)
    return decoder


def states(count: int) -> Tensor:
    return torch.randn(count, DIM, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def gelu(x: float) -> float:
    return x * (1 + erf(x / sqrt(2))) / 2


def naive_vector(decoder: TensorDecoder, kind: str, mixed: list[float], length: int) -> list[float]:
    rows = decoder.vector[kind].tolist()
    values = []
    for index in range(length):
        y = sum(w * m for w, m in zip(rows[index % MAX_SIZE], mixed, strict=True))
        values.append(2 / (1 + exp(-y / 2)) if kind == "scale" else tanh(y / 5))
    return values


def naive_matrix(decoder: TensorDecoder, kind: str, mixed: list[float], slot: ParameterSlot) -> list[float]:
    outputs, inputs, *space = slot.shape
    if kind == "table":  # a stack of vectors
        outputs, inputs, space = prod(slot.shape[:-1]), slot.shape[-1], []
    height, width, *_ = (*space, 1, 1)
    rows, columns = min(height, MAX_KERNEL), min(width, MAX_KERNEL)
    hidden = {}
    for i in range(rows):
        for j in range(columns):
            position = ((MAX_KERNEL - rows) // 2 + i) * MAX_KERNEL + (MAX_KERNEL - columns) // 2 + j
            spatial, bias = (
                decoder.spatial[kind][position].tolist(),
                decoder.spatial_bias[kind][position].tolist(),
            )
            hidden[i, j] = [
                gelu(sum(w * m for w, m in zip(spatial[c], mixed, strict=True)) + bias[c])
                for c in range(HIDDEN)
            ]
    block = decoder.block[kind].tolist()
    few_outputs, few_inputs = min(outputs, MAX_SIZE), min(inputs, MAX_SIZE)
    y = {
        (o, i, *place): sum(b * h for b, h in zip(block[o][i], hidden[place], strict=True))
        for o in range(few_outputs)
        for i in range(few_inputs)
        for place in hidden
    }
    rms = sqrt(sum(value**2 for value in y.values()) / len(y) + EPS)
    gain = decoder.gain.weight[0].tolist()
    g = sum((w * m for w, m in zip(gain, mixed, strict=True)), start=decoder.gain.bias.tolist()[0])
    size = {"weight": sqrt(2 / slot.fan_in), "head": sqrt(1 / slot.fan_in), "table": 0.02}[kind]
    size *= exp(max(-2.0, min(2.0, g)))
    rest = prod(space[2:])
    return [
        size * y[o % few_outputs, i % few_inputs, h % rows, w % columns] / rms
        for o in range(outputs)
        for i in range(inputs)
        for h in range(height)
        for w in range(width * rest)
    ]


def naive(decoder: TensorDecoder, state: Tensor, slot: ParameterSlot) -> Tensor:
    """One tensor, straight from the docstring of `TensorDecoder`."""
    read = state.tolist()
    if decoder.mip:
        angles = [pi / 2 / (1 + exp(-s)) for s in read]
        read = [*(cos(a) for a in angles), *(sin(a) for a in angles)]
    with torch.no_grad():
        mixed = decoder.mix(torch.tensor(read, dtype=torch.double)).tolist()
    if len(slot.shape) == 1:
        kind = {"bias": "head_bias" if slot.is_head else "bias", "position": "shift"}.get(
            slot.role, slot.role
        )
        numbers = naive_vector(decoder, kind, mixed, slot.shape[0])
    else:
        kind = "table" if slot.role in ("embedding", "position") else "head" if slot.is_head else "weight"
        numbers = naive_matrix(decoder, kind, mixed, slot)
    return torch.tensor(numbers, dtype=torch.double).view(slot.shape)


@pytest.mark.parametrize("mip", [False, True])
def test_every_tensor_follows_the_formulas(mip: bool) -> None:
    decoder, state = make_decoder(mip=mip), states(len(SLOTS))
    with torch.no_grad():
        decoded = decoder(state, SLOTS)
    for row, slot in enumerate(SLOTS):
        torch.testing.assert_close(decoded[row], naive(decoder, state[row], slot), rtol=1e-9, atol=1e-9)


def test_tensors_are_decoded_without_regard_to_the_others() -> None:
    decoder, state = make_decoder(mip=False), states(len(SLOTS))
    with torch.no_grad():
        together = decoder(state, SLOTS)
        for row, slot in enumerate(SLOTS):
            (alone,) = decoder(state[row : row + 1], [slot])
            torch.testing.assert_close(alone, together[row], rtol=1e-12, atol=1e-12)


def test_first_weights_have_the_size_that_keeps_signals_alive() -> None:
    decoder = make_decoder(mip=False, max_size=256, max_kernel=9)
    torch.nn.init.zeros_(decoder.gain.weight)
    torch.nn.init.zeros_(decoder.gain.bias)
    graphs = (wide_graph(), *sampled_graphs("convnet", 3))
    slots = [slot for graph in graphs for slot in encode(graph).slots if max(slot.shape) <= 256]  # not tiled
    with torch.no_grad():
        decoded = decoder(states(len(slots)), slots)
    for slot, tensor in zip(slots, decoded, strict=True):
        rms = float(tensor.square().mean().sqrt())
        if slot.role == "weight":
            assert rms == pytest.approx(sqrt((1 if slot.is_head else 2) / slot.fan_in), rel=1e-3)
        elif len(slot.shape) > 1:
            assert rms == pytest.approx(0.02, rel=1e-3)
        elif slot.role == "scale":
            assert tensor.min() > 0
            assert tensor.max() < 2
        else:
            assert tensor.abs().max() < 1


def test_a_gain_changes_sizes_by_a_factor_of_at_most_seven() -> None:
    decoder = make_decoder(mip=False, max_size=8, max_kernel=1)
    torch.nn.init.zeros_(decoder.gain.weight)
    slot = ParameterSlot("n1.weight", 1, (4, 8), "weight", 8, False)
    for bias, factor in ((0.5, exp(0.5)), (100.0, exp(2)), (-100.0, exp(-2))):
        torch.nn.init.constant_(decoder.gain.bias, bias)
        (tensor,) = decoder(states(1), [slot])
        assert float(tensor.detach().square().mean().sqrt()) == pytest.approx(factor * sqrt(2 / 8), rel=1e-4)


@pytest.mark.parametrize("magnitude", [0.0, 1e-3, 1.0, 1e3])
def test_with_mip_the_decoder_reads_vectors_of_one_norm(magnitude: float) -> None:
    decoder = make_decoder(mip=True)
    seen: list[Tensor] = []
    decoder.mix.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    decoder(magnitude * states(len(SLOTS)), SLOTS)
    torch.testing.assert_close(seen[0].norm(dim=1), torch.full((len(SLOTS),), sqrt(DIM), dtype=torch.double))


# ---- the autograd function that is written by hand

SIZES = ((3, 2), (4, 4), (1, 3), (3, 2))


def unit_block_inputs() -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    counts, positions = (2, 1, 3, 1), (4, 1, 2, 1)
    tensors = [torch.randn(4, 4, 3, dtype=torch.double, generator=rng)]
    tensors += [
        torch.randn(t, s, 3, dtype=torch.double, generator=rng)
        for t, s in zip(counts, positions, strict=True)
    ]
    tensors += [torch.rand(t, dtype=torch.double, generator=rng) + 0.5 for t in counts]
    return [tensor.requires_grad_() for tensor in tensors]


def unit_blocks(block: Tensor, *hidden_and_scale: Tensor) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...] = _UnitBlocks.apply(block, SIZES, *hidden_and_scale)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return result


def test_the_gradient_written_by_hand_is_the_numerical_one() -> None:
    assert torch.autograd.gradcheck(unit_blocks, unit_block_inputs())


def test_the_gradient_written_by_hand_is_that_of_autograd_where_some_results_are_not_used() -> None:
    def by_autograd(block: Tensor, *hidden_and_scale: Tensor) -> tuple[Tensor, ...]:
        results = []
        for (o, i), hidden, scale in zip(SIZES, hidden_and_scale[:4], hidden_and_scale[4:], strict=True):
            y = torch.einsum("tsc,oic->tois", hidden, block[:o, :i])
            rms = (y.square().mean(dim=(1, 2, 3), keepdim=True) + EPS).sqrt()
            results.append(scale.view(-1, 1, 1, 1) * y / rms)
        return tuple(results)

    gradients = []
    for function in (unit_blocks, by_autograd):
        inputs = unit_block_inputs()
        results = function(*inputs)
        loss = results[0].sin().sum() + (results[2] ** 3).sum()  # the others get no gradient
        gradients.append(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
