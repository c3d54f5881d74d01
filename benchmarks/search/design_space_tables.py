"""Are published architectures in our spaces what their tables say? And how long does a graph take to build?

- HW-GPT-Bench (Sukthanker et al. 2024): the parameters of all 10,000 networks of GPT-S, exactly.
- Once-for-all MobileNetV3 with latencies on twelve settings (HELP, Lee et al. 2021): every architecture is built, and the rank
  agreement of its multiply-adds and activations with each latency is reported.
- CPU time to build, nodes and parameters of every space at several image sizes.

Needs the shared tables for the first two. Run from the root: `python -m benchmarks.search.design_space_tables`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from math import prod

import numpy as np
from scipy.stats import kendalltau

from benchmarks.common import SHARED_DATA, save
from nasgraph.ir import cost_of
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, Choice, SearchSpace, replay, sample
from search_spaces.autoformer import AutoFormer
from search_spaces.darts import DARTS, NASNet
from search_spaces.efficientnet import EfficientNet
from search_spaces.gpt import hw_gpt_bench
from search_spaces.mobilenetv3 import MobileNetV3
from search_spaces.regnet import AnyNet, RegNet

SPACES: tuple[Callable[..., SearchSpace], ...] = (
    DARTS,
    NASNet,
    MobileNetV3,
    RegNet,
    AnyNet,
    EfficientNet,
    AutoFormer,
)
SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 224, 224))


def build_times(repeats: int) -> list[dict[str, object]]:
    """Median CPU milliseconds to sample and build, of each space and shape: the machine may be shared."""
    rows: list[dict[str, object]] = []
    for make in SPACES:
        for shape in SHAPES:
            space = make(input_shape=shape, num_classes=10)
            rng = generator(0, "build-times", space.name)
            times, nodes, parameters = [], [], []
            for _ in range(repeats):
                started = time.process_time()
                graph = sample(space, rng).graph
                times.append((time.process_time() - started) * 1e3)
                nodes.append(len(graph))
                parameters.append(cost_of(graph).num_parameters)
            rows.append(
                {
                    "space": space.name,
                    "input_shape": list(shape),
                    "build_cpu_ms_median": round(statistics.median(times), 3),
                    "build_cpu_ms_95": round(float(np.quantile(times, 0.95)), 3),
                    "nodes_median": statistics.median(nodes),
                    "parameters_median": statistics.median(parameters),
                }
            )
            print(rows[-1], flush=True)
    return rows


def hw_gpt(limit: int) -> dict[str, object]:
    """How many networks of HW-GPT-Bench have exactly the stated parameters."""
    table = np.load(SHARED_DATA / "hwgpt_bench_s.npz")
    columns = [table[name] for name in ("embed_dim", "n_layer", "n_head", "mlp_ratio", "bias", "params")]
    space = hw_gpt_bench()
    equal, total = 0, min(limit, len(columns[0]))
    for dim, depth, heads, ratios, bias, parameters in zip(
        *(column[:total] for column in columns), strict=True
    ):
        choices: list[tuple[str, Choice]] = [("dim", int(dim)), ("activation", "swiglu_full")]
        choices += [("norm", "layer_norm"), ("norm_place", "before"), ("bias", bool(bias)), ("tied", False)]
        choices += [("positions", False), ("depth", int(depth))]
        for place in range(int(depth)):
            choices.append((f"layer{place}_heads", int(heads[place])))
            choices.append((f"layer{place}_mlp_ratio", int(ratios[place])))
        graph = replay(space, Architecture("gpt", tuple(choices))).graph
        equal += cost_of(graph).num_parameters == int(parameters)
    return {"networks": total, "with_exactly_the_parameters": equal}


def once_for_all(limit: int) -> dict[str, object]:
    """Build every sub-network of the latency table at its resolution; rank agreement of costs with latencies."""
    table = np.load(SHARED_DATA / "ofa_mobilenetv3_latency.npz")
    total = min(limit, len(table["resolution"]))
    costs: list[tuple[int, int, int]] = []
    for row in range(total):
        side = int(table["resolution"][row])
        space = MobileNetV3(input_shape=(3, side, side), num_classes=1000)
        depths = table["depth"][row].tolist()
        choices: list[tuple[str, Choice]] = [
            (f"stage{stage}_depth", depth) for stage, depth in enumerate(depths)
        ]
        for stage, depth in enumerate(depths):
            for block in range(depth):
                place = 4 * stage + block
                choices.append((f"stage{stage}_block{block}_kernel", int(table["kernel_size"][row, place])))
                choices.append(
                    (f"stage{stage}_block{block}_expansion", float(table["expand_ratio"][row, place]))
                )
        graph = replay(space, Architecture("mobilenetv3", tuple(choices))).graph
        activations = sum(
            prod(shape) for shape, node in zip(graph.shapes, graph.nodes, strict=True) if node.op == "conv2d"
        )
        costs.append((cost_of(graph).multiply_adds, activations, len(graph)))
    by_cost = list(zip(*costs, strict=True))
    agreement = {}
    for place, device in enumerate(table["device_names"].tolist()):
        latency = table["latency_ms"][:total, place]
        agreement[device] = {
            name: round(float(kendalltau(values, latency).statistic), 4)
            for name, values in zip(("multiply_adds", "activations", "nodes"), by_cost, strict=True)
        }
    return {"architectures": total, "expressed": len(costs), "kendall_tau_with_latency": agreement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=10_000, help="Rows of each table.")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    result: dict[str, object] = {"build_times": build_times(arguments.repeats)}
    if SHARED_DATA.is_dir():
        result["hw_gpt_bench"] = hw_gpt(arguments.limit)
        result["once_for_all"] = once_for_all(arguments.limit)
    else:
        print(f"no tables at '{SHARED_DATA}': only build times")
    print(result, flush=True)
    save("design_space_tables", result)


if __name__ == "__main__":
    main()
