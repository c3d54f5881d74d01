"""Fits the shipped prior-fitted network (zoo/pfn-performance) to synthetic tables.

    nice -n 5 python -m benchmarks.predictors.feature_bank --folder /tmp/pfn-bank --graphs 260
    nice -n 10 python -m benchmarks.predictors.train_pfn --seconds 3000 --bank /tmp/pfn-bank --sitting /tmp/pfn --folder zoo/pfn-performance

One thread. The state is saved every minute, and a rerun goes on from there. The bank of real features comes from
architectures drawn from the search spaces that are installed; no label of any table is read.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import environment
from nasgraph.files import read_json, write_json
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.predict.prior_fitted import (
    PriorFittedConfig,
    PriorFittedNetwork,
    TrainConfig,
    save_prior_fitted,
)
from nasgraph.predict.prior_fitted.train import Batch, Progress, sample_batch, start, train
from nasgraph.seeding import generator

SAVE_EVERY = 60.0
VALIDATION_BATCHES = 24
STATE = ("exp_avg", "exp_avg_sq", "step")


def read_bank(folder: Path) -> list[np.ndarray]:
    """Matrices of real features, without labels; see `feature_bank.py`."""
    return [np.load(path, allow_pickle=False)["features"] for path in sorted(folder.glob("*.npz"))]


def save_sitting(progress: Progress, folder: Path) -> None:
    """Write weights, the optimizer's moments and the counters."""
    tensors = {f"weights.{name}": value for name, value in progress.network.state_dict().items()}
    for index, state in progress.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": state[name] for name in STATE}
    save_tensors(folder / "state.safetensors", tensors)
    counters = {"step": progress.step, "tables": progress.num_tables, "seconds": progress.seconds}
    write_json(folder / "counters.json", counters)


def restore_sitting(progress: Progress, folder: Path) -> None:
    """Go on where `save_sitting` stopped."""
    tensors, counters = load_tensors(folder / "state.safetensors"), read_json(folder / "counters.json")
    assert isinstance(counters, dict)
    progress.network.load_state_dict(
        {name[8:]: value for name, value in tensors.items() if name.startswith("weights.")}
    )
    state = progress.optimizer.state_dict()
    count = sum(1 for _ in progress.network.parameters())
    state["state"] = {
        index: {name: tensors[f"optimizer.{index}.{name}"] for name in STATE} for index in range(count)
    }
    progress.optimizer.load_state_dict(state)
    progress.step, progress.num_tables = int(counters["step"]), int(counters["tables"])
    progress.seconds = float(counters["seconds"])


def validate(network: PriorFittedNetwork, batches: Sequence[Batch]) -> dict[str, float]:
    """Log score and error on tables that training never draws, beside those of the untrained blend of smoothers."""
    network.eval()
    scores, errors = [], []
    with torch.no_grad():
        for batch in batches:
            mixture = network(batch.known, batch.labels, batch.others)
            scores.append(-mixture.log_density(batch.hidden).mean(dim=1))
            errors.append(((mixture.moments()[0] - batch.hidden) ** 2).mean(dim=1))
    network.train()
    error = torch.cat(errors)
    return {
        "negative_log_density": float(torch.cat(scores).mean()),
        "squared_error_mean": float(error.mean()),
        "squared_error_median": float(error.median()),
    }


def main() -> None:
    """Train or go on training, then write the zoo entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3000.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without smoothers: for comparison")
    parser.add_argument("--bank", type=Path, default=None, help="folder of features, see feature_bank.py")
    parser.add_argument("--sitting", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig(seconds=arguments.seconds, seed=arguments.seed)
    progress = start(PriorFittedConfig(smoothers=not arguments.plain), config)
    if (arguments.sitting / "counters.json").is_file():
        restore_sitting(progress, arguments.sitting)
    bank = read_bank(arguments.bank) if arguments.bank else []
    batches = [
        sample_batch(
            TrainConfig(rows_per_step=800, max_context=200),
            generator(arguments.seed, "validation", i),
            bank=bank,
        )
        for i in range(VALIDATION_BATCHES)
    ]
    history = [{"step": progress.step, **validate(progress.network, batches)}]
    print(json.dumps(history[0]), flush=True)
    saved, losses, cpu = [time.monotonic(), 0], [], time.process_time()

    def after_step(progress: Progress, loss: float) -> None:
        losses.append(loss)
        if time.monotonic() - saved[0] < SAVE_EVERY and progress.seconds < config.seconds:
            return
        save_sitting(progress, arguments.sitting)
        saved[:] = [time.monotonic(), saved[1] + 1]
        line = {"step": progress.step, "tables": progress.num_tables, "seconds": round(progress.seconds)}
        line |= {"loss": round(float(np.mean(losses)), 4), "cpu_seconds": round(time.process_time() - cpu)}
        losses.clear()
        if saved[1] % 5 == 0 or progress.seconds >= config.seconds:
            line |= validate(progress.network, batches)
            history.append(line)
        print(json.dumps(line), flush=True)

    train(progress, config, bank=bank, after_step=after_step)
    recipe = {
        "prior": "nasgraph.predict.prior_fitted.prior, no label of any benchmark",
        "bank": sorted(path.stem for path in arguments.bank.glob("*.npz")) if arguments.bank else [],
        "settings": {name: getattr(config, name) for name in TrainConfig.__dataclass_fields__},
        "steps": progress.step,
        "tables": progress.num_tables,
        "wall_seconds": round(progress.seconds),
        "cpu_seconds": round(time.process_time() - cpu),
        "validation": history,
        "environment": environment(),
        "note": "One thread of a machine that others used at the same time. The learning rate follows the clock, so a "
        "rerun gives a network like this one, not the same bits.",
    }
    save_prior_fitted(progress.network, arguments.folder, recipe=recipe)


if __name__ == "__main__":
    main()
