"""How a parameter tensor of any rank and role is laid out for a decoder, and how large its numbers should be.

Letters: O, I = outputs and inputs of a weight, Z, Y, X = depth, height and width of a kernel, T = tensors, D = state
size, L = length of a vector.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import pi, prod
from typing import TypeVar

import torch
from torch import Tensor

from nasgraph.encode import ParameterSlot

MATRIX_KINDS = ("weight", "head", "table")
VECTOR_KINDS = ("bias", "scale", "shift", "head_bias")
EPS = 1e-8
WORKSPACE_BYTES = 2**23
"""Memory for products before they are written, where nobody says otherwise."""

Size = tuple[int, int, int, int, int]
Key = TypeVar("Key")


def kind_of(slot: ParameterSlot) -> str:
    """Which output layer decodes a slot.

    Biases, scales and shifts are vectors, whatever their rank; so are free parameters of one axis, which start near
    zero like shifts. Weights, embeddings and free parameters of more axes are matrices.
    """
    if slot.role == "position" and len(slot.shape) < 2:
        return "shift"
    if slot.role in ("embedding", "position"):
        return "table"
    if slot.role == "weight":
        return "head" if slot.is_head else "weight"
    return "head_bias" if slot.is_head and slot.role == "bias" else slot.role


def size_of(slot: ParameterSlot) -> Size:
    """Outputs, inputs, depth, height and width of a matrix, in the order of the tensor's axes.

    Kernels are outputs x inputs x space: one axis of space is a height, two are height and width, three have a depth in
    front. Other tensors of more than two axes are stacks of matrices: their leading axes count as outputs. A tensor of
    one axis is one output.
    """
    shape = slot.shape
    if slot.role != "weight" or len(shape) < 3 or not slot.is_kernel:
        return (prod(shape[:-1]), shape[-1] if shape else 1, 1, 1, 1)
    outputs, inputs, *space = shape
    if len(space) == 1:
        return (outputs, inputs, 1, space[0], 1)
    return (outputs, inputs, prod(space[:-2]), space[-2], space[-1])


def target_rms(slot: ParameterSlot) -> float:
    """Root mean square that a matrix is given before its gain: see `TensorDecoder`."""
    rms: Mapping[str, float] = {
        "weight": (2 / slot.fan_in) ** 0.5,
        "head": (1 / slot.fan_in) ** 0.5,
        "table": 0.02,
    }
    return rms[kind_of(slot)]


def activate(kind: str, y_TL: Tensor) -> Tensor:
    """The values of vectors: around 1 for scales, around 0 for the others."""
    return 2 * torch.sigmoid(y_TL / 2) if kind == "scale" else torch.tanh(y_TL / 5)


def constant_norm(state_TD: Tensor) -> Tensor:
    """The input encoding of Ortiz et al. 2023, section 4: [T, D] to [T, 2 D], every row of norm sqrt(D)."""
    angle_TD = torch.sigmoid(state_TD) * (pi / 2)
    return torch.cat([angle_TD.cos(), angle_TD.sin()], dim=-1)


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors whose blocks have one shape, so that one product gives them all.

    Attributes:
        kind: Their kind.
        kernel: Height and width of the decoded kernel.
        size: Outputs and inputs of the decoded block.
        rows: Which of the slots they are.
    """

    kind: str
    kernel: tuple[int, int]
    size: tuple[int, int]
    rows: list[int]


def group_matrices(
    slots: Sequence[ParameterSlot], kinds: Sequence[str], *, max_size: int, max_kernel: int
) -> list[Group]:
    """Group the matrices of some kinds, groups of one kind and kernel next to each other."""
    groups: dict[str, dict[tuple[int, int], dict[tuple[int, int], list[int]]]] = {kind: {} for kind in kinds}
    for row, slot in enumerate(slots):
        kind = kind_of(slot)
        if kind in groups:
            outputs, inputs, _, height, width = size_of(slot)
            kernel = (min(height, max_kernel), min(width, max_kernel))
            size = (min(outputs, max_size), min(inputs, max_size))
            groups[kind].setdefault(kernel, {}).setdefault(size, []).append(row)
    return [
        Group(kind, kernel, size, rows)
        for kind, of_kind in groups.items()
        for kernel, of_kernel in of_kind.items()
        for size, rows in of_kernel.items()
    ]


def grouped(keys: Sequence[Key]) -> list[tuple[Key, list[int]]]:
    """The places of each key, in the order in which the keys first come."""
    groups: dict[Key, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    return list(groups.items())


def fitting(rows: Sequence[int], bytes_each: Sequence[int], max_bytes: int) -> Iterator[list[int]]:
    """Consecutive rows that fit into a memory limit together; at least one at a time."""
    some: list[int] = []
    used = 0
    for row, needed in zip(rows, bytes_each, strict=True):
        if some and used + needed > max_bytes:
            yield some
            some, used = [], 0
        some.append(row)
        used += needed
    if some:
        yield some


def split(tensor: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """Consecutive parts of the first axis, of these lengths."""
    parts: tuple[Tensor, ...] = torch.split_with_sizes(tensor, list(counts))
    return parts


def tile(block: Tensor, size: Sequence[int]) -> Tensor:
    """Repeat a block along the axes where it is too small, and crop it to `size`."""
    if tuple(block.shape) == tuple(size):
        return block
    repeats = [-(-wanted // have) for wanted, have in zip(size, block.shape, strict=True)]
    return block.repeat(repeats)[tuple(slice(wanted) for wanted in size)].contiguous()


def split_axes(tensor: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """One axis as several, of any tensor, contiguous or not; -1 stands for what is left. A view."""
    return torch.unflatten(tensor, axis, tuple(sizes))


def repeat_block(out: Tensor, size: Sequence[int]) -> None:
    """Repeat the block of this size that stands at the start of `out` over all of it, in place.

    The result is `tile(block, out.shape)`; every element is written once and nothing of full size is allocated.
    """
    for axis in reversed(range(out.ndim)):
        have, wanted = size[axis], out.shape[axis]
        if wanted == have:
            continue
        filled = out[tuple(slice(own) for own in size[:axis])]  # whole along this axis and the later ones
        source, copies = filled.narrow(axis, 0, have), wanted // have
        if copies > 1:
            rest = filled.narrow(axis, have, (copies - 1) * have)
            split_axes(rest, axis, (copies - 1, have)).copy_(source.unsqueeze(axis))
        if wanted % have:
            filled.narrow(axis, copies * have, wanted % have).copy_(source.narrow(axis, 0, wanted % have))
