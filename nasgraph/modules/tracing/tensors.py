"""What tells two tensors apart: their memory, their wrappers; and their shadows on the meta device."""

import torch
from torch import Tensor
from torch._C import _functorch


def meta_copy(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def on_meta(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type == "meta" else meta_copy(tensor)


def holds_the_same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one memory are the same elements in the same order."""
    return (
        first.numel() == second.numel()
        and first.storage_offset() == second.storage_offset()
        and first.is_contiguous()
        and second.is_contiguous()
    )


def are_apart(first: Tensor, second: Tensor) -> bool:
    """Whether two cuts of one tensor share no element. Cuts by other strides count as overlapping."""
    strides = first.stride()
    if strides != second.stride():
        return False
    offsets = [first.storage_offset(), second.storage_offset()]
    for axis in sorted(range(len(strides)), key=lambda axis: -strides[axis]):
        if strides[axis] == 0:
            return False
        starts = [offset // strides[axis] for offset in offsets]
        offsets = [offset % strides[axis] for offset in offsets]
        if starts[0] + first.shape[axis] <= starts[1] or starts[1] + second.shape[axis] <= starts[0]:
            return True
    return offsets[0] != offsets[1]


def innermost(tensor: Tensor) -> Tensor:
    """The plain tensor inside the wrappers of `torch.vmap`."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def inner_storage(tensor: Tensor) -> int:
    return storage(innermost(tensor))


def storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
