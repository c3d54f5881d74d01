"""Time and peak memory to predict the parameters of a network of about ten million parameters.

    python benchmarks/predict_large.py --ghn zoo/ghn-digits

Each repeat runs in a process of its own, so that peak memory is that of one prediction.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.common import save
from nasgraph.encode import encode
from nasgraph.hyper import load_ghn
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of


def residual_network(num_blocks: int, width: int) -> ComputationalGraph:
    """A ResNet-like classifier of 8x8 digits: stages of width, 2 width and 4 width."""
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(1, 8, 8)), out_channels=width, kernel_size=3, padding=1)
    for stage in range(3):
        channels = width * 2**stage
        for block in range(num_blocks):
            stride = 2 if stage and not block else 1
            y = g(
                "relu",
                g(
                    "batch_norm",
                    g("conv2d", x, out_channels=channels, kernel_size=3, padding=1, stride=stride),
                ),
            )
            y = g("batch_norm", g("conv2d", y, out_channels=channels, kernel_size=3, padding=1))
            shortcut = (
                x
                if g.shape(x) == g.shape(y)
                else g("conv2d", x, out_channels=channels, kernel_size=1, stride=stride)
            )
            x = g("relu", g("add", y, shortcut))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=10))


def once(folder: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    graph = residual_network(num_blocks=3, width=112)
    ghn, _ = load_ghn(folder)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.process_time()
    encoded = encode(graph)
    encode_cpu = time.process_time() - started
    started = time.process_time()
    (parameters,) = ghn.predict([encoded])
    cold_cpu = time.process_time() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.process_time()
    ghn.predict([encoded])
    warm_cpu = time.process_time() - started
    size = sum(tensor.numel() for tensor in parameters.values())
    assert size == cost_of(graph).num_parameters
    return {
        "parameters": size,
        "nodes": len(graph),
        "encode CPU s": encode_cpu,
        "predict CPU s, first call": cold_cpu,
        "predict CPU s, second call": warm_cpu,
        "result MiB": 4 * size / 2**20,
        "peak extra MiB, result included": peak_mib - before_mib,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ghn", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(arguments.ghn)))
        return
    command = [sys.executable, "-m", "benchmarks.predict_large", "--once", "--ghn", str(arguments.ghn)]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(arguments.repeats)
    ]
    summary = {
        name: {
            "median": median(run[name] for run in runs),
            "min": min(run[name] for run in runs),
            "max": max(run[name] for run in runs),
        }
        for name in runs[0]
    }
    print(save("predict_large", {"repeats": arguments.repeats, "threads": 1, **summary}).read_text())


if __name__ == "__main__":
    main()
