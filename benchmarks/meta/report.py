"""The sections of docs/results.md about networks that read, edit and write networks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from benchmarks.search.report import NONE, load_result, machine, table

Row = Mapping[str, Any]


def _spread(numbers: Sequence[float], digits: int = 3) -> str:
    """Mean, and the standard deviation where there are several."""
    mean = f"{fmean(numbers):.{digits}f}"
    return mean if len(numbers) < 2 else f"{mean} ± {pstdev(numbers):.{digits}f}"


def _pair(rows: Iterable[Row], first: str = "r2", second: str = "tau") -> str:
    listed = list(rows)
    if not listed:
        return ""
    return f"{_spread([row[first] for row in listed])} / {_spread([row[second] for row in listed])}"


def symmetry() -> str:
    found = load_result("meta_symmetry")
    if found is None:
        return NONE
    rows: list[Row] = found["rows"]
    worst = {
        key: max((row[key] for row in rows if row.get(key) is not None), default=float("nan"))
        for key in ("permuted_single", "permuted_double", "rescaled_single", "rescaled_double")
    }
    least = [row["least_change_if_invalid"] for row in rows if row.get("least_change_if_invalid") is not None]
    median = [
        row["median_change_if_invalid"] for row in rows if row.get("median_change_if_invalid") is not None
    ]
    clear = sum(change > 1e-3 for change in least)
    slowest = max(row["table_cpu_s"] for row in rows)
    return (
        f"{machine(found)}. {len(rows)} networks (traced models and samples of all search spaces), {found['seeds']} seeds each; largest change of an "
        "output, relative to the largest output.\n\n"
        + table(
            ("edit", "single precision", "double precision"),
            [
                ["units permuted", f"{worst['permuted_single']:.1e}", f"{worst['permuted_double']:.1e}"],
                ["units rescaled", f"{worst['rescaled_single']:.1e}", f"{worst['rescaled_double']:.1e}"],
            ],
        )
        + f"\n\nOne axis permuted alone, which is no symmetry: an output changes by more than 1e-3 on every axis that was tried in {clear} of {len(least)} networks, and "
        f"by {min(median):.1e} or more in the median axis of each network; deep networks as they are initialised hardly depend on some axes ({min(least):.1e}). "
        f"The slowest table took {slowest:.2f} CPU s."
    )


def edits() -> str:
    found = load_result("meta_edits")
    if found is None:
        return NONE
    error = found["error"]
    children = [
        [name, *(f"{row[key]:.3f}" for key in ("parent", "inherited", "scratch")), f"{row['better']:.0%}"]
        for name, row in found["children"].items()
        if isinstance(row, dict)
    ]
    searches = [
        [
            name,
            f"{row['best at equal operations']['mean']:.3f} ± {row['best at equal operations']['std']:.3f}",
            f"{row['winner from scratch']:.3f}",
        ]
        for name, row in found["search"].items()
    ]
    return (
        f"{machine(found)}. {error['sequences']} sequences of five random edits over traced models: largest change of an output "
        f"{error['float32']['max']:.1e} in single, {error['float64']['max']:.1e} in double precision, relative to the largest output.\n\n"
        + table(
            (
                "child",
                "parent",
                "child that inherits, one epoch",
                "from scratch, one epoch",
                "inherits and is better",
            ),
            children,
        )
        + "\n\nA search by evolution with and without inheritance, validation accuracy:\n\n"
        + table(("search", "best at equal operations of training", "winner trained from scratch"), searches)
    )


def population() -> str:
    found = load_result("meta_population")
    if found is None:
        return NONE
    made = []
    for name, row in found["populations"].items():
        quantiles = row["test_accuracy_quantiles"]
        accuracies = " ".join(f"{quantiles[key]:.2f}" for key in ("0.05", "0.25", "0.5", "0.75", "0.95"))
        made.append(
            [
                name,
                f"{row['networks']:,}",
                row["architectures"],
                f"{row['cpu_seconds']:.0f}",
                f"{row['megabytes']:.0f}",
                accuracies,
            ]
        )
    speed = [
        [
            name,
            row["networks"],
            f"{row['ratio']['median']:.1f} ({min(row['ratio']['all']):.1f} to {max(row['ratio']['all']):.1f})",
        ]
        for name, row in found["speed"].items()
    ]
    columns = (
        "population",
        "networks",
        "architectures",
        "CPU s",
        "MB",
        "test accuracy at .05 .25 .5 .75 .95",
    )
    return (
        f"{machine(found)}.\n\n{table(columns, made)}\n\nTogether against one after the other, in one run:\n\n"
        + table(("network", "at once", "times as fast"), speed)
    )


_SETS = ("test", "unseen-width", "unseen-depth", "unseen-activation", "unseen-family")


def accuracy() -> str:
    found = load_result("meta_accuracy")
    if found is None:
        return NONE
    parts = [f"{machine(found)}. R squared / Kendall's tau between predicted and measured test accuracy."]
    rows: list[Row] = found["rows"]
    seen_views = load_result("meta_views") or {"rows": []}
    tasks = {
        "digits-mlp": {"test": "random"},
        "digits-widths": {"unseen-width": "unseen width"},
        "digits-families": {},
    }
    for name, renamed in tasks.items():
        own = [row for row in rows if row["population"] == name]
        sets = [each for each in _SETS if any(row["networks"] == each for row in own)]
        lines = []
        for model in dict.fromkeys(row["model"] for row in own):
            of_model = [row for row in own if row["model"] == model]
            seeds = len({(row["seed"], row.get("epochs")) for row in of_model})
            note = f"{model} ({seeds} trainings)" if seeds > 1 else model
            lines.append(
                [note, *(_pair(row for row in of_model if row["networks"] == each) for each in sets)]
            )
        known = {row["model"] for row in own}
        for view in dict.fromkeys(row["view"] for row in seen_views["rows"]):
            cells = []
            for each in sets:
                label = renamed.get(each)
                matching = [row for row in seen_views["rows"] if row["view"] == view and row["task"] == label]
                cells.append(f"{matching[0]['r2']:.3f} / {matching[0]['tau']:.3f}" if matching else "")
            if any(cells) and view not in known:
                lines.append([view, *cells])
        parts.append(f"**{name}**\n\n{table(('reader', *sets), lines)}")
    return "\n\n".join(parts)


def invariance() -> str:
    found = load_result("meta_invariance")
    if found is None:
        return NONE
    lines = [
        [
            row["kind"],
            row["population"],
            row["precision"],
            *(
                f"{row['largest'][key]:.1e}"
                for key in ("permuted", "edit, permuted", "rescaled", "one weight permuted")
            ),
            f"{row['one weight permuted, median']:.1e}",
        ]
        for row in found["rows"]
        if "largest" in row
    ]
    rescaled = [
        f"{row['kind']}: R squared {row['accuracy prediction']['as trained']['r2']:.3f} as trained, "
        f"{row['accuracy prediction']['rescaled']['r2']:.3f} after rescaling"
        for row in found["rows"]
        if "accuracy prediction" in row
    ]
    columns = (
        "metanetwork", "population", "precision", "permuted", "edit, permuted", "rescaled", "one weight permuted (no symmetry)", "the same, median"
    )  # fmt: skip
    text = (
        f"Predictions for networks whose units were rescaled by factors from .1 to 10: {'; '.join(rescaled)}."
    )
    return f"{machine(found)}. Largest change of a prediction, or of an edit, under:\n\n{table(columns, lines)}\n\n{text}"


def round_trip() -> str:
    found, memory = load_result("meta_round_trip"), load_result("meta_memory")
    if found is None or memory is None:
        return NONE
    summary = found["summary"]
    peaks = [
        [row["case"], f"{row['peak_gb']:.2f}"] for row in memory["rows"] if row.get("peak_gb") is not None
    ]
    left_out = ", ".join(row["name"] for row in found["left_out"])
    return (
        f"{machine(found)}. Parameters to graph and back, bit by bit: {summary['bit_equal']} of {summary['networks']} networks "
        f"({summary['traced_models']} traced models, {summary['zoo_networks']} of the zoo). Left out, as no network of operators: {left_out}.\n\n"
        f"Memory for ResNet-18 (11.7 million parameters):\n\n{table(('what', 'peak, GB'), peaks)}"
    )


def throughput() -> str:
    found = load_result("meta_throughput")
    if found is None:
        return NONE
    parts = [
        f"{machine(found)}, one thread, load of the machine {found['load'][0]:.0f}. CPU time, medians; `neural_graphs` and `graph_metanetworks` are the "
        "research implementations, run from their own code (with PyG's `scatter` in place of `torch_scatter`, which did not install). "
        "`nasgraph_thin_edges` is our default width of edge states; `nasgraph` has that of the others."
    ]
    for name in ("mlp", "cnn"):
        row = found[name]
        lines = [
            [
                who,
                f"{row['graphs_per_second'][who]:,.0f}" if who in row["graphs_per_second"] else "",
                f"{row['steps_per_second'][who]:.2f}" if who in row["steps_per_second"] else "",
                f"{row['parameters_of_metanetworks'][who]:,}"
                if who in row["parameters_of_metanetworks"]
                else "",
            ]
            for who in dict.fromkeys([*row["graphs_per_second"], *row["steps_per_second"]])
        ]
        columns = ("implementation", "graphs per second", "training steps per second", "parameters")
        parts.append(
            f"**{name}** ({row['nodes']} nodes, {row['edges']:,} edges each)\n\n{table(columns, lines)}"
        )
    return "\n\n".join(parts)


def pruning() -> str:
    found = load_result("meta_pruning")
    if found is None:
        return NONE
    parts = [
        f"{machine(found)}. Settings: `{found['settings']}`. Accuracy on test images after the cut (running statistics measured anew), and after fine-tuning."
    ]
    for data, result in found["results"].items():
        names = list(dict.fromkeys(key.rsplit(" at ", 1)[0] for key in result["summary"]))
        speeds = list(dict.fromkeys(key.rsplit(" at ", 1)[1] for key in result["summary"]))
        lines = []
        for name in names:
            cells = []
            for speed in speeds:
                row = result["summary"].get(f"{name} at {speed}")
                cells += [_mean_std(row["before"]), _mean_std(row["after"])] if row else ["", ""]
            seeds = max(
                (
                    result["summary"][f"{name} at {s}"]["seeds"]
                    for s in speeds
                    if f"{name} at {s}" in result["summary"]
                ),
                default=0,
            )
            lines.append([name, seeds, *cells])
        columns = (
            "method",
            "seeds",
            *(f"{speed} {when}" for speed in speeds for when in ("before", "after")),
        )
        parts.append(f"**{data}**\n\n{table(columns, lines)}")
    return "\n\n".join(parts)


def _mean_std(row: Mapping[str, float | None]) -> str:
    """A mean with its spread, if it is one of several."""
    return f"{row['mean']:.3f}" if not row["std"] else f"{row['mean']:.3f} ± {row['std']:.3f}"


def width() -> str:
    found = load_result("meta_width")
    if found is None:
        return NONE
    results = found["results"]
    lines = [
        [
            name,
            row["networks"],
            f"{row['test mean']:.3f} ± {row['std over seeds']:.3f}",
            f"{row['std over networks']:.3f}",
        ]
        for name, row in results.items()
        if isinstance(row, dict) and "test mean" in row
    ]
    distance = results["distance from the target"]
    expected = ", ".join(f"{100 * value:+.1f} %" for value in distance["expected_ratio"])
    beaten = ", ".join(
        f"{share:.0%}" for share in results["share of random width vectors that the search beats, per seed"]
    )
    best = results["test of the best of so many, chosen by test, mean"]
    return (
        f"{machine(found)}. Fashion-MNIST, half of the multiply-adds, {found['settings']['seeds']} seeds; all but `dense` and `inherited` trained alike from scratch "
        f"with the same distillation.\n\n{table(('widths', 'networks', 'test accuracy', 'std over networks'), lines)}\n\n"
        f"Expected multiply-adds at the end of the search, off the target by {expected}. Share of random width vectors that the search beats, by seed: {beaten}. "
        f"The time of a search pays for {results['random width vectors that the time of the search pays for']} random trainings; the best of so many, chosen by "
        f"test accuracy, reaches {best:.3f}."
    )


def generate() -> str:
    found = load_result("meta_generate")
    if found is None:
        return NONE
    rows: list[Row] = [row for row in found["rows"] if "accuracy" in row]
    lines = []
    for key in dict.fromkeys((row["family"], row["generator"], row["alignment"]) for row in rows):
        own = [row for row in rows if (row["family"], row["generator"], row["alignment"]) == key]
        steps = [
            _spread([row["accuracy"][str(step)] for row in own])
            if all(str(step) in row["accuracy"] for row in own)
            else ""
            for step in found["fine_tuning_steps"]
        ]
        novel = [row["novelty"]["ratio"] for row in own if "novelty" in row]
        family = {"shared": "one start", "separate": "starts of their own"}[key[0]]
        lines.append(
            [
                family,
                key[1],
                "aligned" if key[2] else "",
                len(own),
                *steps,
                f"{fmean(novel):.2f}" if novel else "",
            ]
        )
    prompts = [row["r2"] for row in found["rows"] if "r2" in row]
    columns = (
        "population",
        "generator",
        "units",
        "seeds",
        *(f"{step} steps" for step in found["fine_tuning_steps"]),
        "novelty",
    )
    text = f"\n\nWanted against obtained loss (prompts): R squared {_spread(prompts, 2)}." if prompts else ""
    return f"{machine(found)}. Accuracy on 52 unseen sets of five digits, from ten examples per class.\n\n{table(columns, lines)}{text}"


def heritage() -> str:
    found = load_result("meta_heritage")
    if found is None:
        return NONE
    lines = [
        [row["kind"], row["method"], row["seeds"], f"{row['arcs']:.2f} ({row['arcs_low']:.2f} to {row['arcs_high']:.2f})", *(f"{row[key]:.2f}" if key in row else "" for key in ("undirected", "roots", "trees"))]
        for row in found["rows"]
    ]  # fmt: skip
    columns = (
        "fine-tuning",
        "method",
        "forests",
        "arcs right",
        "either direction",
        "first networks right",
        "trees exact",
    )
    return f"{machine(found)}. Forests of four trees with 13 networks each.\n\n{table(columns, lines)}"


def measures() -> str:
    found = load_result("meta_measures")
    if found is None:
        return NONE
    lines = [
        [row["measure"], f"{row['tau']:.2f}", f"{row['granulated']['mean']:.2f}", f"{row['sign_error_mean']:.2f}", f"{row['sign_error_worst']:.2f}"]
        for row in sorted(found["rows"], key=lambda row: -row["granulated"]["mean"])
    ]  # fmt: skip
    number = found["rows"][0]["networks"]
    columns = ("measure", "tau with the gap", "granulated psi", "sign error, mean", "worst")
    return f"{machine(found)}. {number} networks on Fashion-MNIST, stopped at one training loss.\n\n{table(columns, lines)}"


def shift() -> str:
    found = load_result("meta_shift")
    if found is None:
        return NONE
    methods = list(dict.fromkeys(row["method"] for row in found["rows"]))
    lines = []
    for key in dict.fromkeys((row["data"], row["shifts"], row["models"]) for row in found["rows"]):
        own = {
            row["method"]: row for row in found["rows"] if (row["data"], row["shifts"], row["models"]) == key
        }
        lines.append([*key, *(f"{own[name]['spearman']:.2f}" if name in own else "" for name in methods)])
    return f"{machine(found)}. Mean Spearman correlation of the estimate with the true error, over shifted data sets.\n\n{table(('data', 'shifts', 'models', *methods), lines)}"


def hypernetworks() -> str:
    continual, response, optimiser = (
        load_result(f"meta_{name}") for name in ("continual", "response", "optimiser")
    )
    if continual is None or response is None or optimiser is None:
        return NONE
    tasks = [
        [row["data"], row["method"], row["seeds"], f"{row['parameters']['mean']:,.0f}", _mean_std(row["accuracy"]), _mean_std(row["forgetting"])]
        for row in continual["table"]
    ]  # fmt: skip
    losses = [
        [
            row["task"],
            *(_mean_std(row[name]) for name in ("learned", "tuned adam", "tuned sgd")),
        ]
        for row in optimiser["table"]
    ]
    columns = ("data", "method", "seeds", "numbers kept", "final accuracy", "forgetting")
    return (
        f"{machine(continual)}. Five tasks of two classes, one after the other.\n\n{table(columns, tasks)}\n\n"
        f"**A learned optimiser** of {optimiser['numbers_of_the_rule']} numbers: mean training loss over all steps, {optimiser['runs']} runs; the others with the best of "
        f"six rates.\n\n{table(('task', 'learned', 'tuned Adam', 'tuned SGD with momentum'), losses)}\n\n{_response(response)}"
    )


def _response(found: Row) -> str:
    """What tuning by a hypernetwork found."""
    parts = []
    if (one := found.get("one_penalty")) is not None:
        steps = ", ".join(f"{value:.2f}" for value in one["mip_steps_off"]["each"])
        ranks = ", ".join(f"{value:.3f}" for value in one["mip_rank_correlation"]["each"])
        parts.append(
            f"One penalty: the optimum of the grid is found within {steps} of a step (by seed); rank correlation of the predicted with the true "
            f"curve {ranks}."
        )
    if (many := found.get("many_penalties")) is not None:
        lines = [
            [name, *(f"{value:.3f}" for value in many[f"{key}_loss"]["each"]), f"{many[f'{key}_test_accuracy']['mean']:.3f}"]
            for name, key in (("jointly", "joint"), ("best single penalty", "scalar"), ("best of 60 random vectors", "random"), ("best of 60 near the single one", "random_near_scalar"))
        ]  # fmt: skip
        count = len(many["joint_loss"]["each"])
        columns = ("64 penalties", *(f"seed {seed}" for seed in range(count)), "test accuracy, mean")
        parts.append(f"Validation loss of networks trained anew:\n\n{table(columns, lines)}")
    if (tuned := found.get("self_tuning")) is not None:
        fixed = {rate: row["validation_loss"]["mean"] for rate, row in found["fixed_dropout"].items()}
        best = min(fixed, key=lambda rate: fixed[rate])
        parts.append(
            f"Dropout tuned in one training (self-tuning network): validation loss {_mean_std(tuned['validation_loss'])}, test accuracy "
            f"{_mean_std(tuned['test_accuracy'])}; the best of {len(fixed)} fixed rates ({best}): {fixed[best]:.3f}, "
            f"{found['fixed_dropout'][best]['test_accuracy']['mean']:.3f}."
        )
    return "**Hyper-parameters.** " + "\n\n".join(parts)


def embedding() -> str:
    found = load_result("meta_embedding")
    if found is None:
        return NONE
    rows: list[Row] = found["rows"]
    lines = []
    for view in dict.fromkeys(row["view"] for row in rows):
        for split in dict.fromkeys(row["split"] for row in rows):
            own = [row for row in rows if row["view"] == view and row["split"] == split]
            lines.append(
                [
                    view,
                    split,
                    own[0]["candidates"],
                    _spread([r["mrr_at_20"] for r in own]),
                    _spread([r["recall_at_1"] for r in own]),
                ]
            )
    columns = ("view", "networks", "candidates", "MRR@20", "found first")
    return f"{machine(found)}. A fine-tuned copy with its units reordered, and the network that it comes from.\n\n{table(columns, lines)}"


def refinement() -> str:
    found = load_result("meta_refine")
    if found is None:
        return NONE
    lines = [[name, _mean_std(row)] for name, row in found["accuracy on test images"].items()]
    lines.sort(key=lambda line: (_first_number(line[0]), line[0].startswith("refined")))
    return f"{machine(found)}. Weights that the shipped GHN predicts for {found['tested on']} unseen architectures, before and after.\n\n{table(('weights', 'test accuracy'), lines)}"


def _first_number(text: str) -> int:
    return next((int(part) for part in text.split() if part.isdigit()), 0)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "meta symmetry": symmetry,
    "meta edits": edits,
    "meta population": population,
    "meta round trip": round_trip,
    "meta throughput": throughput,
    "meta invariance": invariance,
    "meta accuracy": accuracy,
    "meta embedding": embedding,
    "meta pruning": pruning,
    "meta width": width,
    "meta generation": generate,
    "meta refinement": refinement,
    "meta heritage": heritage,
    "meta measures": measures,
    "meta shift": shift,
    "meta hypernetworks": hypernetworks,
}
"""Every section by its name."""
