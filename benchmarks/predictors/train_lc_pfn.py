"""Train the curve network that the zoo ships, on curves of the prior alone.

    python -m benchmarks.predictors.train_lc_pfn --folder zoo/lc-pfn

One thread. The state is written every few minutes into `--checkpoints`; the same command goes on from there, and gives the
same weights bit by bit as an uninterrupted run, for the curves of a step depend on the seed and the step only.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import environment
from nasgraph.files import write_json
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.predict.curves.checkpoint import save_curve_network
from nasgraph.predict.curves.network import CurveNetwork, CurveNetworkConfig
from nasgraph.predict.curves.prior import PAPER_PRIOR, WIDE_PRIOR
from nasgraph.predict.curves.train import CurveTrainConfig, batch_loss, make_batch, train_step
from nasgraph.seeding import derive_seed

EVERY = 50
HELD_OUT_STEPS = range(10_000_000, 10_000_020)


def new_network(config: CurveNetworkConfig, seed: int) -> CurveNetwork:
    """A network with its first weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return CurveNetwork(config)


def held_out_loss(network: CurveNetwork, config: CurveTrainConfig) -> dict[str, float]:
    """Mean negative log density on curves that no training step draws, at full length, for both priors."""
    network.eval()
    losses = {}
    for name, prior in (("wide", WIDE_PRIOR), ("paper", PAPER_PRIOR)):
        with torch.no_grad():
            parts = [
                batch_loss(
                    network, make_batch(step, config, max_points=network.config.max_points, prior=prior)
                )
                for step in HELD_OUT_STEPS
            ]
        losses[name] = float(torch.stack(parts).mean())
    network.train()
    return losses


def _optimizer_tensors(network: CurveNetwork, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def save_state(
    folder: Path, network: CurveNetwork, optimizer: torch.optim.Optimizer, facts: dict[str, object]
) -> None:
    """Weights, moments of the optimiser, and what was done; the facts come last and name the step of the others."""
    step = facts["step"]
    save_tensors(folder / f"network-{step}.safetensors", network.state_dict())
    save_tensors(folder / f"optimizer-{step}.safetensors", _optimizer_tensors(network, optimizer))
    write_json(folder / "state.json", facts)
    for old in folder.glob("*.safetensors"):
        if not old.stem.endswith(f"-{step}"):
            old.unlink()


def resume(folder: Path, network: CurveNetwork, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Read the last state, if there is one."""
    if not (folder / "state.json").exists():
        return {"step": 0, "cpu_seconds": 0.0, "curves": 0}
    facts: dict[str, object] = json.loads((folder / "state.json").read_text())
    network.load_state_dict(load_tensors(folder / f"network-{facts['step']}.safetensors"))
    saved = load_tensors(folder / f"optimizer-{facts['step']}.safetensors")
    for name, parameter in network.named_parameters():
        keys = ("step", "exp_avg", "exp_avg_sq")
        optimizer.state[parameter] = {key: saved[f"{name}/{key}"] for key in keys}
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("zoo/lc-pfn"))
    parser.add_argument("--checkpoints", type=Path, default=Path("/tmp/nasgraph/lc-pfn"))
    parser.add_argument("--steps", type=int, default=CurveTrainConfig().steps)
    parser.add_argument("--stop-at", type=int, help="stop after this step, as if killed")
    parser.add_argument("--note", default="", help="kept in the recipe")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    config = CurveTrainConfig(steps=settings.steps)
    network = new_network(CurveNetworkConfig(), config.seed)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )
    facts = resume(settings.checkpoints, network, optimizer)
    step, before = int(str(facts["step"])), float(str(facts["cpu_seconds"]))
    started, losses = time.process_time(), []
    while step < config.steps:
        losses.append(train_step(network, optimizer, step, config))
        step += 1
        if step % EVERY == 0 or step == config.steps or step == settings.stop_at:
            seconds = before + time.process_time() - started
            held_out = held_out_loss(network, config) if step % (40 * EVERY) == 0 else {}
            facts = {
                "step": step,
                "cpu_seconds": seconds,
                "loss": sum(losses) / len(losses),
                "held_out": held_out,
            }
            save_state(settings.checkpoints, network, optimizer, facts)
            with (settings.checkpoints / "log.jsonl").open("a") as log:
                log.write(json.dumps(facts) + "\n")
            losses = []
        if step == settings.stop_at:
            return
    recipe = {
        "prior": asdict(WIDE_PRIOR),
        "train": asdict(config),
        "cpu_seconds": round(float(str(facts["cpu_seconds"]))),
        "held_out_loss": held_out_loss(network, config),
        "hardware": f"one thread of {environment()['processor']}, shared with other work",
        "note": settings.note,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    save_curve_network(network, settings.folder, recipe=recipe)


if __name__ == "__main__":
    main()
