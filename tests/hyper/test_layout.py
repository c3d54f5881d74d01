"""How tensors of every rank and role are laid out, and how blocks are tiled."""

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.encode import ParameterSlot
from nasgraph.hyper.layout import fitting, grouped, kind_of, repeat_block, size_of, tile
from nasgraph.ir import Role

ROLES: tuple[Role, ...] = ("weight", "bias", "scale", "shift", "embedding", "position")


def slot(
    shape: tuple[int, ...], role: Role, *, is_head: bool = False, is_kernel: bool = True
) -> ParameterSlot:
    return ParameterSlot("n0.weight", 0, shape, role, 4, is_head, is_kernel)


@pytest.mark.parametrize(
    ("shape", "is_kernel", "size"),
    [
        ((), True, (1, 1, 1, 1, 1)),
        ((5,), True, (1, 5, 1, 1, 1)),
        ((5, 3), True, (5, 3, 1, 1, 1)),
        ((5, 3, 7), True, (5, 3, 1, 7, 1)),  # a convolution along one axis
        ((5, 3, 7), False, (15, 7, 1, 1, 1)),  # five experts
        ((5, 3, 7, 2), True, (5, 3, 1, 7, 2)),
        ((5, 3, 4, 7, 2), True, (5, 3, 4, 7, 2)),
        ((5, 3, 4, 7, 2), False, (420, 2, 1, 1, 1)),
    ],
)
def test_weights_are_kernels_or_stacks_of_matrices(
    shape: tuple[int, ...], is_kernel: bool, size: tuple[int, ...]
) -> None:
    assert size_of(slot(shape, "weight", is_kernel=is_kernel)) == size


def test_tables_are_stacks_of_vectors() -> None:
    assert size_of(slot((1, 197, 384), "position")) == (197, 384, 1, 1, 1)
    assert size_of(slot((50, 8), "embedding")) == (50, 8, 1, 1, 1)


@pytest.mark.parametrize("shape", [(), (4,), (1, 4), (4, 1, 1), (2, 3, 4, 1), (1, 2, 3, 1, 4)])
def test_biases_scales_and_shifts_are_vectors_whatever_their_rank(shape: tuple[int, ...]) -> None:
    assert [kind_of(slot(shape, role)) for role in ("bias", "scale", "shift")] == ["bias", "scale", "shift"]
    assert kind_of(slot(shape, "bias", is_head=True)) == "head_bias"
    assert kind_of(slot(shape, "weight")) == "weight"
    assert kind_of(slot(shape, "weight", is_head=True)) == "head"
    assert kind_of(slot(shape, "embedding")) == "table"
    assert kind_of(slot(shape, "position")) == ("table" if len(shape) > 1 else "shift")


@given(st.sampled_from(ROLES), st.lists(st.integers(1, 9), max_size=5), st.booleans())
def test_a_size_has_as_many_elements_as_the_tensor(role: Role, shape: list[int], is_kernel: bool) -> None:
    assert prod(size_of(slot(tuple(shape), role, is_kernel=is_kernel))) == prod(shape)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 11)), min_size=1, max_size=5))
def test_repeating_in_place_is_tiling(axes: list[tuple[int, int]]) -> None:
    size = [wanted for _, wanted in axes]
    block = torch.arange(prod(min(axis) for axis in axes)).view([min(axis) for axis in axes])
    expected = torch.empty(size, dtype=torch.int64)
    for index in torch.cartesian_prod(*map(torch.arange, size)).view(-1, len(size)).tolist():
        expected[tuple(index)] = block[tuple(i % n for i, n in zip(index, block.shape, strict=True))]
    assert torch.equal(tile(block, size), expected)
    out = torch.full(size, -1)
    out[tuple(map(slice, block.shape))] = block
    repeat_block(out, block.shape)
    assert torch.equal(out, expected)


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 20))
def test_what_fits_together_is_kept_together_in_order(costs: list[int], limit: int) -> None:
    rows = list(range(len(costs)))
    parts = list(fitting(rows, costs, limit))
    assert [row for part in parts for row in part] == rows
    for part, following in zip(parts, [*parts[1:], []], strict=False):
        used = sum(costs[row] for row in part)
        assert len(part) == 1 or used <= limit
        if following:
            assert used + costs[following[0]] > limit


def test_groups_keep_the_order_in_which_keys_come() -> None:
    assert grouped(["b", "a", "b"]) == [("b", [0, 2]), ("a", [1])]
