"""Hypernetworks of the literature and ours under one training budget, in and out of distribution.

    python -m benchmarks.ghn.quality --data cifar10 --image-size 16 --steps 1000 --per-split 40 --trained 6
    python -m benchmarks.ghn.quality --data digits --steps 1000 --per-split 40 --trained 10

Every variant sees the same architectures and images in the same order (the seed decides both) for the same number of steps;
its CPU seconds stand beside. All are our own implementations:

    GHN-1        gated encoder, direct edges only, convolutional decoder (Zhang et al. 2019)
    GHN-2        gated encoder with virtual edges, convolutional decoder (Knyazev et al. 2021)
    GHN-3        transformer encoder, convolutional decoder (Knyazev et al. 2023)
    LoGAH-style  transformer encoder, low-rank decoder (Zhou et al. 2024)
    nasgraph     transformer encoder, tiled decoder; also with the magnitude-invariant input (Ortiz et al. 2023)

Measured is the mean validation accuracy of predicted weights on the evaluation splits of `convnet` (batch norms use the
statistics of the batch, as in the papers), beside random weights and, for the first few architectures of each split, one
and five epochs of real training. Trained hypernetworks are kept in --work, so that an interrupted run goes on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, SHARED_DATA, cpu_seconds, save
from nasgraph.data import DataSet, load_dataset
from nasgraph.evaluate import TrainConfig, measure, train_graph
from nasgraph.hyper import (
    GHNConfig,
    GHNTrainConfig,
    GraphHyperNetwork,
    held_out_fingerprints,
    load_ghn,
    save_ghn,
    split_list,
    train_ghn,
)
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import Program, initial_parameters
from nasgraph.spaces import load_space

VARIANTS = {
    "GHN-1": GHNConfig(encoder="gated", num_layers=1, decoder="conv", virtual_edges=False),
    "GHN-2": GHNConfig(encoder="gated", num_layers=1, decoder="conv"),
    "GHN-3": GHNConfig(encoder="transformer", decoder="conv"),
    "LoGAH-style": GHNConfig(encoder="transformer", decoder="low_rank"),
    "nasgraph": GHNConfig(encoder="transformer", decoder="tiled"),
    "nasgraph, MIP": GHNConfig(encoder="transformer", decoder="tiled", mip=True),
}


def trained(name: str, data: DataSet, arguments: argparse.Namespace) -> tuple[GraphHyperNetwork, float]:
    """The hypernetwork of a variant after training, from --work if it is there, and its CPU seconds."""
    folder = arguments.work / f"{data.name}-{name}-{arguments.seed}"
    if (folder / "weights.safetensors").exists():
        ghn, recipe = load_ghn(folder)
        return ghn, float(str(recipe["cpu_seconds"]))
    space = load_space("convnet", input_shape=data.input_shape, num_classes=data.num_classes)
    held_out = held_out_fingerprints([space], input_shape=data.input_shape, num_classes=data.num_classes)
    config = GHNTrainConfig(
        steps=arguments.steps,
        meta_batch=8,
        batch_size=arguments.batch_size,
        learning_rate=1.2e-3,
        seed=arguments.seed,
        noise_std=0.05,
    )
    ghn = GraphHyperNetwork(VARIANTS[name], seed=config.seed)
    _, seconds = cpu_seconds(
        lambda: train_ghn(ghn, [space], data.search, config, folder=folder, resume=True, held_out=held_out)
    )
    save_ghn(ghn, folder, recipe={"variant": name, "cpu_seconds": seconds})
    return ghn.eval(), seconds


def references(
    graphs: list[ComputationalGraph], data: DataSet, arguments: argparse.Namespace
) -> list[dict[str, float]]:
    """Random weights, and real training of the first few."""
    rows = []
    for index, graph in enumerate(graphs):
        start = initial_parameters(graph, seed=index)
        _, accuracy = measure(Program(graph), start, data.search.validation, batch_size=64)
        row = {"random": accuracy, "num_parameters": float(cost_of(graph).num_parameters)}
        if index < arguments.trained:
            for epochs in (1, 5):
                config = TrainConfig(epochs=epochs, learning_rate=2e-3)
                result = train_graph(
                    graph, data.search, config, start=start, seed=0, keep_going=lambda *_: True
                )
                row[f"{epochs} epochs"] = result.value
        rows.append(row)
    return rows


def summary(values: list[float]) -> dict[str, float]:
    """Mean, standard error and largest."""
    array = np.array(values)
    return {
        "mean": float(array.mean()),
        "standard error": float(array.std(ddof=1) / len(array) ** 0.5),
        "max": float(array.max()),
        "count": len(array),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--num-train", type=int)
    parser.add_argument("--num-eval", type=int, help="validation images to measure on")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--per-split", type=int, default=40)
    parser.add_argument("--trained", type=int, default=6)
    parser.add_argument(
        "--splits", nargs="+", default=["id_test", "wide", "deep", "dense", "norm_free", "predefined"]
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the result file; the default tells the data set")
    parser.add_argument("--work", type=Path, required=True, help="folder for trained hypernetworks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(
        arguments.data, data_dir=SHARED_DATA, image_size=arguments.image_size, num_train=arguments.num_train
    )
    if arguments.num_eval is not None:
        few = data.search.validation.pick(torch.arange(arguments.num_eval))
        data = replace(data, search=replace(data.search, validation=few))
    shape, classes = data.input_shape, data.num_classes
    lists = split_list("convnet").splits
    graphs = {
        name: [
            c.graph
            for c in lists[name].candidates(input_shape=shape, num_classes=classes, count=arguments.per_split)
        ]
        for name in arguments.splits
    }
    name = arguments.name or f"ghn_variants_{data.name}"
    partial = RESULTS / f"{name}.partial.json"
    done = json.loads(partial.read_text()) if partial.exists() else {}
    for variant in arguments.variants:
        ghn, seconds = trained(variant, data, arguments)
        if variant not in done:
            done[variant] = {
                "training CPU seconds": seconds,
                "parameters": sum(p.numel() for p in ghn.parameters()),
            }
            for split, members in graphs.items():
                values = []
                for graph in members:
                    (predicted,) = ghn.predict([graph])
                    values.append(
                        measure(Program(graph), predicted, data.search.validation, batch_size=64)[1]
                    )
                done[variant][split] = summary(values)
            partial.write_text(json.dumps(done))
        print(variant, json.dumps(done[variant]), flush=True)
    for split, members in graphs.items():
        if split not in done.setdefault("references", {}):
            rows = references(members, data, arguments)
            done["references"][split] = {
                key: summary([row[key] for row in rows if key in row])
                for key in ("random", "1 epochs", "5 epochs", "num_parameters")
                if any(key in row for row in rows)
            }
            partial.write_text(json.dumps(done))
        print(split, json.dumps(done["references"][split]), flush=True)
    settings = {key: str(value) for key, value in vars(arguments).items()}
    print(save(name, {"settings": settings, **done}).read_text())
    partial.unlink()


if __name__ == "__main__":
    main()
