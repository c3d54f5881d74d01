"""Peak memory of a parameter graph of ResNet-18 (11 million parameters), and of a metanetwork's forward and backward pass over it.

    python -m benchmarks.meta.memory

Each case runs in a process of its own, whose peak resident size is read at its end. Writes
`benchmarks/results/meta_memory.json`, and rows as they come: a second run goes on where the first stopped.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from time import process_time

import torch

from benchmarks.common import RESULTS, save
from benchmarks.meta.models import traced_models
from nasgraph.meta.graph import graph_layout, layer_graph, parameter_graph
from nasgraph.meta.networks import Metanetwork, MetanetworkConfig

LIMIT_GB = 8.0
ROWS = RESULTS / "meta_memory.rows.jsonl"
CONFIG = MetanetworkConfig(layers=3, node_dim=32, edge_dim=16)


def main() -> None:
    """Run each case in a new process, or one case in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--model", default="resnet-18")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.case:
        started = process_time()
        facts = CASES[arguments.case](arguments.model)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        facts |= {"peak_gb": round(peak, 3), "cpu_seconds": round(process_time() - started, 2)}
        sys.stdout.write(json.dumps(facts))
        return
    rows = _known(arguments.model)
    for case in CASES:
        if any(row["case"] == case for row in rows):
            continue
        command = [sys.executable, "-m", "benchmarks.meta.memory", "--case", case, "--model", arguments.model]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append({"case": case, "model": arguments.model, **json.loads(done.stdout)})
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        sys.stderr.write(f"{rows[-1]}\n")
    largest = max(float(str(row["peak_gb"])) for row in rows)
    save(
        "meta_memory",
        {
            "model": arguments.model,
            "metanetwork": {
                "layers": CONFIG.layers,
                "node_dim": CONFIG.node_dim,
                "edge_dim": CONFIG.edge_dim,
            },
            "limit_gb": LIMIT_GB,
            "within_limit": largest < LIMIT_GB,
            "rows": rows,
        },
    )


def _known(model: str) -> list[dict[str, object]]:
    """What an earlier run measured."""
    if not ROWS.exists():
        return []
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["model"] == model]


def _only_loaded(name: str) -> dict[str, object]:
    model = traced_models()[name]
    return {"parameters": sum(tensor.numel() for tensor in model.state.values())}


def _graph(name: str) -> dict[str, object]:
    model = traced_models()[name]
    made = parameter_graph(model.graph, model.state)
    return {"nodes": made.num_nodes, "edges": made.num_edges}


def _round_trip(name: str) -> dict[str, object]:
    model = traced_models()[name]
    (back,) = parameter_graph(model.graph, model.state).to_states()
    return {"bit_equal": all(torch.equal(back[own], tensor) for own, tensor in model.state.items())}


def _layers(name: str) -> dict[str, object]:
    model = traced_models()[name]
    return {"nodes": len(layer_graph(model.graph, model.state).node_op)}


def _prediction(name: str) -> dict[str, object]:
    model = traced_models()[name]
    network = Metanetwork(CONFIG)
    with torch.no_grad():
        value = network.predict(parameter_graph(model.graph, model.state))
    return {"finite": bool(value.isfinite().all())}


def _training_step(name: str) -> dict[str, object]:
    model = traced_models()[name]
    network = Metanetwork(CONFIG)
    made = parameter_graph(model.graph, model.state)
    loss = network.raw(made).square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return {"edges": graph_layout(model.graph).num_edges, "loss": float(loss)}


CASES: Mapping[str, Callable[[str], dict[str, object]]] = {
    "model only": _only_loaded,
    "parameter graph": _graph,
    "and back": _round_trip,
    "layer graph": _layers,
    "metanetwork, forward": _prediction,
    "metanetwork, forward and backward": _training_step,
}

if __name__ == "__main__":
    main()
