"""Checkpoints of the training of a metanetwork: weights, the best weights, and what AdamW remembers."""

from collections.abc import Mapping
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from nasgraph.errors import CheckpointError, NasGraphError
from nasgraph.files import Json, canonical_json, read_json, write_json
from nasgraph.hyper.checkpoint import check_state, load_tensors, save_tensors
from nasgraph.meta.networks.metanetwork import Metanetwork

STATE, PROGRESS = "state.safetensors", "progress.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
Place = tuple[int, float, int]
"""Epochs done, the best validation loss, and the epoch that had it."""


def save_progress(
    folder: Path,
    settings: Mapping[str, Json],
    metanetwork: Metanetwork,
    optimizer: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
    place: Place,
) -> None:
    """Write everything that the next epoch depends on. The old checkpoint stays until the new one is whole."""
    tensors = {f"now.{name}": tensor for name, tensor in metanetwork.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for name, parameter in metanetwork.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    tensors["place"] = torch.tensor(place, dtype=torch.float64)
    # Settings first: killed in between, the place in the tensors is the one that counts.
    write_json(folder / PROGRESS, {"settings": dict(settings), "epoch": place[0]})
    save_tensors(folder / STATE, tensors)


def load_progress(
    folder: Path,
    settings: Mapping[str, Json],
    metanetwork: Metanetwork,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
) -> Place:
    """Load the checkpoint into what is given, if there is one; return where to go on.

    Raises:
        CheckpointError: If it is damaged or belongs to other settings. Nothing has been changed then.
    """
    if not (folder / STATE).exists():
        return 0, inf, 0
    try:
        document = read_json(folder / PROGRESS)
    except NasGraphError as error:
        raise CheckpointError(f"The checkpoint in '{folder}' is damaged: {error}") from error
    known = document.get("settings") if isinstance(document, dict) else None
    if not isinstance(known, dict) or canonical_json(known) != canonical_json(dict(settings)):
        raise CheckpointError(
            f"The checkpoint in '{folder}' was made with other settings: use the same, or another folder"
        )
    tensors, source = load_tensors(folder / STATE), folder / STATE
    place = tensors.pop("place", torch.empty(0))
    now = _part(tensors, "now.")
    found = _part(tensors, "best.")
    if place.shape != (3,):
        raise CheckpointError(f"'{source}' is not the checkpoint of a training")
    check_state(metanetwork, now, source=source)
    check_state(metanetwork, found, source=source)
    moments = _moments(metanetwork, tensors, source)
    metanetwork.load_state_dict(now)
    best.update(found)
    optimizer.state.update(moments)
    return int(place[0]), float(place[1]), int(place[2])


def _part(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): tensors.pop(name) for name in list(tensors) if name.startswith(start)}


def _moments(
    metanetwork: Metanetwork, tensors: dict[str, Tensor], source: Path
) -> dict[Tensor, dict[str, Tensor]]:
    """AdamW's state of every parameter that has had a gradient. Empties `tensors`."""
    result: dict[Tensor, dict[str, Tensor]] = {}
    for name, parameter in metanetwork.named_parameters():
        state = {key: tensors.pop(f"optimizer.{key}.{name}", torch.empty(0)) for key in MOMENTS}
        shapes = [tuple(tensor.shape) for tensor in state.values()]
        if shapes == [(), tuple(parameter.shape), tuple(parameter.shape)]:
            result[parameter] = state
        elif shapes != [(0,)] * len(MOMENTS):
            raise CheckpointError(f"'{source}' has no whole optimizer state for '{name}'")
    if tensors:
        raise CheckpointError(f"'{source}' has an unexpected tensor '{min(tensors)}'")
    return result
