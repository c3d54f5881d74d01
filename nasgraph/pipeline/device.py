"""The device that a run uses."""

import torch

from nasgraph.errors import ConfigError


def pick_device(wanted: str, *, threads: int | None = 1) -> torch.device:
    """The named device, or with "auto" CUDA, Apple's MPS or the CPU, whichever comes first.

    On the CPU torch is told to use `threads` threads. One is right for the small networks of a search: with two, the
    training of a candidate on digits took 15 times the CPU time of one thread on a busy machine. More pay for large images.

    Args:
        wanted: "auto", "cpu", "cuda", "cuda:1" ...
        threads: Threads of one CPU operation; None: leave torch's setting alone.

    Raises:
        ConfigError: If the name is unknown, or this machine has no such device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"Cannot use the device '{wanted}': {reason}") from error
    return device
