"""Telling the error on shifted data without labels: how well each method ranks shifts, and how far it is off.

    python -m benchmarks.meta.shift

Graph networks on Cora and CiteSeer (features mixed or masked, edges dropped or added), perceptrons and small convnets on digits and Fashion-MNIST (noise, blur,
contrast, erased pixels). For each model: Spearman's correlation of each estimate with the true error over shifts, and the mean absolute error of
those that are errors. Rows go to `meta_shift.jsonl`; a second call goes on where the first stopped.
"""

import json
import time
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import load_dataset
from nasgraph.evaluate.node_classification import glorot_parameters
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.population.presets import perceptron, small_convnet
from nasgraph.meta.population.settings import NetworkSettings
from nasgraph.meta.population.stack import initial_stack, train_stack
from nasgraph.meta.shift import (
    RetrainConfig,
    label_free_estimates,
    retraining_discrepancy,
    shift_images,
    shift_nodes,
    source_error,
)
from nasgraph.modules import run_network

ROWS = RESULTS / "meta_shift.jsonl"
NODE_MODELS = (("gcn_conv", 16, 0), ("gcn_conv", 16, 1), ("sage_conv", 16, 0))
NODE_STRENGTHS = {
    "feature_noise": (0.4, 0.7, 0.9),
    "feature_mask": (0.5, 0.8, 0.95),
    "drop_edges": (0.4, 0.7, 0.95),
    "add_edges": (0.5, 1.5, 4.0),
}
IMAGE_STRENGTHS = {
    "noise": (0.4, 0.8, 1.5),
    "blur": (0.5, 0.8, 1.2),
    "contrast": (0.5, 2.0, 5.0),
    "erase": (0.15, 0.3, 0.6),
}
ERRORS = ("average_confidence", "difference_of_confidences", "atc_entropy", "atc_confidence")


def graph_network(op: str, width: int, *, inputs: int, classes: int) -> ComputationalGraph:
    """Two layers that pass messages."""
    g = GraphBuilder()
    x = g("relu", g(op, g("input", shape=(inputs,)), out_features=width))
    return g.finish(g(op, x, out_features=classes))


def dense(features: Tensor) -> Tensor:
    """Features of all nodes, not compressed."""
    return features.to_dense() if features.layout != torch.strided else features


def node_rows(name: str, op: str, width: int, seed: int) -> list[dict[str, object]]:
    """One graph network, trained as Kipf and Welling (2017) do but without dropout, under all shifts of its graph."""
    data = load_dataset(name, data_dir=SHARED_DATA, download=False)
    nodes, validation, test = data.search.train.nodes, data.search.validation, data.test
    assert nodes is not None
    assert validation.nodes is not None
    assert test is not None
    assert test.nodes is not None
    features, edges = dense(nodes.graph.features), nodes.graph.edges
    graph = graph_network(op, width, inputs=features.shape[1], classes=len(data.class_names))
    initial = glorot_parameters(graph, seed=seed)
    rows_of = nodes.graph.features
    state = trained_on_nodes(graph, initial, rows_of, edges, nodes.index, data.search.train.targets)
    config, rows = RetrainConfig(learning_rate=0.01, weight_decay=5e-4, max_steps=40), []
    with torch.no_grad():
        (source,) = run_network(graph, state, [rows_of], edges=edges)
    shifts = [("none", 0.0), *((kind, s) for kind, strengths in NODE_STRENGTHS.items() for s in strengths)]
    for kind, strength in shifts:
        started = time.process_time()
        shift = "drop_edges" if kind == "none" else kind
        moved, links = shift_nodes(features, edges, shift, strength, seed=seed)  # type: ignore[arg-type]  # of the table above
        new = moved.to_sparse_csr()
        with torch.no_grad():
            (target,) = run_network(graph, state, [new], edges=links)
        said = label_free_estimates(
            source[validation.nodes.index], validation.targets, target[test.nodes.index]
        )
        row: dict[str, object] = {name_: float(value) for name_, value in said.items()}
        if links.shape[1]:
            found = retraining_discrepancy(graph, state, initial, new, edges=links, config=config, seed=seed)
            row |= {
                "lebed": found.distance,
                "lebed_steps": found.steps,
                "lebed_converged": found.has_converged,
            }
        row["error"] = float(source_error(target[test.nodes.index], test.targets))
        row |= {"data": name, "model": f"{op}-{width}-seed{seed}", "shift": kind, "strength": strength}
        rows.append({**row, "cpu_seconds": round(time.process_time() - started, 2)})
    return rows


def trained_on_nodes(
    graph: ComputationalGraph,
    initial: Mapping[str, Tensor],
    features: Tensor,
    edges: Tensor,
    index: Tensor,
    targets: Tensor,
) -> dict[str, Tensor]:
    """100 steps of Adam on the training nodes."""
    state = {name: tensor.clone().requires_grad_() for name, tensor in initial.items()}
    optimizer = torch.optim.Adam(list(state.values()), lr=0.01, weight_decay=5e-4)
    for _ in range(100):
        (logits,) = run_network(graph, state, [features], edges=edges)
        optimizer.zero_grad()
        F.cross_entropy(logits[index], targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    return {name: tensor.detach() for name, tensor in state.items()}


def image_models(name: str) -> dict[str, ComputationalGraph]:
    """Four models of each data set."""
    shape = (1, 8, 8) if name == "digits" else (1, 14, 14)
    return {
        "mlp-32": perceptron((32,), input_shape=shape),
        "mlp-64-64": perceptron((64, 64), input_shape=shape),
        "mlp-32-32-batch": perceptron((32, 32), input_shape=shape, norm="batch"),
        "conv-8-16-batch": small_convnet((8, 16), input_shape=shape, norm="batch"),
    }


def image_rows(name: str, model: str) -> list[dict[str, object]]:
    """One image network under all shifts."""
    if name == "digits":
        data = load_dataset("digits")
    else:
        data = load_dataset(name, data_dir=SHARED_DATA, image_size=14, num_train=4000, download=False)
    graph, test = image_models(name)[model], data.test
    assert test is not None
    settings = [NetworkSettings(seed=0, initial_seed=0, learning_rate=0.05, momentum=0.9, steps=400)]
    initial = initial_stack(graph, settings)
    stacked = train_stack(graph, initial, data.search.train, settings).state
    state, first = ({n: t[0] for n, t in each.items()} for each in (stacked, initial))
    images, labels = test.inputs[:1000], test.targets[:1000]
    config, rows = RetrainConfig(learning_rate=3e-3, weight_decay=0.0, max_steps=40), []
    with torch.no_grad():
        (source,) = run_network(graph, state, [data.search.validation.inputs])
    shifts = [("none", 0.0), *((kind, s) for kind, strengths in IMAGE_STRENGTHS.items() for s in strengths)]
    for kind, strength in shifts:
        started = time.process_time()
        shift = "noise" if kind == "none" else kind
        new = shift_images(images, shift, strength)  # type: ignore[arg-type]  # of the table above
        with torch.no_grad():
            (target,) = run_network(graph, state, [new])
        said = label_free_estimates(source, data.search.validation.targets, target)
        row: dict[str, object] = {name_: float(value) for name_, value in said.items()}
        found = retraining_discrepancy(graph, state, first, new, config=config)
        row |= {"lebed": found.distance, "lebed_steps": found.steps, "lebed_converged": found.has_converged}
        row["error"] = float(source_error(target, labels))
        row |= {"data": name, "model": model, "shift": kind, "strength": strength}
        rows.append({**row, "cpu_seconds": round(time.process_time() - started, 2)})
    return rows


def summary(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Per data set and group of shifts: mean over models of Spearman's correlation and of the mean absolute error."""
    groups = {
        "all": None,
        "features": ("feature_noise", "feature_mask"),
        "structure": ("drop_edges", "add_edges"),
        **{kind: (kind,) for kind in IMAGE_STRENGTHS},
    }
    result = []
    for name, (label, kinds) in product(dict.fromkeys(r["data"] for r in rows), groups.items()):
        per_model: dict[str, list[dict[str, float]]] = {}
        for model in dict.fromkeys(r["model"] for r in rows if r["data"] == name):
            chosen = [
                r for r in rows
                if r["data"] == name and r["model"] == model and (kinds is None or r["shift"] in (*kinds, "none")) and "lebed" in r
            ]  # fmt: skip
            if len(chosen) < 4:
                continue
            error = np.array([float(str(r["error"])) for r in chosen])
            for method in (*ERRORS, "mean_entropy", "lebed"):
                said = np.array([float(str(r[method])) for r in chosen])
                numbers = {"spearman": float(spearmanr(said, error).statistic)}
                if method in ERRORS:
                    numbers["mae"] = float(np.abs(said - error).mean())
                per_model.setdefault(method, []).append(numbers)
        for method, found in per_model.items():
            line: dict[str, object] = {"data": name, "shifts": label, "method": method, "models": len(found)}
            for key in found[0]:
                values = [each[key] for each in found]
                line |= {key: float(np.mean(values)), f"{key}_low": min(values), f"{key}_high": max(values)}
            result.append(line)
    return result


def main() -> None:
    """Run what is missing, then write the summary."""
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {(row["data"], row["model"]) for row in rows}
    work: list[tuple[str, str | tuple[str, int, int]]] = [
        *(("digits", model) for model in image_models("digits")),
        *((name, each) for name in ("cora", "citeseer") for each in NODE_MODELS),
        *(("fashion-mnist", model) for model in image_models("fashion-mnist")),
    ]
    for name, model in work:
        label = model if isinstance(model, str) else f"{model[0]}-{model[1]}-seed{model[2]}"
        if (name, label) in done:
            continue
        found = image_rows(name, model) if isinstance(model, str) else node_rows(name, *model)
        rows += found
        with ROWS.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in found))
        errors = [float(str(row["error"])) for row in found]
        print(name, label, f"errors {min(errors):.3f} to {max(errors):.3f}", flush=True)
        save("meta_shift", {"rows": summary(rows)})
    save("meta_shift", {"rows": summary(rows)})


if __name__ == "__main__":
    main()
