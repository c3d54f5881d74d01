"""Several processes that train one hypernetwork together, started by `torchrun`.

Each rank predicts and runs its share of a step's architectures; sums of gradients and losses travel. This is
what `DistributedDataParallel` does, written out, because the ranks' steps differ: an architecture uses some parts of the
decoder and not others, one rank may have no finite loss at all, and the mean is over the finite ones of all ranks.
"""

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from nasgraph.errors import ConfigError, NasGraphError


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


MEETING_S = 600.0
"""How long ranks wait for each other when they start."""

_PROPOSAL, _ANSWER, _BEGUN = "nasgraph/proposal", "nasgraph/answer/{}", "nasgraph/begun/{}"


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
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    shared, _, _ = next(distributed.rendezvous("env://", rank, size))
    store = distributed.PrefixStore(agreed_name(shared, rank, size), shared)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def agreed_name(store: distributed.Store, rank: int, size: int, *, timeout_s: float = MEETING_S) -> str:
    """A name for this meeting that all ranks of it know, and that no earlier meeting had.

    `torchrun` gives processes that it starts again the store of those that died, and with it their addresses: whoever reads
    them before they are overwritten calls a port where nobody listens. So rank 0 proposes a name, the others answer it with a
    name of their own, and the meeting begins when the answers are to this proposal: each rank finds its own answer there.

    Raises:
        NasGraphError: If not all ranks have come in time.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + timeout_s
    if rank == 0:
        store.set(_PROPOSAL, mine)
    while time.monotonic() < deadline:
        proposal = store.get(_PROPOSAL).decode() if store.check([_PROPOSAL]) else ""
        if rank == 0:
            keys = [_ANSWER.format(other) for other in range(1, size)]
            answers = [store.get(key).decode() for key in keys] if store.check(keys) else []
            if len(answers) == size - 1 and all(answer.startswith(mine) for answer in answers):
                store.set(_BEGUN.format(mine), " ".join(answers))
                return mine
        elif proposal:
            begun, answer = _BEGUN.format(proposal), proposal + mine
            store.set(_ANSWER.format(rank), answer)
            if store.check([begun]) and answer in store.get(begun).decode().split():
                return proposal
        time.sleep(0.02)
    raise NasGraphError(
        f"Not all {size} processes came together within {timeout_s:g} s. See why one did not start"
    )
