"""A full grid of networks for testing measures: every hyper-parameter is varied with all others equal, and all are stopped at one training loss."""

from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from benchmarks.common import SHARED_DATA
from nasgraph.data import Split, load_dataset
from nasgraph.files import read_json, write_json
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.measures import accuracies, logits_of_stack
from nasgraph.meta.population.presets import perceptron
from nasgraph.meta.population.settings import NetworkSettings
from nasgraph.meta.population.stack import initial_stack, train_stack

WIDTHS, DEPTHS, BATCHES = (16, 32), (1, 2, 3), (16, 64)
RATES, DECAYS, SEEDS = (0.01, 0.02, 0.05), (0.0, 5e-4, 2e-3), (0, 1)
STEPS = {16: 3000, 64: 1500}
STOP = 0.1
"""Training loss at which every network is taken."""
SNAPSHOTS = tuple((k + 1) / 24 for k in range(24))
FOLDER = Path("/tmp/nasgraph-measures-grid")


def data() -> tuple[Split, Split]:
    """500 training and 5,000 test images of Fashion-MNIST at 14 x 14 pixels."""
    loaded = load_dataset("fashion-mnist", data_dir=SHARED_DATA, image_size=14, num_train=500, download=False)
    train, test = loaded.search.train, loaded.test
    assert test is not None
    return Split(train.inputs[:500], train.targets[:500]), Split(test.inputs[:5000], test.targets[:5000])


def graph_of(width: int, depth: int) -> ComputationalGraph:
    """A perceptron with ReLU."""
    return perceptron((width,) * depth, input_shape=(1, 14, 14))


def train_cell(width: int, depth: int, batch: int, train: Split, test: Split) -> None:
    """Train the 18 networks of one cell of the grid; resumable by file."""
    path = FOLDER / f"{width}-{depth}-{batch}.safetensors"
    if path.with_suffix(".json").exists():
        return
    graph = graph_of(width, depth)
    settings = [
        NetworkSettings(
            seed=seed,
            initial_seed=seed,
            learning_rate=rate,
            momentum=0.9,
            weight_decay=decay,
            steps=STEPS[batch],
        )
        for rate, decay, seed in product(RATES, DECAYS, SEEDS)
    ]
    initial = initial_stack(graph, settings)
    trained = train_stack(graph, initial, train, settings, batch_size=batch, snapshots=SNAPSHOTS)
    state, rows = {name: tensor.clone() for name, tensor in trained.state.items()}, []
    reached = torch.full((len(settings),), -1)
    losses = torch.full((len(settings),), torch.inf)
    for place, snapshot in enumerate(trained.snapshots):
        logits = logits_of_stack(graph, snapshot, train.inputs)
        loss = torch.stack([F.cross_entropy(each, train.targets) for each in logits])
        now = (reached < 0) & (loss <= STOP)
        reached[now], losses[now] = place, loss[now]
        for name, tensor in snapshot.items():
            state[name][now] = tensor[now]
    train_accuracy = accuracies(logits_of_stack(graph, state, train.inputs), train.targets)
    test_accuracy = accuracies(logits_of_stack(graph, state, test.inputs), test.targets)
    for place, each in enumerate(settings):
        rows.append(
            {
                "width": width, "depth": depth, "batch": batch, "rate": each.learning_rate, "decay": each.weight_decay,
                "seed": each.seed, "reached": int(reached[place]), "loss": float(losses[place]) if reached[place] >= 0 else -1.0,
                "train_accuracy": float(train_accuracy[place]), "test_accuracy": float(test_accuracy[place]),
            }
        )  # fmt: skip
    tensors = {f"final/{name}": tensor.contiguous() for name, tensor in state.items()}
    tensors |= {f"initial/{name}": tensor.contiguous() for name, tensor in initial.items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    write_json(path.with_suffix(".json"), rows)  # type: ignore[arg-type]  # rows are plain
    print(path.name, f"reached {int((reached >= 0).sum())} of {len(rows)}", flush=True)


def train_grid() -> None:
    """All cells."""
    train, test = data()
    for width, depth, batch in product(WIDTHS, DEPTHS, BATCHES):
        train_cell(width, depth, batch, train, test)


def load_cell(
    width: int, depth: int, batch: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[dict[str, float]]]:
    """Final and initial stack of a cell, and its rows."""
    path = FOLDER / f"{width}-{depth}-{batch}.safetensors"
    tensors = load_file(path)
    parts = [
        {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(kind)}
        for kind in ("final", "initial")
    ]
    rows = read_json(path.with_suffix(".json"))
    return parts[0], parts[1], rows  # type: ignore[return-value]  # as written


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_grid()
