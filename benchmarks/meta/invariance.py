"""What trained metanetworks see, and what they must not see: changes of their output under valid and invalid changes of networks.

    python -m benchmarks.meta.invariance --populations /tmp/nasgraph-populations

Reads the metanetworks that `python -m benchmarks.meta.accuracy` trained. Valid: random permutations of hidden units; for networks with ReLU
also random rescaling by factors from 0.1 to 10. Invalid: the rows of one weight reordered, and nothing else.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import save
from benchmarks.meta.accuracy import CHECKPOINTS
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import parameter_graph
from nasgraph.meta.networks import Metanetwork, load_metanetwork
from nasgraph.meta.population import Population
from nasgraph.meta.views import agreement
from nasgraph.seeding import generator
from nasgraph.symmetry import permute_units, random_factors, random_orders, rescale_units, symmetry_table

State = Mapping[str, Tensor]


@torch.no_grad()
def changes(metanetwork: Metanetwork, graph: ComputationalGraph, state: State, seed: int) -> dict[str, float]:
    """Largest absolute changes of predictions (in [0, 1]) and edits, for one network."""
    kind = next(metanetwork.parameters()).dtype
    state = {name: tensor.to(kind) for name, tensor in state.items()}
    table = symmetry_table(graph)
    orders = random_orders(table, seed=seed)
    factors = random_factors(table, seed=seed, low=0.1, high=10.0)
    moved, scaled = permute_units(table, state, orders), rescale_units(table, state, factors)
    name = next(name for name, spec in graph.parameters.items() if len(spec.shape) > 1)
    order = torch.from_numpy(generator(seed, "invalid").permutation(len(state[name])))
    broken = {**state, name: state[name][order]}
    graphs = {
        key: parameter_graph(graph, each)
        for key, each in (
            ("own", state),
            ("permuted", moved),
            ("rescaled", scaled),
            ("one weight permuted", broken),
        )
    }
    said = {key: metanetwork.predict(pg) for key, pg in graphs.items()}
    result = {key: (said[key] - said["own"]).abs().max().item() for key in graphs if key != "own"}
    edited, edited_moved = (
        pg.to_states(*metanetwork.edit(pg))[0] for pg in (graphs["own"], graphs["permuted"])
    )
    expected = permute_units(table, edited, orders)
    result["edit, permuted"] = max((expected[key] - edited_moved[key]).abs().max().item() for key in expected)
    return result


@torch.no_grad()
def under_rescaling(
    metanetwork: Metanetwork, population: Population, count: int
) -> dict[str, dict[str, float]]:
    """How well accuracies are told, before and after random rescaling of the networks."""
    indices = population.select(split="test")[:count]
    truth = torch.from_numpy(population.table["test_accuracy"][indices])
    found: dict[str, list[float]] = {"as trained": [], "rescaled": []}
    for index in indices.tolist():
        graph, state = population.graph(index), population.stack([index])
        own = {name: tensor[0] for name, tensor in state.items()}
        table = symmetry_table(graph)
        scaled = rescale_units(table, own, random_factors(table, seed=index, low=0.1, high=10.0))
        for key, each in (("as trained", own), ("rescaled", scaled)):
            found[key].append(metanetwork.predict(parameter_graph(graph, each)).item())
    return {key: agreement(torch.tensor(each), truth) for key, each in found.items()}


@torch.no_grad()
def with_edits(metanetwork: Metanetwork) -> Metanetwork:
    """The same with random weights in the head that edits, which was not trained and would change nothing."""
    rng = torch.Generator().manual_seed(0)
    for name, parameter in metanetwork.named_parameters():
        if ".edit" in name:
            parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.1)
    return metanetwork


def main() -> None:
    """Measure all metanetworks that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--populations", type=Path, default=Path("/tmp/nasgraph-populations"))
    parser.add_argument("--networks", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in sorted(CHECKPOINTS.glob("*/network")):
        task = "-".join(folder.parent.name.split("-")[:2])
        population = Population.open(given.populations / task)
        for dtype in (torch.float32, torch.float64):
            metanetwork = with_edits(load_metanetwork(folder)).to(dtype)
            chosen = population.select(split="test")
            chosen = chosen[:: max(1, len(chosen) // given.networks)][: given.networks]
            found = [
                changes(metanetwork, member.graph, member.state, seed)
                for seed, member in enumerate(population.member(int(index)) for index in chosen)
            ]
            largest = {key: max(each[key] for each in found) for key in found[0]}
            median = float(torch.tensor([each["one weight permuted"] for each in found]).median())
            rows.append(
                {
                    "population": task,
                    "kind": metanetwork.config.kind,
                    "precision": str(dtype).removeprefix("torch."),
                    "networks": len(found),
                    "largest": largest,
                    "one weight permuted, median": median,
                }
            )
            print(rows[-1], flush=True)
        if task != "digits-families":
            rows.append(
                {
                    "population": task,
                    "kind": load_metanetwork(folder).config.kind,
                    "accuracy prediction": under_rescaling(load_metanetwork(folder), population, 100),
                }
            )
            print(rows[-1], flush=True)
    save("meta_invariance", {"rows": rows})


if __name__ == "__main__":
    main()
