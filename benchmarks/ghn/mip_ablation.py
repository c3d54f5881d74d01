"""Does the magnitude-invariant decoder input (`--mip`, Ortiz et al. 2023) help a hypernetwork to learn?

    python -m benchmarks.ghn.mip_ablation [--seeds 0 1 2] [--steps 2000] [--data digits] [--space convnet]

For every seed one training with and one without, all else equal: same initial seed, architectures, images. Curves: mean
training loss between measurements, and validation accuracy with predicted weights, mean over held-out architectures.
At the end the paired difference over seeds. Written as JSON and PNG; trainings are taken one after the other, seeds in turn,
and a training that is finished in `--work` is not repeated.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, pstdev
from tempfile import TemporaryDirectory

import torch

from benchmarks.common import RESULTS, save
from nasgraph.data import DataSet, Split, load_dataset
from nasgraph.evaluate import measure
from nasgraph.files import read_json, write_json
from nasgraph.hyper import (
    GHNConfig,
    GHNTrainConfig,
    GraphHyperNetwork,
    TrainStep,
    held_out_candidates,
    held_out_fingerprints,
    train_ghn,
)
from nasgraph.modules import Program
from nasgraph.spaces import Candidate, SearchSpace, load_space

Curve = list[dict[str, float]]


def held_out_accuracy(ghn: GraphHyperNetwork, candidates: Sequence[Candidate], split: Split) -> float:
    """Mean validation accuracy with predicted weights."""
    predicted = ghn.predict([candidate.graph for candidate in candidates])
    return mean(
        measure(Program(candidate.graph), weights, split, batch_size=256)[1]
        for candidate, weights in zip(candidates, predicted, strict=True)
    )


def train_curve(
    space: SearchSpace, data: DataSet, config: GHNTrainConfig, shape: GHNConfig, *, every: int, count: int
) -> Curve:
    """Train once; a point of the curve every so many steps and after the last."""
    ghn = GraphHyperNetwork(shape, seed=config.seed)
    candidates = held_out_candidates([space], count=count)
    held_out = held_out_fingerprints([space], input_shape=data.input_shape, num_classes=data.num_classes)
    losses: list[float] = []
    curve: Curve = []
    spent = {"measuring": 0.0}
    started = time.process_time()

    def on_step(step: TrainStep) -> None:
        losses.append(step.loss)
        done = step.step + 1
        if done % every and done != config.steps:
            return
        before = time.process_time()
        accuracy = held_out_accuracy(ghn, candidates, data.search.validation)
        curve.append(
            {
                "step": done,
                "training loss": mean(losses),
                "held-out accuracy": accuracy,
                "cpu seconds": before - started - spent["measuring"],
            }
        )
        losses.clear()
        spent["measuring"] += time.process_time() - before

    with TemporaryDirectory() as folder:
        train_ghn(ghn, [space], data.search, config, folder=Path(folder), held_out=held_out, on_step=on_step)
    return curve


def draw(curves: dict[str, dict[str, Curve]], path: Path, *, title: str) -> None:
    """Both curves, with and without, all seeds thin and their mean thick."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, value in zip(axes, ("training loss", "held-out accuracy"), strict=True):
        for colour, (name, runs) in zip(("tab:blue", "tab:orange"), curves.items(), strict=True):
            columns = [[point[value] for point in curve] for curve in runs.values()]
            steps = [point["step"] for point in next(iter(runs.values()))]
            for column in columns:
                axis.plot(steps, column, color=colour, alpha=0.3, linewidth=1)
            means = [mean(values) for values in zip(*columns, strict=True)]
            axis.plot(steps, means, color=colour, linewidth=2, label=name)
        axis.set_xlabel("step")
        axis.set_ylabel(value)
    axes[0].legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100, help="Steps between measurements.")
    parser.add_argument("--count", type=int, default=30, help="Held-out architectures.")
    parser.add_argument("--meta-batch", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--space", default="convnet")
    parser.add_argument("--name", default="ghn_mip_ablation", help="Name of the result files.")
    parser.add_argument(
        "--work", type=Path, default=Path("mip-ablation"), help="Folder of finished trainings."
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.data, data_dir=arguments.data_dir, image_size=arguments.image_size)
    space = load_space(arguments.space, input_shape=data.input_shape, num_classes=data.num_classes)
    curves: dict[str, dict[str, Curve]] = {"without": {}, "with": {}}
    for seed in arguments.seeds:
        for name, mip in (("without", False), ("with", True)):
            config = GHNTrainConfig(
                steps=arguments.steps,
                meta_batch=arguments.meta_batch,
                batch_size=arguments.batch_size,
                learning_rate=arguments.learning_rate,
                warmup_steps=min(200, arguments.steps // 5),
                checkpoint_every=arguments.steps,
                seed=seed,
            )
            shape = GHNConfig(dim=arguments.dim, mip=mip)
            settings = {"train": asdict(config), "ghn": asdict(shape), "data": data.name, "space": space.name}
            settings |= {"every": arguments.every, "count": arguments.count}
            path = arguments.work / f"{arguments.name}-{name}-{seed}.json"
            known = read_json(path) if path.exists() else None
            if isinstance(known, dict) and known.get("settings") == settings:
                curves[name][str(seed)] = known["curve"]  # type: ignore[assignment]  # written below
                continue
            curve = train_curve(space, data, config, shape, every=arguments.every, count=arguments.count)
            write_json(path, {"settings": settings, "curve": curve})
            curves[name][str(seed)] = curve
            print(f"seed {seed}, {name} mip: {curve[-1]}")
    last = {
        name: [curve[-1]["held-out accuracy"] for curve in runs.values()] for name, runs in curves.items()
    }
    differences = [ours - theirs for ours, theirs in zip(last["with"], last["without"], strict=True)]
    result = {
        "settings": {
            name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()
        },
        "held-out accuracy at the end": {
            name: {"mean": mean(values), "std": pstdev(values), "seeds": values}
            for name, values in last.items()
        },
        "with less without": {"mean": mean(differences), "std": pstdev(differences), "seeds": differences},
        "curves": curves,
    }
    print(save(arguments.name, result))
    title = f"Hypernetwork on {arguments.space}, {data.name}: magnitude-invariant input, {len(arguments.seeds)} seeds"
    draw(curves, RESULTS / f"{arguments.name}.png", title=title)


if __name__ == "__main__":
    main()
