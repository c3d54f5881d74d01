"""Graph hypernetworks on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nasgraph.encode import FEATURES, OP_IDS
from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_atomically, write_json
from nasgraph.hyper.ghn import GHNConfig, GraphHyperNetwork

SCHEMA = "nasgraph/ghn/1"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"
OP_VECTORS = "encoder.embed.op.weight"
NEW_FIELDS = ("decoder", "rank", "max_low_rank", "virtual_edges")
"""Fields of a configuration that files of the first version lack; they have their defaults there."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors atomically as safetensors. Raises `NasGraphError` if the disk is full."""

    def write(temporary: Path) -> None:
        try:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary
            )
        except SafetensorError as error:  # how the library reports a full disk
            raise NasGraphError(f"Cannot write '{path}': {error}") from error

    write_atomically(path, write)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        CheckpointError: If the file is missing, truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no iteration protocol
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"Cannot read tensors from '{path}': {error}") from error


def save_ghn(ghn: GraphHyperNetwork, folder: Path, *, recipe: Mapping[str, Json]) -> None:
    """Write a hypernetwork: weights first, then the configuration that makes them valid.

    Args:
        ghn: What to write.
        folder: Where; created if missing.
        recipe: How it was trained: spaces, data set, settings, seeds, versions. Kept as it is.
    """
    save_tensors(folder / WEIGHTS, ghn.state_dict())
    config: dict[str, Json] = {
        "schema": SCHEMA,
        "config": asdict(ghn.config),
        "ops": list(OP_IDS),
        "features": list(FEATURES),
        "recipe": dict(recipe),
        "sha256": sha256_of(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, config)


def load_ghn(
    folder: Path, *, device: str | torch.device = "cpu"
) -> tuple[GraphHyperNetwork, dict[str, Json]]:
    """Read a hypernetwork and its recipe.

    The table of operators grows from version to version. The learnt vector of an operator is found by its name; an
    operator that the file does not know gets the mean of those it does know: the vector that is nearest to all of
    them, so the hypernetwork reads a node of average kind and is not led into a region where it was never trained.
    What it predicts for graphs of operators that it knows is, to the last bit, what it predicted before.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign, the checksum differs, tensors do not fit, or it
            knows an operator that this version does not.
    """
    try:
        document = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No graph hypernetwork in '{folder}': {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise CheckpointError(f"Expected '{folder / CONFIG}' to have schema '{SCHEMA}'")
    config, recipe, checksum = (document.get(name) for name in ("config", "recipe", "sha256"))
    if not isinstance(recipe, dict):
        raise CheckpointError(f"Expected 'recipe' in '{folder / CONFIG}' to be an object")
    ops = _known_ops(document.get("ops"), source=folder / CONFIG)
    if document.get("features") != list(FEATURES):
        raise CheckpointError(f"The hypernetwork in '{folder}' reads other features than this version")
    ghn_config = ghn_config_from_json(config, source=str(folder / CONFIG))
    try:
        found = sha256_of(folder / WEIGHTS)
    except OSError as error:
        raise CheckpointError(f"Cannot read '{folder / WEIGHTS}': {error.strerror or error}") from error
    if found != checksum:
        raise CheckpointError(
            f"The checksum of '{folder / WEIGHTS}' differs from the recorded one: damaged or changed"
        )
    tensors = load_tensors(folder / WEIGHTS)
    _fit_ops(tensors, ops, source=folder / WEIGHTS)
    with torch.device("meta"):  # so that absurd sizes in a foreign file claim no memory
        check_state(GraphHyperNetwork(ghn_config), tensors, source=folder / WEIGHTS)
    ghn = GraphHyperNetwork(ghn_config)
    ghn.load_state_dict(tensors)
    return ghn.to(device).eval(), recipe


def _known_ops(value: Json, *, source: Path) -> list[str]:
    """The operators of a file, each once and all known to this version."""
    if not isinstance(value, list) or not value:
        raise CheckpointError(f"Expected 'ops' in '{source}' to be a list of operators")
    ops = [op for op in value if isinstance(op, str)]
    if len(set(ops)) != len(value):
        raise CheckpointError(f"Expected 'ops' in '{source}' to be names, each once")
    unknown = sorted(set(ops) - set(OP_IDS))
    if unknown:
        raise CheckpointError(
            f"The hypernetwork in '{source.parent}' reads the operator {unknown[0]!r:.80}, which this version does not know. "
            "Use the version of nasgraph that wrote it, or a newer one"
        )
    return ops


def _fit_ops(tensors: dict[str, Tensor], ops: Sequence[str], *, source: Path) -> None:
    """Give the vectors of operators this version's order, and new operators the mean of the known ones."""
    own = tensors.get(OP_VECTORS)
    if list(ops) == list(OP_IDS) or own is None:
        return
    if own.ndim != 2 or len(own) != len(ops):
        raise CheckpointError(
            f"Expected '{OP_VECTORS}' in '{source}' to have {len(ops)} rows (got shape {tuple(own.shape)})"
        )
    rows = own.mean(0, keepdim=True).repeat(len(OP_IDS), 1)
    rows[[OP_IDS[op] for op in ops]] = own
    tensors[OP_VECTORS] = rows


def check_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Check that tensors fit a module: names and shapes must match exactly.

    Args:
        module: Where the tensors are to go; may live on "meta". Not changed.
        tensors: By name.
        source: Where they come from, for messages.

    Raises:
        CheckpointError: For the first name that is missing, unexpected, or of another shape.
    """
    own = module.state_dict()
    for name in sorted({*own, *tensors}):
        if name not in tensors or name not in own:
            kind = "lacks" if name not in tensors else "has an unexpected"
            raise CheckpointError(f"'{source}' {kind} tensor '{name}'")
        if own[name].shape != tensors[name].shape:
            raise CheckpointError(
                f"Expected '{name}' in '{source}' to have shape {tuple(own[name].shape)} (got {tuple(tensors[name].shape)})"
            )


def ghn_config_from_json(value: Json, *, source: str) -> GHNConfig:
    """Read a configuration; unknown fields and wrong types are refused. Fields that came later may be missing.

    Raises:
        CheckpointError: In words, with the field.
    """
    known = {field.name: field.type for field in fields(GHNConfig)}
    if not isinstance(value, dict) or not set(known) - set(NEW_FIELDS) <= set(value) <= set(known):
        raise CheckpointError(
            f"Expected 'config' in {source} to have exactly the fields {', '.join(sorted(known))}"
        )
    arguments: dict[str, Any] = dict(value)
    for name in arguments:
        kind = known[name]
        options = get_args(kind)  # of a Literal
        if options and arguments[name] not in options:
            raise CheckpointError(
                f"Expected '{name}' in {source} to be one of {', '.join(map(repr, options))}"
            )
        if kind in (int, bool) and type(arguments[name]) is not kind:
            raise CheckpointError(
                f"Expected '{name}' in {source} to be of type {getattr(kind, '__name__', kind)}"
            )
    try:
        return GHNConfig(**arguments)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
