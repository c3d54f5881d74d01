"""How many epochs do predicted weights save, and where do they lose?

    python -m benchmarks.ghn.fine_tuning --ghn zoo/ghn-digits --data digits --count 20 --epochs 15
    python -m benchmarks.ghn.fine_tuning --ghn FOLDER --data cifar10 --image-size 16 --num-train 4000 --count 10

Held-out architectures are trained from four starts with one schedule: random (He et al. 2015 in torch's form), predicted,
predicted and made orthogonal, and predicted, orthogonal and noisy. Validation accuracy after every epoch is kept.
Epochs saved: the epoch in which the random start first reaches what the other start reached after its k-th epoch, less k.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import SearchData, load_dataset
from nasgraph.evaluate import TrainConfig, train_graph
from nasgraph.hyper import GraphHyperNetwork, held_out_candidates, load_ghn, orthogonalise
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import initial_parameters
from nasgraph.spaces import load_space

STARTS = ("random", "predicted", "orthogonal", "orthogonal, noise")


def start_weights(
    name: str, graph: ComputationalGraph, ghn: GraphHyperNetwork, *, seed: int
) -> dict[str, torch.Tensor]:
    """The parameters that a training starts from."""
    if name == "random":
        return initial_parameters(graph, seed=seed)
    (parameters,) = ghn.predict([graph])
    if name == "predicted":
        return parameters
    rng = torch.Generator().manual_seed(seed)
    for key, spec in graph.parameters.items():
        if spec.role == "weight":
            weight = orthogonalise(parameters[key])
            if "noise" in name:
                weight = weight + 0.1 * weight.square().mean().sqrt() * torch.randn(
                    weight.shape, generator=rng
                )
            parameters[key] = weight
    return parameters


def curve(
    graph: ComputationalGraph,
    data: SearchData,
    config: TrainConfig,
    start: dict[str, torch.Tensor],
    *,
    seed: int,
) -> list[float]:
    """Validation accuracy after each epoch."""
    values: list[float] = []

    def note(_: int, value: float) -> bool:
        values.append(value)
        return True

    train_graph(graph, data, config, start=start, seed=seed, keep_going=note)
    return values


def epochs_saved(other: np.ndarray, random: np.ndarray, k: int) -> list[float]:
    """For each architecture: epochs that the random start needs to reach the other's accuracy after epoch k, less k.

    A start that never gets there counts with one epoch more than were run; the figure is then a lower bound.
    """
    saved = []
    for mine, theirs in zip(other, random, strict=True):
        reached = np.nonzero(theirs >= mine[k - 1])[0]
        saved.append(float((reached[0] + 1 if len(reached) else len(theirs) + 1) - k))
    return saved


def summarise(curves: dict[str, np.ndarray]) -> dict[str, object]:
    """Mean accuracies by epoch, epochs saved, wins and losses."""
    random = curves["random"]
    last = random.shape[1]
    result: dict[str, object] = {
        "mean accuracy by epoch": {name: values.mean(0).round(4).tolist() for name, values in curves.items()},
        "spread (std) after the last epoch": {
            name: float(v[:, -1].std(ddof=1)) for name, v in curves.items()
        },
    }
    for name in STARTS[1:]:
        result[name] = {
            f"epochs saved after {k}": {
                "mean": float(np.mean(epochs_saved(curves[name], random, k))),
                "median": float(np.median(epochs_saved(curves[name], random, k))),
            }
            for k in (1, 3, 5)
            if k < last
        } | {
            f"better / worse than random after {k}": [
                int((curves[name][:, k - 1] > random[:, k - 1]).sum()),
                int((curves[name][:, k - 1] < random[:, k - 1]).sum()),
            ]
            for k in (1, 3, 5, last)
            if k <= last
        }
    return result


def draw(curves: dict[str, np.ndarray], path: Path, *, title: str) -> None:
    """Mean curves with one standard error."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in curves.items():
        mean, error = values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5
        epochs = np.arange(1, values.shape[1] + 1)
        axes.plot(epochs, mean, label=name)
        axes.fill_between(epochs, mean - error, mean + error, alpha=0.2)
    axes.set(xlabel="epoch", ylabel="validation accuracy, mean over architectures", title=title)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ghn", type=Path, required=True)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--num-train", type=int)
    parser.add_argument("--space", default="convnet")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(
        arguments.data, data_dir=SHARED_DATA, image_size=arguments.image_size, num_train=arguments.num_train
    )
    space = load_space(arguments.space, input_shape=data.input_shape, num_classes=data.num_classes)
    ghn, recipe = load_ghn(arguments.ghn)
    config = TrainConfig(epochs=arguments.epochs, learning_rate=arguments.learning_rate)
    name = f"fine_tuning_{data.name}_{arguments.space}"
    partial = RESULTS / f"{name}.rows.jsonl"
    rows = [json.loads(line) for line in partial.read_text().splitlines()] if partial.exists() else []
    for index, candidate in enumerate(held_out_candidates([space], count=arguments.count)):
        if index < len(rows):
            continue
        row = {
            start: curve(
                candidate.graph,
                data.search,
                config,
                start_weights(start, candidate.graph, ghn, seed=index),
                seed=index,
            )
            for start in STARTS
        }
        rows.append(row)
        with partial.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(index, {start: round(values[-1], 4) for start, values in row.items()}, flush=True)
    curves = {start: np.array([row[start] for row in rows]) for start in STARTS}
    settings = {key: str(value) for key, value in vars(arguments).items()}
    draw(curves, RESULTS / f"{name}.png", title=f"{len(rows)} held-out architectures, {data.name}")
    path = save(name, {"settings": settings, "ghn recipe": recipe, **summarise(curves)})
    print(path.read_text())


if __name__ == "__main__":
    main()
