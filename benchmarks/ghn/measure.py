"""Times and memory of functions in one process, interleaved, and the limits of the machine in the same run."""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

Measured = dict[str, float | None]


def interleaved(functions: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, Measured]:
    """CPU seconds of each function, one after the other, round after round; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            started = time.process_time()
            function()
            times[name].append(time.process_time() - started)
    return {
        name: {"median s": median(warm), "min s": min(warm), "max s": max(warm)}
        for name, (_, *warm) in times.items()
    }


def peak_extra_mib(function: Callable[[], object]) -> float | None:
    """Largest resident memory during a call, less that before it; None where the system keeps no such peak.

    Freed memory is given back first, so that a method cannot live on what another has left.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status_kib(status, "VmRSS")
    function()
    return (_status_kib(status, "VmHWM") - before) / 1024


def _status_kib(status: Path, name: str) -> float:
    return float(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name)))


def limits() -> dict[str, float]:
    """What one thread of this machine can do: bytes written and products multiplied per second."""
    warm = torch.ones(25_000_000)
    fill = interleaved({"fill": lambda: warm.fill_(2.0)}, repeats=7)["fill"]["median s"]
    fresh = interleaved({"new": lambda: torch.full((25_000_000,), 2.0)}, repeats=5)["new"]["median s"]
    assert fill is not None
    assert fresh is not None
    result = {"fill GB/s": 0.1 / fill, "fill of new memory GB/s": 0.1 / fresh}
    for dtype in (torch.float32, torch.bfloat16):
        first, second = torch.randn(2048, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
        seconds = interleaved({"mm": lambda a=first, b=second: a @ b}, repeats=7)["mm"]["median s"]  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
        assert seconds is not None
        result[f"{str(dtype)[6:]} GFLOP/s"] = 2 * 2048 * 1024 * 1024 / seconds / 1e9
    return result
