"""Finding a network again by its weights: copies that were fine-tuned, their hidden units reordered, and the networks they come from.

    python -m benchmarks.meta.embedding --population /tmp/nasgraph-populations/digits-families
    python -m benchmarks.meta.embedding --population /tmp/nasgraph-populations/digits-families --ship zoo/metanetwork-digits

The embedding head of the shipped metanetwork is trained on the training split (a network, a fine-tuned copy and noisy copies of both are one
lineage); nothing else of the metanetwork changes. Queries are fine-tuned copies of the networks of another split, by other steps, whose hidden
units are put in random order; candidates are the networks of that split. `--ship` writes the head into the folder.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import save
from nasgraph.data import Split, load_dataset
from nasgraph.files import read_json
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import parameter_graph
from nasgraph.meta.networks import Metanetwork, load_metanetwork, save_metanetwork, shipped_metanetwork
from nasgraph.meta.networks.fit_embedding import EmbeddingConfig, fit_embedding
from nasgraph.meta.population import NetworkSettings, Population, Stack, train_stack, unstack
from nasgraph.meta.views import flat, pooled_statistics
from nasgraph.retrieve.measures import recall, reciprocal_rank
from nasgraph.seeding import derive_seed
from nasgraph.symmetry import permute_units, random_orders, symmetry_table

SPLITS = ("test", "unseen-width", "unseen-depth", "unseen-activation", "unseen-family")
STEPS, RATE = 100, 0.05


def fine_tuned(graph: ComputationalGraph, stacked: Stack, data: Split, *, seed: int) -> Stack:
    """Networks after some more steps of training, each with batches of its own order."""
    settings = [
        NetworkSettings(
            seed=derive_seed(seed, place),
            initial_seed=0,
            gain=1.0,
            learning_rate=RATE,
            weight_decay=0.0,
            momentum=0.0,
            steps=STEPS,
        )
        for place in range(len(next(iter(stacked.values()))))
    ]
    return train_stack(graph, stacked, data, settings).state


def trained(population: Population, start: Metanetwork, config: EmbeddingConfig, data: Split) -> Metanetwork:
    """The metanetwork with its embedding head trained and all else as it was."""
    for name, parameter in start.named_parameters():
        parameter.requires_grad_(name.startswith("to_embedding"))
    groups, lineages = [], []
    for group in population.by_architecture(indices=population.select(split="train")):
        other = fine_tuned(group.graph, group.state, data, seed=1)
        both = {name: torch.cat([tensor, other[name]]) for name, tensor in group.state.items()}
        groups.append((group.graph, both))
        lineages.append(torch.from_numpy(group.indices).repeat(2))
    return fit_embedding(groups, lineages=lineages, start=start, config=config)


def views(
    population: Population, split: str, metanetwork: Metanetwork, data: Split, *, seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """By view: vectors of the queries and of the candidates, in one order."""
    found: dict[str, tuple[list[Tensor], list[Tensor]]] = {
        name: ([], []) for name in ("metanetwork", "pooled statistics", "flat weights")
    }
    for group in population.by_architecture(indices=population.select(split=split)):
        later = fine_tuned(group.graph, group.state, data, seed=100 + seed)
        table = symmetry_table(group.graph)
        for row, index in enumerate(group.indices.tolist()):
            orders = random_orders(table, seed=seed + index)
            query = permute_units(table, unstack(later, row), orders)
            for place, state in enumerate((query, unstack(group.state, row))):
                with torch.inference_mode():
                    vector = metanetwork.embed(parameter_graph(group.graph, state))[0]
                found["metanetwork"][place].append(vector)
                found["pooled statistics"][place].append(pooled_statistics(group.graph, state))
                found["flat weights"][place].append(flat(group.graph, state))
    return {name: (_stacked(queries), _stacked(finals)) for name, (queries, finals) in found.items()}


def _stacked(vectors: list[Tensor]) -> Tensor:
    longest = max(len(vector) for vector in vectors)  # weights of other architectures: filled up with zeros
    return torch.stack([torch.nn.functional.pad(v.double(), (0, longest - len(v))) for v in vectors])


def score(queries: Tensor, finals: Tensor, *, standardise: bool) -> dict[str, float]:
    """Mean reciprocal rank among the first 20 and share found at once, by cosine."""
    if standardise:
        mean, std = finals.mean(0), finals.std(0).clamp(min=1e-9)
        queries, finals = (queries - mean) / std, (finals - mean) / std
    cosine = torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(finals, dim=1).T
    order = cosine.argsort(dim=1, descending=True, stable=True)
    relevance = (order == torch.arange(len(queries)).unsqueeze(1)).double().numpy()
    return {
        "mrr_at_20": float(np.mean(reciprocal_rank(relevance, k=20))),
        "recall_at_1": float(np.mean(recall(relevance, k=1))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--population", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="orders of units")
    parser.add_argument("--ship", type=Path, help="folder of the metanetwork to write the head into")
    given = parser.parse_args()
    torch.set_num_threads(1)
    population, started = Population.open(given.population), time.process_time()
    data = load_dataset("digits").search.train
    before = load_metanetwork(shipped_metanetwork())
    config = EmbeddingConfig(epochs=given.epochs, learning_rate=3e-3)
    metanetwork = trained(population, load_metanetwork(shipped_metanetwork()), config, data)
    seconds = time.process_time() - started
    assert all(
        torch.equal(tensor, metanetwork.state_dict()[name])
        for name, tensor in before.state_dict().items()
        if not name.startswith("to_embedding")
    ), "only the head may change"
    if given.ship is not None:
        document = cast("dict[str, Any]", read_json(given.ship / "config.json"))
        recipe = {
            **document["recipe"],
            "embedding": {
                "population": population.recipe.name,
                "epochs": given.epochs,
                "seconds": round(seconds),
            },
        }
        save_metanetwork(metanetwork, given.ship, recipe=recipe, targets=document["targets"])
    rows = []
    for split in SPLITS:
        for seed in range(given.seeds):
            for name, (queries, finals) in views(
                population, split, metanetwork, data, seed=1000 * seed
            ).items():
                found = score(queries, finals, standardise=name == "pooled statistics")
                rows.append({"split": split, "view": name, "seed": seed, "candidates": len(finals), **found})
                print(json.dumps(rows[-1]), flush=True)
    save("meta_embedding", {"cpu_seconds_of_training": seconds, "epochs": given.epochs, "rows": rows})


if __name__ == "__main__":
    main()
