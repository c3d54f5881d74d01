"""Architectures per CPU second of one training step of a hypernetwork, and where the time goes. One thread.

    python -m benchmarks.ghn.train_speed [--size deepnets] [--meta-batch 8] [--images 8 64] [--repeats 7] [--device cpu]

Shape of the hypernetwork: the default one, that of GHN-3-T (dim 64, 3 layers, 8 heads). Architectures: the training
architectures of `convnet` at 3x32x32 (`--size default`), or of a `convnet` with settings that give networks about as
large as those of DeepNets-1M (`--size deepnets`), the same for all settings; images are random. A step draws, encodes, predicts, runs and
follows back, clips and updates. Steps of all settings are interleaved in one process, after a warm-up; CPU seconds of
the process, or wall seconds on a GPU. The median, smallest and largest over repeats of the mean over `--steps` steps.

Anchor on this kind of machine (shared/reference/ghn.md, 2(c)): ghn3's Trainer on 100 generated DeepNets (193 nodes on average),
1.07 architectures per second at 8 images and .485 at 64. Compare with `--size deepnets`, and not without the mean nodes and
multiply-adds that are printed: the architectures are not the same. What the target networks take is no matter of the
hypernetwork's; the rest is given by itself.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean, median
from typing import Any

import torch

from benchmarks.common import save
from nasgraph.data import SearchData, Split
from nasgraph.encode import batch_graphs
from nasgraph.hyper import GHNConfig, GHNTrainConfig, GraphHyperNetwork
from nasgraph.hyper.ema import WeightAverage
from nasgraph.hyper.meta_loss import backward, summed, target_outcomes
from nasgraph.hyper.prefetch import Draw
from nasgraph.hyper.train import training_images
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.spaces import SearchSpace
from search_spaces.convnet import ConvNet

SIZES: dict[str, dict[str, Any]] = {
    "default": {},
    "deepnets": {"max_blocks": 8, "widths": (32, 48, 64), "max_width": 128},
}
PARTS = ("draw and encode", "images", "predict", "targets", "follow back", "clip and update")


class Step:
    """One kind of training step, in the parts of `train_ghn`, each with its own clock."""

    def __init__(
        self,
        config: GHNTrainConfig,
        shape: GHNConfig,
        space: SearchSpace,
        device: torch.device,
        clock: "Clock",
    ) -> None:
        rng = torch.Generator().manual_seed(0)
        inputs, targets = (
            torch.randn(512, 3, 32, 32, generator=rng),
            torch.randint(0, 10, (512,), generator=rng),
        )
        data = SearchData("random", (3, 32, 32), 10, Split(inputs, targets), Split(inputs, targets))
        self.train = data.train.to(device)
        self.config, self.clock = config, clock
        self.ghn = GraphHyperNetwork(shape, seed=0).to(device).train()
        self.parameters = list(self.ghn.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)
        self.average = WeightAverage(self.ghn, config.ema_decay)
        self.draw = Draw((space,), config.meta_batch, 0)

    def __call__(self, step: int) -> tuple[dict[str, float], list[ComputationalGraph]]:
        """Seconds of every part, and the architectures."""
        spent: dict[str, float] = {}
        with self.clock(spent, "draw and encode"):
            graphs = self.draw(step)
        with self.clock(spent, "images"):
            images, targets = training_images(self.train, self.config, step)
        with self.clock(spent, "predict"):
            predicted = self.ghn(batch_graphs([item.encoded for item in graphs]).to(self.ghn.device))
        with self.clock(spent, "targets"):
            outcomes = target_outcomes(graphs, predicted, images, targets, config=self.config, step=step)
            number = summed(outcomes, self.ghn.device).tolist()[0]
        with self.clock(spent, "follow back"):
            self.optimizer.zero_grad(set_to_none=True)
            backward(predicted, outcomes, divisor=number)
        with self.clock(spent, "clip and update"):
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
            self.optimizer.step()
            self.average.update(self.ghn)
        return spent, [item.graph for item in graphs]


class Clock:
    """CPU seconds of this process; on a GPU wall seconds, with the device's queue empty at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._now: Callable[[], float] = time.perf_counter if self._on_gpu else time.process_time

    @contextmanager
    def __call__(self, spent: dict[str, float], part: str) -> Iterator[None]:
        started = self._read()
        yield
        spent[part] = self._read() - started

    def _read(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return self._now()


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta-batch", type=int, default=8)
    parser.add_argument("--images", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="Steps per repeat.")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="ghn_train_speed", help="Name of the result file.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    clock = Clock(device)
    space = ConvNet(input_shape=(3, 32, 32), num_classes=10, **SIZES[arguments.size])
    shape = GHNConfig(dim=arguments.dim, num_layers=arguments.layers)
    steps = {
        f"{images} images, {precision}": Step(
            GHNTrainConfig(
                meta_batch=arguments.meta_batch, batch_size=images, precision=precision, ema_decay=0.999
            ),
            shape,
            space,
            device,
            clock,
        )
        for images in arguments.images
        for precision in arguments.precisions
    }
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    graphs: list[ComputationalGraph] = []
    for repeat in range(arguments.repeats + 1):
        for name, step in steps.items():
            parts: dict[str, float] = defaultdict(float)
            for number in range(arguments.steps):
                spent, drawn = step(repeat * arguments.steps + number)
                graphs += drawn
                for part, value in spent.items():
                    parts[part] += value / arguments.steps
            if repeat:  # the first is the warm-up
                seconds[name].append(dict(parts))
    results = {}
    for name, runs in seconds.items():
        totals = [sum(run.values()) for run in runs]
        results[name] = {
            "architectures per second": spread([arguments.meta_batch / total for total in totals]),
            "seconds per step": spread(totals),
            "share": {part: median(run[part] / sum(run.values()) for run in runs) for part in PARTS},
            "seconds per step without the target networks": spread(
                [total - run["targets"] for total, run in zip(totals, runs, strict=True)]
            ),
        }
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu, 1 thread",
        "clock": "wall" if device.type == "cuda" else "CPU of the process",
        "meta_batch": arguments.meta_batch,
        "repeats": arguments.repeats,
        "steps_per_repeat": arguments.steps,
        "size": arguments.size,
        "mean_nodes": mean(len(graph) for graph in graphs),
        "mean_multiply_adds": mean(cost_of(graph).multiply_adds for graph in graphs),
        "mean_parameters": mean(cost_of(graph).num_parameters for graph in graphs),
        "ghn_parameters": sum(p.numel() for p in next(iter(steps.values())).parameters),
    }
    print(save(arguments.name, {**facts, "results": results}).read_text())


if __name__ == "__main__":
    main()
