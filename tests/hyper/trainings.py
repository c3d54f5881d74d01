"""Trainings of milliseconds, whole or stopped without any warning."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nasgraph.data import SearchData
from nasgraph.hyper import Execution, GHNTrainConfig, GraphHyperNetwork, TrainStep, train_ghn
from nasgraph.spaces import SearchSpace
from tests.hyper.toy import Encoder, ToySpace, tiny_config, toy_data


class KilledError(Exception):
    """Stands for the end of a process."""


def train(
    folder: Path,
    config: GHNTrainConfig,
    *,
    encoder: Encoder = "transformer",
    on_step: Callable[[TrainStep], None] = lambda _: None,
    resume: bool = False,
    data: SearchData | None = None,
    spaces: Sequence[SearchSpace] | None = None,
    execution: Execution | None = None,
) -> GraphHyperNetwork:
    """A new tiny hypernetwork, trained."""
    ghn = GraphHyperNetwork(tiny_config(encoder), seed=0)
    train_ghn(
        ghn,
        [ToySpace()] if spaces is None else spaces,
        toy_data() if data is None else data,
        config,
        folder=folder,
        resume=resume,
        execution=Execution() if execution is None else execution,
        on_step=on_step,
    )
    return ghn


def train_until_killed(
    folder: Path,
    config: GHNTrainConfig,
    *,
    after: int,
    encoder: Encoder = "transformer",
    execution: Execution | None = None,
) -> None:
    """Train, and stop without any warning after so many steps."""

    def kill(step: TrainStep) -> None:
        if step.step + 1 == after:
            raise KilledError

    try:
        train(folder, config, encoder=encoder, on_step=kill, execution=execution)
    except KilledError:
        return
    raise AssertionError(f"The training ended before step {after}")


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """The same names and the same tensors, bit by bit."""
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []
