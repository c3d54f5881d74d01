"""Pruning by a metanetwork against group-L2, other criteria, uniform widths, sparsity training and the lottery ticket.

    python -m benchmarks.meta.pruning                                    # Fashion-MNIST, what is reported
    python -m benchmarks.meta.pruning --data cifar10                     # CIFAR-10, 10,000 images of 16 x 16
    python -m benchmarks.meta.pruning --width 16 --dense-steps 2000 --steps 1000 --editor-steps 1000    # longer

A residual network (ResNet-8, 8-16-32 channels) on 10,000 images. Four of them ("data models") train the metanetwork; others,
one per seed, are pruned. For all methods alike: `--steps` of training of the full network before the cut, the cut to the same
multiply-adds, running statistics measured anew, accuracy "before" fine-tuning, `--steps` of fine-tuning, accuracy "after". Each
method has its own row:

    meta            the metanetwork rewrites the weights; training; global group-L2
    meta sparse     the same with group sparsity in the training before the cut
    l2              training; global group-L2 (DepGraph-like); also l1, bn_scale, taylor, random
    uniform         all groups at one ratio, the best units by group-L2
    sparse          group sparsity in the training before the cut, no metanetwork; global group-L2
    lottery         group-L2, weights rewound to the initial ones
    ... direct      the cut comes at once, and all steps after it

The metanetwork's own training time is reported: no other method had it. Rows are kept in a .jsonl file, trained networks in
`--folder`: a run that was stopped continues.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, SHARED_DATA, save
from benchmarks.meta.width import Rows, fresh
from nasgraph.data import DataSet, load_dataset
from nasgraph.evaluate import measure
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.meta.networks import Metanetwork
from nasgraph.meta.pruning import (
    Candidate,
    CompareConfig,
    EditorConfig,
    FineTuneConfig,
    compare_pruning,
    finetune,
    group_sparsity,
    load_editor,
    rewrite,
    save_editor,
    train_editor,
)
from nasgraph.modules import Program
from nasgraph.seeding import derive_seed

CORE = ("l2", "meta", "l2 direct", "meta direct", "random", "uniform", "sparse", "lottery")
REST = ("meta sparse", "random direct", "l1", "bn_scale", "taylor")
State = Mapping[str, torch.Tensor]


def resnet(shape: tuple[int, ...], num_classes: int, *, width: int = 8) -> ComputationalGraph:
    g = GraphBuilder()

    def layer(x: int, channels: int, *, stride: int = 1, kernel: int = 3) -> int:
        convolved = g(
            "conv2d", x, out_channels=channels, kernel_size=kernel, padding=kernel // 2, stride=stride
        )
        return g("batch_norm", convolved)

    x = g("relu", layer(g("input", shape=shape), width))
    for stage in range(3):
        channels, stride = width * 2**stage, 1 if stage == 0 else 2
        shortcut = x if stride == 1 else layer(x, channels, stride=stride, kernel=1)
        branch = layer(g("relu", layer(x, channels, stride=stride)), channels)
        x = g("relu", g("add", branch, shortcut))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=num_classes))


class Bench:
    """One data set: its networks, its metanetwork and its comparisons."""

    def __init__(self, data: DataSet, arguments: argparse.Namespace) -> None:
        self.data, self.arguments = data, arguments
        self.graph = resnet(data.input_shape, data.num_classes, width=arguments.width)
        self.tuning = FineTuneConfig(learning_rate=3e-3)
        self.test = data.test.pick(torch.arange(min(arguments.num_test, len(data.test))))
        self.folder = Path(arguments.folder) / f"{arguments.data}_{arguments.width}"
        self.rows = Rows(RESULTS / f"meta_pruning_{arguments.data}.rows.jsonl")

    def trained(self, name: str) -> tuple[State, State]:
        """A network's initial and trained state."""
        initial = fresh(self.graph, derive_seed(0, name))
        path = self.folder / f"{name}_{self.arguments.dense_steps}.safetensors"
        if not path.exists():
            state = finetune(self.graph, initial, self.data.search.train, steps=self.arguments.dense_steps,
                             seed=derive_seed(0, name), config=self.tuning)  # fmt: skip
            save_tensors(path, state)
        return initial, load_tensors(path)

    def editor(self) -> Metanetwork:
        """The metanetwork, trained once."""
        folder = (
            self.folder
            / f"editor_{self.arguments.models}_{self.arguments.editor_steps}_{self.arguments.sparsity}"
        )
        if not (folder / "config.json").exists():
            models = [(self.graph, self.trained(f"model{k}")[1]) for k in range(self.arguments.models)]
            config = EditorConfig(steps=self.arguments.editor_steps, sparsity=self.arguments.sparsity,
                                  learning_rate=self.arguments.editor_rate, batch_size=256)  # fmt: skip
            started, history = time.process_time(), []
            editor = train_editor(models, self.data.search.train, config=config, on_step=history.append)
            spent = time.process_time() - started
            save_editor(editor, folder, config=config, facts={"data": self.arguments.data, "cpu_s": spent})
            steps = [asdict(step) for step in history]
            self.rows.add(f"editor/{self.arguments.editor_steps}/{time.time():.0f}", kind="editor", cpu_s=spent,
                          first=steps[:8], last=steps[-8:])  # fmt: skip
            print("editor", spent, steps[0], steps[-1], flush=True)
        return load_editor(folder)

    def candidates(self) -> dict[str, Candidate]:
        """All methods by name."""
        editor, train = self.editor(), self.data.search.train

        def prepare(graph: ComputationalGraph, state: State) -> State:
            return rewrite(editor, graph, state, train=train)

        sparse = group_sparsity(self.graph, strength=self.arguments.sparse)
        own = [
            Candidate(name="meta", prepare=prepare),
            Candidate(name="meta sparse", prepare=prepare, penalty=sparse),
            Candidate(name="sparse", penalty=sparse),
        ]
        names = ("l2", "random", "uniform", "lottery", "l1", "bn_scale", "taylor")
        return {c.name: c for c in [*own, *(Candidate(name=name, method=name) for name in names)]}

    def run_seed(self, seed: int, names: Sequence[str]) -> None:
        """Prune one held-out network by all methods that are not done."""
        initial, state = self.trained(f"held{seed}")
        key = f"{seed}/dense"
        if key not in self.rows.done:
            accuracy = measure(Program(self.graph), state, self.test, batch_size=500)[1]
            self.rows.add(key, kind="dense", seed=seed, test=accuracy, **asdict(cost_of(self.graph)))
        candidates = self.candidates()
        for name in names:
            candidate = replace(candidates[name.removesuffix(" direct")], name=name)
            steps = self.arguments.steps
            before, after = (0, 2 * steps) if name.endswith(" direct") else (steps, steps)
            config = CompareConfig(steps_before=before, steps_after=after, tuning=self.tuning)
            if f"{seed}/{name}/2.0" in self.rows.done:
                continue
            started = time.process_time()
            found = compare_pruning(self.graph, state, self.data.search, [candidate], test=self.test, seed=seed,
                                    initial=initial, config=config)  # fmt: skip
            spent = time.process_time() - started
            for row in found:
                self.rows.add(
                    f"{seed}/{name}/{row.speed_up}", kind="pruned", seed=seed, cpu_s=spent, **asdict(row)
                )
            print(seed, name, [(r.speed_up, r.full, r.before, r.stale, r.after) for r in found], flush=True)


def summarise(rows: Rows) -> dict[str, object]:
    groups: dict[tuple[str, float], list[dict[str, float]]] = {}
    for row in rows.done.values():
        if row["kind"] == "pruned":
            groups.setdefault((row["method"], row["speed_up"]), []).append(row)
    summary: dict[str, object] = {}
    for (method, speed_up), found in groups.items():
        summary[f"{method} at {speed_up:g}x"] = {
            "seeds": len(found),
            **{
                name: {
                    "mean": float(np.mean([r[name] for r in found])),
                    "std": _std([r[name] for r in found]),
                }
                for name in ("full", "before", "stale", "after", "multiply_adds", "num_parameters")
            },
        }
    return summary


def _std(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dense-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--editor-steps", type=int, default=150)
    parser.add_argument("--editor-rate", type=float, default=2e-3)
    parser.add_argument("--sparsity", type=float, default=0.02)
    parser.add_argument("--sparse", type=float, default=0.03)
    parser.add_argument("--num-test", type=int, default=3000)
    parser.add_argument("--folder", default="/tmp/nasgraph-pruning")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = 14 if arguments.data == "fashion-mnist" else 16
    data = load_dataset(
        arguments.data, data_dir=SHARED_DATA, image_size=size, num_train=10_000, download=False
    )
    bench = Bench(data, arguments)
    for names in (CORE, REST):
        for seed in range(arguments.first_seed, arguments.seeds):
            bench.run_seed(seed, names)
            _write(bench)


def _write(bench: Bench) -> None:
    """All data sets that have rows, in one file."""
    results = {}
    for path in sorted(RESULTS.glob("meta_pruning_*.rows.jsonl")):
        rows = Rows(path)
        name = path.name.removeprefix("meta_pruning_").removesuffix(".rows.jsonl")
        results[name] = {"summary": summarise(rows), "rows": list(rows.done.values())}
    save(
        "meta_pruning",
        {"settings": vars(bench.arguments), "note": "nine sessions shared two cores", "results": results},
    )


if __name__ == "__main__":
    main()
