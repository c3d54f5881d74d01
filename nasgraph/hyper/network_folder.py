"""Networks on disk: `weights.safetensors` beside `config.json`. Nothing is ever unpickled.

What the shipped networks of several packages share: the schema, the configuration that the network is made from, the recipe it was
trained by, and the checksum of its weights.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor

from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, load_tensors, save_tensors

Config = TypeVar("Config")


def write_network(
    folder: Path,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Json],
    *,
    schema: str,
    recipe: Mapping[str, Json],
) -> None:
    """Write weights first, then the configuration that makes them valid.

    Args:
        folder: Where; created if missing.
        tensors: The weights.
        facts: What a reader needs to make the network, and to know that it reads what the network was trained on.
        schema: Kind and version of the file.
        recipe: How it was trained. Kept as it is.

    Raises:
        NasGraphError: If it cannot be written.
    """
    save_tensors(folder / WEIGHTS, tensors)
    document = {"schema": schema, **facts, "recipe": dict(recipe), "sha256": sha256_of(folder / WEIGHTS)}
    write_json(folder / CONFIG, document)


def read_description(folder: Path, *, schema: str, what: str) -> dict[str, Json]:
    """The content of `config.json`, possibly from a stranger.

    Args:
        folder: From `write_network`.
        schema: The expected kind and version.
        what: What messages call it, such as "curve network".

    Raises:
        CheckpointError: If it is missing, damaged or foreign.
    """
    try:
        document = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No {what} in '{folder}': {error}") from error
    if not isinstance(document, dict) or document.get("schema") != schema:
        raise CheckpointError(f"Expected '{folder / CONFIG}' to have schema '{schema}'")
    return document


def read_config(folder: Path, value: Json, kind: type[Config]) -> Config:
    """A configuration of plain numbers and texts: exactly its fields, each of exactly its type.

    Args:
        folder: Where it was read from, for messages.
        value: Its fields by name.
        kind: A dataclass that raises `ConfigError` for values out of range.

    Raises:
        CheckpointError: If it is anything else.
    """
    source = folder / CONFIG
    known = {field.name: field.type for field in fields(cast(Any, kind))}
    if not isinstance(value, dict) or set(value) != set(known):
        raise CheckpointError(
            f"Expected 'config' in '{source}' to have exactly the fields {', '.join(sorted(known))}"
        )
    for name, expected in known.items():
        if type(value[name]) is not expected:
            wanted = getattr(expected, "__name__", expected)
            raise CheckpointError(
                f"Expected '{name}' in '{source}' to be of type {wanted} (got {value[name]!r:.40})"
            )
    try:
        return kind(**value)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error


def read_weights_of(folder: Path, document: Mapping[str, Json]) -> dict[str, Tensor]:
    """The tensors of a folder, which are those whose checksum its description records.

    Raises:
        CheckpointError: If they are missing, damaged or others.
    """
    path = folder / WEIGHTS
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"Cannot read '{path}': {error.strerror or error}") from error
    if found != document.get("sha256"):
        raise CheckpointError(f"The checksum of '{path}' differs from the recorded one: damaged or changed")
    return load_tensors(path)
