"""Several processes that train one hypernetwork together, started by `torchrun`.

Each rank predicts and runs its share of a step's architectures; sums of gradients and losses travel. This is
what `DistributedDataParallel` does, written out, because the ranks' steps differ: an architecture uses some parts of the
decoder and not others, one rank may have no finite loss at all, and the mean is over the finite ones of all ranks.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from nasgraph.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ranks:
    """The place of this process among those that train together.

    Attributes:
        rank: Number of this process, from 0. Only rank 0 writes files.
        size: Number of processes. With 1 nothing travels and nothing changes.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ConfigError(f"Expected 'rank' from 0 to {self.size - 1} (got {self.rank})")

    def sum_over_ranks(self, values: Tensor) -> None:
        """Replace a tensor by its sum over all ranks."""
        if self.size > 1:
            distributed.all_reduce(values)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their sums, in one message. None, as without ranks, where no rank has one."""
        if self.size == 1:
            return
        own = list(parameters)
        used = torch.tensor([float(p.grad is not None) for p in own], device=own[0].device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
        flat = torch.cat([used, *(grad.flatten() for grad in grads)])
        self.sum_over_ranks(flat)
        sums = torch.split(flat[len(own) :], [parameter.numel() for parameter in own])
        for parameter, is_used, total in zip(own, flat[: len(own)].tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter) if is_used else None


def launched_together() -> bool:
    """Whether `torchrun` started this process."""
    return distributed.is_torchelastic_launched()


def local_rank() -> int:
    """Number of this process on its machine: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; alone where it did not.

    Args:
        device: Where this process trains: gradients travel by NCCL between GPUs, by Gloo otherwise.
    """
    if not launched_together():
        yield Ranks()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
