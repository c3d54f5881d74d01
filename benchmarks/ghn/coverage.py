"""Which networks `trace` covers: every one is traced, predicted by a fresh hypernetwork, built again and compared. One thread.

    python -m benchmarks.ghn.coverage [--list transformers handwritten] [--only NAME ...] [--no-prediction]

Needs `pip install transformers` for the first list. A network counts as

- traced: `trace` gives a graph that is acyclic, in which every owned parameter has a path to an output and every parameter of the
  module is owned once or reported unused;
- predicted: a hypernetwork gives each owned parameter, and `to_module` gives it the module's exact shape;
- equal: all operators are in the graph language, and the module that `build` makes of the graph gives the same outputs, with a
  largest error below 1e-5 relative to 1 + |output|.
"""

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.common import save
from benchmarks.ghn.models import Inputs, Model, handwritten_models, transformers_models
from nasgraph.hyper import GHNConfig, GraphHyperNetwork
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import TracedGraph, trace

TOLERANCE = 1e-5
Row = dict[str, object]


def is_connected(graph: ComputationalGraph) -> bool:
    """Whether sources come before their readers and every node with a parameter has a path to an output."""
    acyclic = all(source < node for node, each in enumerate(graph.nodes) for source in each.inputs)
    reached = set(graph.outputs)
    for node in range(len(graph) - 1, -1, -1):
        if node in reached:
            reached.update(graph.nodes[node].inputs)
    return acyclic and all(int(name[1:].split(".")[0]) in reached for name in graph.parameters)


def largest_error(traced: TracedGraph, module: nn.Module, inputs: Inputs) -> float:
    """Of the built graph's outputs against the module's."""
    built = traced.build(module)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        found = built(*traced.inputs_of(inputs))
        expected = traced.outputs_of(module.eval()(**inputs))
    errors = [
        float(((a.double() - b.double()).abs() / (1 + b.double().abs())).max())
        for a, b in zip([found] if isinstance(found, Tensor) else found, expected, strict=True)
        if a.numel()
    ]
    return max(errors, default=0.0)


def predicted_elements(ghn: GraphHyperNetwork, traced: TracedGraph, module: nn.Module) -> tuple[int, int]:
    """Elements of the module that got a prediction of their exact shape, and that should have."""
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    wanted = {name: shape for name, shape in own.items() if name not in traced.unused}
    (parameters,) = ghn.predict([traced.graph]) if traced.owners else ({},)
    given = {name: tuple(tensor.shape) for name, tensor in traced.to_module(parameters).items()}
    sizes = {name: torch.Size(shape).numel() for name, shape in wanted.items()}
    return sum(size for name, size in sizes.items() if given.get(name) == wanted[name]), sum(sizes.values())


def measure(model: Model, ghn: GraphHyperNetwork | None) -> Row:
    """Everything about one model. A failure is a result."""
    row: Row = {"name": model.name, "family": model.family, "special": model.special}
    module, inputs = model.make(), model.inputs()
    try:
        trace(module, inputs)  # what torch imports and compiles at the first use is not the tracer's time
        start = time.process_time()
        traced = trace(module, inputs)
        row["ms"] = round(1e3 * (time.process_time() - start), 2)
    except Exception as error:  # noqa: BLE001  the answer of the benchmark is the failure itself
        return {**row, "traced": False, "error": f"{type(error).__name__}: {error}"}
    names = {name for name, _ in module.named_parameters()}
    owned = [owner.name for owner in traced.owners.values()]
    accounted = sorted([*owned, *traced.unused]) == sorted(names)
    row |= {
        "traced": accounted and is_connected(traced.graph),
        "route": traced.route,
        "nodes": len(traced.graph),
        "owned": len(owned),
        "unused": list(traced.unused),
        "specialised": list(traced.specialised),
        "opaque": traced.opaque,
        "reasons": {name: traced.reasons.get(name, "") for name in traced.opaque},
        "attention_nodes": sum(node.op in ("attention", "softmax") for node in traced.graph.nodes),
    }
    try:
        if ghn is not None:
            got, wanted = predicted_elements(ghn, traced, module)
            row |= {"predicted_elements": got, "elements": wanted}
        if traced.graph.is_executable:
            row["error_of_outputs"] = largest_error(traced, module, inputs)
    except Exception as error:  # noqa: BLE001  the answer of the benchmark is the failure itself
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def is_predicted(row: Row) -> bool:
    """Whether every element got its value."""
    return "elements" in row and row["predicted_elements"] == row["elements"]


def is_equal(row: Row) -> bool:
    """Whether the graph computes what the module computes."""
    error = row.get("error_of_outputs")
    return isinstance(error, float) and error < TOLERANCE


def summary(rows: Sequence[Row]) -> dict[str, dict[str, object]]:
    """Counts by family, and of all."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[str(row["family"])].append(row)
    groups["all"] = list(rows)
    return {name: _counts(group) for name, group in groups.items()}


def _counts(rows: Sequence[Row]) -> dict[str, object]:
    routes = [row.get("route") for row in rows]
    milliseconds = [ms for row in rows if isinstance(ms := row.get("ms"), float)]
    return {
        "models": len(rows),
        "traced": sum(bool(row["traced"]) for row in rows),
        "predicted": sum(map(is_predicted, rows)),
        "executable": sum("error_of_outputs" in row for row in rows),
        "equal": sum(map(is_equal, rows)),
        "with_attention": sum(bool(row.get("attention_nodes")) for row in rows),
        "with_unused": sum(bool(row.get("unused")) for row in rows),
        "specialised": sum(bool(row.get("specialised")) for row in rows),
        "not_on_meta": sum(route not in ("meta", None) for route in routes),
        "median_ms": round(median(milliseconds), 1) if milliseconds else None,
    }


def markdown(result: Mapping[str, Mapping[str, object]]) -> str:
    """The summary as a table."""
    columns = ("models", "traced", "predicted", "executable", "equal", "not_on_meta", "median_ms")
    titles = (
        "family",
        "models",
        "traced",
        "all parameters predicted",
        "executable",
        "equal outputs",
        "not on meta",
        "median CPU ms",
    )
    lines = [titles, tuple("---" for _ in titles)]
    lines += [(name, *(str(counts[column]) for column in columns)) for name, counts in result.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def trouble(rows: Iterable[Row]) -> str:
    """What failed and why, as a table."""
    lines = ["| network | what | why |", "| --- | --- | --- |"]
    for row in rows:
        reasons: object = row.get("reasons")
        if not row["traced"] or "error" in row:
            lines.append(
                f"| {row['name']} | not traced or run | {_cell(row.get('error', 'a parameter is not accounted for'))} |"
            )
        elif "error_of_outputs" in row and not is_equal(row):
            lines.append(
                f"| {row['name']} | outputs differ by {row['error_of_outputs']:.1e} | {_cell(row['specialised'] or row['special'])} |"
            )
        elif isinstance(reasons, dict) and reasons:
            why = "; ".join(f"`{name}` {reason}" for name, reason in reasons.items())
            lines.append(f"| {row['name']} | opaque nodes | {_cell(why)} |")
    return "\n".join(lines)


def _cell(text: object) -> str:
    line = " ".join(str(text).split()).replace("|", "&#124;")
    return line if len(line) < 240 else f"{line[:237]}..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", nargs="*", default=["transformers", "handwritten"])
    parser.add_argument("--only", nargs="*", help="names of models; nothing is written then")
    parser.add_argument("--no-prediction", action="store_true")
    choice = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    lists = {"transformers": transformers_models, "handwritten": handwritten_models}
    ghn = None if choice.no_prediction else GraphHyperNetwork(GHNConfig()).eval()
    results: dict[str, list[Row]] = {}
    for name in choice.list:
        models = [model for model in lists[name]() if not choice.only or model.name in choice.only]
        results[name] = []
        for model in models:
            results[name].append(row := measure(model, ghn))
            print({key: value for key, value in row.items() if key not in ("special", "reasons")}, flush=True)
    for name, rows in results.items():
        print(f"\n{name}\n{markdown(summary(rows))}\n\n{trouble(rows)}")
    if not choice.only:
        summaries = {name: summary(rows) for name, rows in results.items()}
        save("coverage", {"tolerance": TOLERANCE, "summary": summaries, "models": results})


if __name__ == "__main__":
    main()
