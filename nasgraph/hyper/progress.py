"""Checkpoints of a training: one file of tensors (parameters, their average, both moments of AdamW), one of settings."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from nasgraph.errors import CheckpointError, NasGraphError
from nasgraph.files import Json, read_json, write_json
from nasgraph.hyper.checkpoint import NEW_FIELDS, check_state, load_tensors, save_tensors
from nasgraph.hyper.ema import WeightAverage
from nasgraph.hyper.ghn import GHNConfig, GraphHyperNetwork
from nasgraph.hyper.training_config import GHNTrainConfig

logger = logging.getLogger(__name__)

DEFAULTS = asdict(GHNConfig())
PROGRESS = "progress.json"
STATE = "state.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW remembers of a parameter."""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that changes while a hypernetwork is trained, but for the step's number."""

    ghn: GraphHyperNetwork
    optimizer: torch.optim.Optimizer
    average: WeightAverage


def save_checkpoint(state: TrainingState, config: GHNTrainConfig, folder: Path, step: int) -> None:
    """Write everything that the next step depends on. The old checkpoint stays until the new one is whole."""
    ghn = state.ghn
    tensors = {f"ghn.{name}": tensor for name, tensor in ghn.state_dict().items()}
    tensors.update(state.average.state())
    for name, parameter in ghn.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    tensors["step"] = torch.tensor(step)
    # Settings first: killed in between, the step in the tensors is the one that counts.
    document: dict[str, Json] = {"config": asdict(config), "ghn": asdict(ghn.config), "step": step}
    write_json(folder / PROGRESS, document)
    save_tensors(folder / STATE, tensors)


def load_checkpoint(state: TrainingState, config: GHNTrainConfig, folder: Path, *, resume: bool) -> int:
    """Load the checkpoint, if one is wanted and there; return the next step. Nothing is changed if it is refused.

    Raises:
        NasGraphError: If there is one and `resume` is false.
        CheckpointError: If it is damaged or belongs to other settings.
    """
    if not (folder / STATE).exists():
        return 0
    if not resume:
        raise NasGraphError(
            f"'{folder}' holds the checkpoint of a training. Continue it with 'resume', or use another folder"
        )
    _check_settings(state.ghn, config, folder)
    tensors, source = load_tensors(folder / STATE), folder / STATE
    own = {name[4:]: tensors.pop(name) for name in list(tensors) if name.startswith("ghn.")}
    check_state(state.ghn, own, source=source)
    average = _read_average(state.average, tensors, source)
    step, moments = _read_moments(state.ghn, tensors, source)
    state.ghn.load_state_dict(own)
    state.average.load(average)
    state.optimizer.state.update(moments)
    logger.info("Resumed the training in '%s' at step %d", folder, step)
    return step


def _check_settings(ghn: GraphHyperNetwork, config: GHNTrainConfig, folder: Path) -> None:
    try:
        document = read_json(folder / PROGRESS)
    except NasGraphError as error:
        raise CheckpointError(f"The checkpoint in '{folder}' is damaged: {error}") from error
    wanted: Mapping[str, Mapping[str, object]] = {"config": asdict(config), "ghn": asdict(ghn.config)}
    for part, settings in wanted.items():
        known = document.get(part) if isinstance(document, dict) else None
        if part == "ghn" and isinstance(
            known, dict
        ):  # files that were begun before a field existed have its default
            known = {**{name: DEFAULTS[name] for name in NEW_FIELDS}, **known}
        if known != settings:
            names = sorted({*settings, *(known if isinstance(known, dict) else ())})
            differs = [
                name
                for name in names
                if not isinstance(known, dict)
                or name not in known
                or name not in settings
                or known[name] != settings[name]
            ]
            raise CheckpointError(
                f"The checkpoint in '{folder}' was made with other settings ('{part}' differs: {', '.join(differs)})"
            )


def _read_average(average: WeightAverage, tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The state of the moving average; taken out of `tensors`."""
    found = {}
    for name, own in average.state().items():
        tensor = tensors.pop(name, None)
        if tensor is None or tensor.shape != own.shape:
            raise CheckpointError(f"'{source}' has no whole moving average: '{name}' is missing or misshapen")
        found[name] = tensor
    return found


def _read_moments(
    ghn: GraphHyperNetwork, tensors: dict[str, Tensor], source: Path
) -> tuple[int, dict[Tensor, dict[str, Tensor]]]:
    """The next step, and AdamW's state of every parameter that has had a gradient. Empties `tensors`."""
    step = tensors.pop("step", torch.empty(0))
    moments: dict[Tensor, dict[str, Tensor]] = {}
    for name, parameter in ghn.named_parameters():
        state = {key: tensors.pop(f"optimizer.{key}.{name}", torch.empty(0)) for key in MOMENTS}
        shapes = [tuple(tensor.shape) for tensor in state.values()]
        if shapes == [(), tuple(parameter.shape), tuple(parameter.shape)]:
            moments[parameter] = {
                key: tensor if key == "step" else tensor.to(parameter.device) for key, tensor in state.items()
            }
        elif shapes != [(0,)] * len(MOMENTS):
            raise CheckpointError(f"'{source}' has no whole optimizer state for '{name}'")
    if tensors or step.shape != () or step.dtype != torch.int64:
        raise CheckpointError(f"'{source}' is not the checkpoint of a training")
    return int(step), moments
