"""Refinement of predicted weights: does a metanetwork improve what a graph hypernetwork wrote, on architectures it was not trained on?

    python -m benchmarks.meta.refine --steps 400

The shipped hypernetwork `zoo/ghn-digits` predicts the weights of perceptrons of the space `mlp`; the edit head is trained by cross-entropy through the
networks on some of them, and used once on others. Beside it: steps of SGD (momentum .9, the best of three rates on validation data) from the same
predicted weights, each network by itself. Accuracies are on test images.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import save
from nasgraph.data import load_dataset
from nasgraph.encode import batch_graphs, encode
from nasgraph.hyper import GraphHyperNetwork, held_out_candidates, load_ghn
from nasgraph.hyper.splits import training_candidate
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import graph_layout
from nasgraph.meta.networks import Metanetwork, MetanetworkConfig
from nasgraph.meta.networks.refine import Network, RefineConfig, fit_refinement, refined
from nasgraph.modules import initial_buffers, is_parameter, run_network
from nasgraph.seeding import generator
from nasgraph.spaces import load_space

RATES = (0.01, 0.03, 0.1)
STEPS = (1, 4, 16, 64)


@torch.no_grad()
def predicted(ghn: GraphHyperNetwork, graph: ComputationalGraph) -> Network:
    """A graph with the state that the hypernetwork predicts."""
    (parameters,) = ghn(batch_graphs([encode(graph)]))
    return graph, {**{name: tensor.detach() for name, tensor in parameters.items()}, **initial_buffers(graph)}


@torch.no_grad()
def accuracy(network: Network, inputs: Tensor, targets: Tensor) -> float:
    """Share of right answers, with the batch's statistics in batch norms."""
    (said,) = run_network(*network, (inputs,), use_batch=True)
    return (said.argmax(1) == targets).float().mean().item()


def after_sgd(
    network: Network, inputs: Tensor, targets: Tensor, *, steps: int, rate: float, seed: int
) -> Network:
    """The network after so many steps from its state."""
    graph, state = network
    learnt = {name: t.clone().requires_grad_() for name, t in state.items() if is_parameter(name, t)}
    optimizer = torch.optim.SGD(list(learnt.values()), lr=rate, momentum=0.9)
    for step in range(steps):
        chosen = torch.from_numpy(generator(seed, "sgd", step).integers(len(inputs), size=64))
        (said,) = run_network(graph, {**state, **learnt}, (inputs[chosen],), use_batch=True)
        optimizer.zero_grad()
        F.cross_entropy(said, targets[chosen]).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    return graph, {**state, **{name: tensor.detach() for name, tensor in learnt.items()}}


def small(graphs: Sequence[ComputationalGraph], count: int) -> list[ComputationalGraph]:
    """The first different ones with at most 20,000 edges in their parameter graph."""
    found = {graph.fingerprint: graph for graph in graphs if graph_layout(graph).num_edges <= 20_000}
    return list(found.values())[:count]


def mean(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over architectures."""
    tensor = torch.tensor(values)
    return {"mean": tensor.mean().item(), "std": tensor.std().item()}


def main() -> None:
    """Train the edit head on some architectures, and compare on others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--train", type=int, default=12)
    parser.add_argument("--test", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits")
    train, validation, test = data.search.train, data.search.validation, data.test
    ghn, _ = load_ghn(Path("zoo/ghn-digits"))
    ghn.eval()
    space = load_space("mlp", input_shape=data.input_shape, num_classes=data.num_classes)
    seen = small([training_candidate(space, index).graph for index in range(150)], given.train)
    unseen = small([each.graph for each in held_out_candidates([space], count=150)], given.test)
    started = time.process_time()
    metanetwork = fit_refinement(
        Metanetwork(MetanetworkConfig(layers=3), seed=0),
        [predicted(ghn, graph) for graph in seen],
        train.inputs,
        train.targets,
        config=RefineConfig(steps=given.steps),
        on_step=lambda step, loss: print(step, round(loss, 4), flush=True) if step % 25 == 0 else None,
    )
    seconds = time.process_time() - started
    networks = [predicted(ghn, graph) for graph in unseen]
    with torch.no_grad():
        edited = [(network[0], refined(metanetwork, network)) for network in networks]
    rows: dict[str, dict[str, float]] = {
        "predicted": mean([accuracy(each, test.inputs, test.targets) for each in networks]),
        "refined by the metanetwork, one pass": mean(
            [accuracy(each, test.inputs, test.targets) for each in edited]
        ),
    }
    for name, start in (("predicted", networks), ("refined", edited)):
        for steps in STEPS:
            tuned = {
                rate: [
                    after_sgd(each, train.inputs, train.targets, steps=steps, rate=rate, seed=0)
                    for each in start
                ]
                for rate in RATES
            }
            scores = {
                rate: mean([accuracy(each, validation.inputs, validation.targets) for each in found])["mean"]
                for rate, found in tuned.items()
            }
            best = max(scores, key=lambda rate: scores[rate])
            rows[f"{name}, then {steps} steps of SGD"] = {
                **mean([accuracy(each, test.inputs, test.targets) for each in tuned[best]]),
                "rate": best,
            }
    for name, row in rows.items():
        print(name, row, flush=True)
    save(
        "meta_refine",
        {
            "accuracy on test images": rows,
            "trained on": len(seen),
            "tested on": len(unseen),
            "steps": given.steps,
            "cpu_seconds_of_training": round(seconds, 1),
        },
    )


if __name__ == "__main__":
    main()
