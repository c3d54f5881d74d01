"""Sections of docs/results.md about hypernetworks, from their result files. Called by `benchmarks.report`."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.common import RESULTS

Result = dict[str, Any]


def load(name: str) -> Result | None:
    """A result file, if it exists."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine(result: Mapping[str, Any]) -> str:
    """The machine that a result was taken on."""
    facts = result["environment"]
    return f"{facts['processor']}, {facts['cores']} virtual cores, torch {facts['versions']['torch']}, {facts['date']}"


RANKING = (
    "num_parameters (1 cell, 16x16)",
    "synflow (1 cell, 16x16)",
    "nwot (1 cell, 16x16)",
    "jacov, median of 3 seeds (1 cell, 16x16)",
    "12-epoch validation accuracy (published)",
    "GDAS supernet accuracy (published)",
    "GHN zero-shot accuracy",
    "GHN zero-shot loss",
    "GHN init + 4 steps, loss",
    "GHN init + 16 steps, loss",
    "mean of ranks: num_parameters, minus_loss_0",
    "mean of ranks: num_parameters, nwot, jacov, median of 3 seeds",
    "mean of ranks: num_parameters, nwot, jacov, median of 3 seeds, minus_loss_0",
    "performance head on GHN embedding (100 labels, no twins)",
    "proxies and size (100 labels, no twins)",
    "proxies, size, GHN zero-shot, embedding (100 labels, no twins)",
    "stacked with head (100 labels, no twins)",
)


def ranking() -> str:
    """Kendall's tau of every score on NAS-Bench-201."""
    result = load("ranking_nb201")
    if result is None:
        return ""
    groups = result["tau"]
    names = [name for name in RANKING if name in groups["all cells"]]
    known = set(names)
    names += [name for name in groups["all cells"] if "(100 labels, no twins)" in name and name not in known]
    rows = []
    for name in names:
        cells = [name, groups["all cells"][name]["cells"]]
        for group in (
            "all cells",
            "all cells, better half",
            "no unreachable operations",
            "no unreachable operations, better half",
        ):
            value = groups.get(group, {}).get(name)
            cells.append(_tau(value) if value else "")
        rows.append(cells)
    costs = result["mean CPU seconds per architecture"]
    cost = ", ".join(f"{name} {seconds:.4f}" for name, seconds in costs.items())
    head = (
        f"{machine(result)}, busy. File: `ranking_nb201.json`. ↑ / ↓: above / below the parameter count by a paired bootstrap over cells. "
        "'No twins': the labelled cells share no graph with the evaluated ones.\n\n"
    )
    columns = [
        "score",
        "cells",
        "all cells",
        "better half",
        "no unreachable operations",
        "better half of these",
    ]
    return head + table(columns, rows) + f"\n\nMean CPU seconds per architecture: {cost}."


def ranking_convnet() -> str:
    """The same combinations on held-out convnets with our own truth."""
    result = load("ranking_convnet")
    if result is None:
        return ""
    cases = {name: case for name, case in result.items() if name != "environment"}
    labels = list(next(iter(cases.values()))["tau"])
    rows = []
    for label in labels:
        cells: list[object] = [label]
        for case in cases.values():
            value, half = (case["tau"][label][key] for key in ("all", "better half"))
            less = case["tau"][label]["less parameter count"]
            arrow = " ↑" if less["low"] > 0 else " ↓" if less["high"] < 0 else ""
            cells.append(
                f"{value['tau']:.2f} [{value['low']:.2f}, {value['high']:.2f}]{arrow}; {half['tau']:.2f}"
            )
        rows.append(cells)
    return (
        f"Kendall's tau [95 %] over all, then in the better half; {', '.join(str(c['architectures']) for c in cases.values())} held-out architectures. "
        f"{machine(result)}. File: `ranking_convnet.json`.\n\n" + table(["score", *cases], rows)
    )


def _tau(value: Mapping[str, float]) -> str:
    arrow = (
        " ↑" if value["above parameters, low"] > 0 else " ↓" if value["above parameters, high"] < 0 else ""
    )
    return f"{value['tau']:.3f} [{value['low']:.2f}, {value['high']:.2f}]{arrow}"


def predict_speed() -> str:
    """Time and memory of predicting parameters."""
    result = load("ghn_predict_speed")
    if result is None:
        return ""
    rows = []
    for name, case in result.items():
        if not isinstance(case, dict) or "CPU seconds" not in case:
            continue
        times, extra = case["CPU seconds"], case["peak extra MiB"]
        rows.append(
            [
                name,
                f"{case['parameters'] / 1e6:.1f}M",
                *(
                    _milliseconds(times.get(way))
                    for way in ("in place, fp32", "in place, bf16", "naive", "ghn3")
                ),
                f"{extra.get('in place, fp32', float('nan')):.0f} / {extra.get('naive', float('nan')):.0f}",
                f"{case['relative error']['fp32']['largest']:.0e}",
            ]
        )
    limits = result.get("limits before", {})
    told = ", ".join(f"{key} {value:.1f}" for key, value in limits.items())
    return (
        f"{machine(result)}, one thread, process CPU milliseconds, warm medians [least, most], interleaved. Limits measured in the same run: "
        f"{told}. 'naive' is our own plain form of the same mathematics, 'ghn3' the published code. File: `ghn_predict_speed.json`.\n\n"
        + table(
            [
                "network, decoder",
                "parameters",
                "in place, fp32",
                "bf16",
                "naive",
                "ghn3",
                "extra MiB, ours / naive",
                "largest relative error",
            ],
            rows,
        )
    )


def _milliseconds(value: Mapping[str, float] | None) -> str:
    if not value:
        return ""
    return f"{1e3 * value['median s']:.0f} [{1e3 * value['min s']:.0f}, {1e3 * value['max s']:.0f}]"


def virtual_edges() -> str:
    """Shortest paths against networkx."""
    result = load("ghn_virtual_edges")
    if result is None:
        return ""
    rows = [
        [name, case["edges"], *(_microseconds(case["CPU seconds"][way]) for way in ("nasgraph", "networkx", "networkx, up to 50")),
         f"{case['times as fast as']['networkx']:.0f}x / {case['times as fast as']['networkx, up to 50']:.0f}x"]
        for name, case in result.items()
        if isinstance(case, dict) and "edges" in case
    ]  # fmt: skip
    return f"{machine(result)}, one thread; results equal. File: `ghn_virtual_edges.json`.\n\n" + table(
        ["graph", "edges", "nasgraph, ms", "networkx, ms", "networkx up to 50, ms", "times as fast"], rows
    )


def _microseconds(value: Mapping[str, float]) -> str:
    return f"{1e3 * value['median s']:.2f}"


def train_speed() -> str:
    """Architectures per second in training."""
    rows = []
    head = ""
    for name in ("ghn_train_speed", "ghn_train_speed_deepnets"):
        result = load(name)
        if result is None:
            continue
        head = machine(result)
        for setting, case in result["results"].items():
            rate = case["architectures per second"]
            rows.append(
                [
                    f"{result['mean_nodes']:.0f} nodes, {result['mean_multiply_adds'] / 1e6:.0f}M multiply-adds",
                    setting,
                    f"{rate['median']:.2f} [{rate['min']:.2f}, {rate['max']:.2f}]",
                    f"{100 * case['share']['targets']:.0f} %",
                ]
            )
    if not rows:
        return ""
    return (
        f"{head}, one thread, busy machine (load up to 7), meta-batch of 8, 32x32 images. Not run beside the published code, whose training needs its own "
        "architectures: no ratio is claimed. Files: `ghn_train_speed*.json`.\n\n"
        + table(
            [
                "target networks",
                "images, precision",
                "architectures per CPU second",
                "share of the target networks",
            ],
            rows,
        )
    )


def variants() -> str:
    """Hypernetworks of the literature and ours under one budget."""
    parts = []
    for path in sorted(RESULTS.glob("ghn_variants_*.json")):
        if path.stem.endswith(".partial"):
            continue
        result = json.loads(path.read_text())
        settings, references = result["settings"], result["references"]
        splits = list(references)
        rows = []
        for name, case in result.items():
            if isinstance(case, dict) and "training CPU seconds" in case:
                cells = [f"{case[s]['mean']:.3f} ± {case[s]['standard error']:.3f}" for s in splits]
                rows.append(
                    [name, f"{case['parameters'] / 1e6:.1f}M", f"{case['training CPU seconds']:.0f}", *cells]
                )
        for name in ("random", "1 epochs", "5 epochs"):
            if any(name not in references[split] for split in splits):
                continue
            cells = [f"{references[s][name]['mean']:.3f} ({references[s][name]['count']})" for s in splits]
            rows.append([f"*{name}*" if name == "random" else f"*{name} of training*", "", "", *cells])
        parts.append(
            f"{settings['data']} at {settings['image_size']}x{settings['image_size']}, {settings['steps']} steps of 8 architectures and "
            f"{settings['batch_size']} images for every variant, seed {settings.get('seed', 0)}. Mean validation accuracy ± standard error over "
            f"{settings['per_split']} architectures; references with their number. {machine(result)}. File: `{path.name}`.\n\n"
            + table(["weights", "parameters", "CPU s of training", *splits], rows)
        )
    return "\n\n".join(parts)


def fine_tuning() -> str:
    """Epochs saved by predicted weights."""
    parts = []
    for path in sorted(RESULTS.glob("fine_tuning_*.json")):
        result = json.loads(path.read_text())
        settings = result["settings"]
        rows = []
        for name, curve in result["mean accuracy by epoch"].items():
            facts = result.get(name, {})
            saved = facts.get("epochs saved after 1")
            wins = [facts.get(f"better / worse than random after {k}") for k in (1, int(settings["epochs"]))]
            rows.append(
                [
                    name,
                    *(f"{curve[k - 1]:.3f}" for k in (1, 3, 5, len(curve)) if k <= len(curve)),
                    f"{saved['mean']:.1f}" if saved else "",
                    *(f"{w[0]} / {w[1]}" if w else "" for w in wins),
                ]
            )
        parts.append(
            f"### {path.stem.removeprefix('fine_tuning_')}\n\n{settings['count']} held-out architectures, {settings['epochs']} epochs. {machine(result)}. "
            f"File: `{path.name}`.\n\n![Accuracy by epoch](../benchmarks/results/{path.stem}.png)\n\n"
            + table(
                [
                    "start",
                    "after 1",
                    "after 3",
                    "after 5",
                    "last",
                    "epochs saved after the first",
                    "better / worse than random after 1",
                    "after the last",
                ],
                rows,
            )
        )
    return "\n\n".join(parts)


def mip() -> str:
    """Training with and without the magnitude-invariant input."""
    result = load("ghn_mip_ablation")
    if result is None:
        return ""
    rows = [
        [
            seed,
            *(
                f"{result['curves'][way][str(seed)][-1]['held-out accuracy']:.3f}"
                for way in ("without", "with")
            ),
        ]
        for seed in result["settings"]["seeds"]
    ]
    return (
        f"{result['settings']['data']}, {result['settings']['steps']} steps: the start of a training only. {machine(result)}. File: `ghn_mip_ablation.json`.\n\n"
        "![Curves](../benchmarks/results/ghn_mip_ablation.png)\n\n"
        + table(["seed", "held-out accuracy without", "with"], rows)
    )


def coverage() -> str:
    """What the tracer covers."""
    result = load("coverage")
    if result is None:
        return ""
    keys = (
        "models",
        "traced",
        "predicted",
        "executable",
        "equal",
        "specialised",
        "with_unused",
        "not_on_meta",
        "median_ms",
    )
    rows = [
        [name, *(case["all"][key] for key in keys)]
        for name, case in result["summary"].items()
        if "all" in case
    ]
    columns = ["list", "models", "traced", "all parameters predicted", "executable", "equal outputs", "specialised",
               "with unused parameters", "not on meta", "median CPU ms"]  # fmt: skip
    return f"{machine(result)}. File: `coverage.json`.\n\n" + table(columns, rows)


def graph_speed() -> str:
    """Time to make a graph, beside ghn3."""
    result = load("graph_speed")
    if result is None:
        return ""
    rows = []
    for name, case in result["networks"].items():
        ours, theirs = case["seconds"], case.get("peer_seconds")
        counts = " / ".join(map(str, case["contracted"])) if "contracted" in case else ""
        peer_counts = " / ".join(map(str, case["peer_counts"])) if case.get("peer_counts") else ""
        rows.append(
            [
                name,
                f"{case['parameters'] / 1e6:.1f}M",
                f"{1e3 * ours['median']:.1f} [{1e3 * ours['min']:.1f}, {1e3 * ours['max']:.1f}]",
                f"{1e3 * theirs['median']:.0f} [{1e3 * theirs['min']:.0f}, {1e3 * theirs['max']:.0f}]"
                if theirs
                else "",
                f"{case['times_faster']:.1f}x" if theirs else "",
                f"{case['extra_mib']:.0f}",
                f"{counts}{' = ' + peer_counts if counts else ''}",
            ]
        )
    return (
        f"{machine(result)}, one thread, interleaved, median [least, most] of {result['repeats']}, busy machine (load 4 to 5). Trace and virtual edges "
        "together. File: `graph_speed.json`.\n\n"
        + table(
            [
                "network",
                "parameters",
                "nasgraph, CPU ms",
                "ghn3, CPU ms",
                "times as fast",
                "extra MiB",
                "nodes / edges / virtual edges, both",
            ],
            rows,
        )
    )


SECTIONS: dict[str, Callable[[], str]] = {
    "ranking": ranking,
    "ranking convnet": ranking_convnet,
    "predict speed": predict_speed,
    "virtual edges": virtual_edges,
    "train speed": train_speed,
    "variants": variants,
    "fine tuning": fine_tuning,
    "mip": mip,
    "coverage": coverage,
    "graph speed": graph_speed,
}
