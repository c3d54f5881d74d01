"""Sections of docs/results.md about predictors, from their result files. Called by `benchmarks.report`."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.ghn.report import load, machine, table

BARS = {
    ("A", 39): (".762", ".667", ".80"),
    ("A", 78): (".826", ".677", ".85"),
    ("A", 156): (".852", ".765", ".865"),
    ("A", 469): (".873", ".836", ".88"),
    ("B", 78): (".842", ".836", ".86"),
    ("NB101", 100): (".751", ".717", ".77"),
    ("NB101", 172): (".774", ".765", ".79"),
    ("NB101", 424): (".798", ".812", ".82"),
    ("NB-Graph cora", 100): (".32", "", ".45"),
    ("NB-Graph arxiv", 100): (".54", "", ".65"),
    ("NB-Graph cs", 100): (".56", "", ".65"),
}
"""Before the start: the plain ensemble or process measured then, the best published value, and the aim."""


def predictor_protocols() -> str:
    """Tau with everything that has no label, per table and number of labels."""
    result = load("predictor_protocols")
    if result is None:
        return "Not measured yet."
    rows = [_row(job, result["ceilings"]) for job in result["jobs"]]
    columns = (
        "protocol", "labels", "predictor", "seeds", "Kendall tau-b", "Spearman", "precision at 1 %", "top-1", "top-10",
        "90 % interval holds", "fit s", "bar", "published", "aim", "ceiling",
    )  # fmt: skip
    return (
        "Mean ± standard deviation over seeds; labels are random rows, all other rows are judged. One configuration for all. "
        "A: NAS-Bench-201, CIFAR-10, learnt from mean validation accuracy, judged by mean test accuracy, all 15,625 cells or, where stated, the 9,445 "
        "without dead edges, with 13 stored zero-cost proxies. B: test accuracy, halves of the table. C: as A without proxies. NB101: 30,001 cells, "
        "best of three runs, no proxies. NB-Graph: 26,206 networks, validation to test. Ceiling: tau of the true training metric with the test metric. "
        f"{machine(result)}, one thread, the machine shared with other work. File: `predictor_protocols.json`.\n\n"
        f"{table(columns, rows)}"
    )


def _row(job: Mapping[str, Any], ceilings: Mapping[str, float]) -> list[object]:
    bar = (
        BARS.get((job["name"], job["num_train"]), ("", "", ""))
        if job["predictor"] == "ensemble"
        else ("", "", "")
    )
    coverage = job.get("coverage_90")
    percent = job["table"] == "nasbench201"
    ceiling = ceilings.get(job["name"])
    return [
        job["name"],
        job["num_train"],
        job["predictor"],
        job["seeds"],
        _spread(job["kendall_tau"]),
        _spread(job["spearman"]),
        _spread(job["precision_at_1_percent"], digits=2),
        f"{job['top1']['mean']:.2f}" if percent else f"{job['top1']['mean']:.4f}",
        f"{job['top10']['mean']:.2f}" if percent else f"{job['top10']['mean']:.4f}",
        _spread(coverage, digits=2) if coverage else "",
        f"{job['fit_seconds']['mean']:.1f}",
        *bar,
        f"{ceiling:.3f}" if ceiling else "",
    ]


def _spread(value: Mapping[str, float | None], *, digits: int = 3) -> str:
    mean, std = value["mean"], value["std"]
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def zero_cost() -> str:
    """Each proxy against accuracy, beside the values published for the same cells, and the speed."""
    result, speed = load("zero_cost_nb201"), load("zero_cost_speed")
    if result is None or speed is None:
        return "Not measured yet."
    names = sorted(result["proxies"], key=lambda name: -result["proxies"][name]["spearman"])
    rows = []
    for name in names:
        one = result["proxies"][name]
        rows.append(
            [
                f"`{name}`",
                f"{one['spearman']:.3f}",
                f"{one['tau']:.3f} [{one['low']:.3f}, {one['high']:.3f}]",
                _optional(one.get("spearman, published values, same cells")),
                _optional(one.get("spearman, ours with published values")),
                one["undefined"],
            ]
        )
    columns = (
        "proxy",
        "Spearman",
        "Kendall tau-b [95 %]",
        "Spearman of the stored values",
        "rank agreement with them",
        "undefined",
    )
    return (
        f"{result['cells']} random cells of the 9,445 without dead edges, the real network of 5 cells per stage, {result['batch']} images of CIFAR-10, "
        f"one draw of weights, against the mean test accuracy after 200 epochs. {result['CPU seconds per cell, all proxies']:.1f} CPU seconds per cell for all. "
        "Stored values: NAS-Bench-Suite-Zero, same cells.\n\n"
        f"{table(columns, rows)}\n\n"
        f"Speed beside the code of zero-cost-nas (Abdelfattah et al. 2021) in one process, same networks, weights and batch of {speed['batch']}, "
        f"{speed['cells']} cells, {', '.join(speed['measures'])}: {speed['CPU seconds per cell, ours']:.1f} against "
        f"{speed['CPU seconds per cell, reference']:.1f} CPU seconds per cell, {speed['ratio of totals']:.1f} times as fast "
        f"(per cell {speed['ratio per cell']['min']:.1f} to {speed['ratio per cell']['max']:.1f}). {machine(result)}. "
        "Files: `zero_cost_nb201.json`, `zero_cost_speed.json`."
    )


def robot() -> str:
    """RoBoT with 20 queries, beside what it is compared with."""
    result = load("robot")
    if result is None:
        return "Not measured yet."
    rows = []
    for population in ("9445", "15625"):
        for name, one in result[f"cifar10 {population}"].items():
            if isinstance(one, dict) and one.get("seeds"):
                rows.append(
                    [
                        population,
                        name,
                        one["seeds"],
                        f"{one['mean']:.2f} ± {one['std']:.2f}",
                        f"{one['lowest']:.2f}",
                    ]
                )
            elif isinstance(one, float) and name.startswith("top of"):
                rows.append([population, f"20 best by one score: {name[7:]}", "", f"{one:.2f}", ""])
    columns = ("cells", "method", "seeds", "test accuracy, percent", "lowest")
    return (
        f"NAS-Bench-201, CIFAR-10, {result['num_queries']} queries of 12-epoch validation accuracy, six stored proxies; test accuracy after 200 epochs of the "
        f"best by query. Published: {result['published']['cifar10']}. The optimum, 94.37, is among the 20 that synflow alone puts on top, which says more of "
        f"this table than of any method. {machine(result)}. File: `robot.json`.\n\n{table(columns, rows)}"
    )


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "predictor protocols": predictor_protocols,
    "zero-cost proxies": zero_cost,
    "robot": robot,
}
"""Every section by its name."""
