"""What all benchmark scripts share: the facts of the machine, rank statistics with intervals, result files."""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.stats import kendalltau

from nasgraph.files import write_json
from nasgraph.seeding import generator

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def environment() -> dict[str, object]:
    """Hardware, versions, command and date of this run."""
    packages = ("torch", "optuna", "mlflow", "numpy", "torch-geometric")
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "command": " ".join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def tau_with_interval(
    score: Sequence[float], truth: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Kendall's tau-b with a 95 % percentile bootstrap interval over architectures. NaN scores rank last."""
    x = np.nan_to_num(np.asarray(score, dtype=float), nan=-1e30)
    y = np.asarray(truth, dtype=float)
    rng = generator(seed, "bootstrap")
    draws = []
    for _ in range(resamples):
        index = rng.integers(len(x), size=len(x))
        draws.append(kendalltau(x[index], y[index]).statistic)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {"tau": float(kendalltau(x, y).statistic), "low": float(low), "high": float(high)}


def tau_difference(
    first: Sequence[float],
    second: Sequence[float],
    truth: Sequence[float],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Tau of `first` less tau of `second` with a paired 95 % bootstrap interval."""
    a, b, y = (np.nan_to_num(np.asarray(v, dtype=float), nan=-1e30) for v in (first, second, truth))
    rng = generator(seed, "bootstrap")
    draws = []
    for _ in range(resamples):
        i = rng.integers(len(y), size=len(y))
        draws.append(kendalltau(a[i], y[i]).statistic - kendalltau(b[i], y[i]).statistic)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {
        "difference": float(kendalltau(a, y).statistic - kendalltau(b, y).statistic),
        "low": float(low),
        "high": float(high),
    }


def cpu_seconds(function: Callable[[], T]) -> tuple[T, float]:
    """Run a function; return its result and the CPU seconds (user and system) of this process."""
    started = time.process_time()
    result = function()
    return result, time.process_time() - started


def save(name: str, result: Mapping[str, object]) -> Path:
    """Write a result file with the facts of the machine beside the numbers."""
    path = RESULTS / f"{name}.json"
    write_json(path, {"environment": environment(), **result})
    return path
