"""The table format: one safetensors file, mapped into memory. Nothing of it is ever executed.

A safetensors file is eight bytes with the length of a JSON header, the header, and the numbers. The header states type, shape
and place of every array, and under `__metadata__` texts. Here one text, `table`, holds everything that is not a number.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Shaped
from safetensors.numpy import save_file

from nasgraph.errors import NasGraphError
from nasgraph.evaluate.table.packed import ARRAYS, PackedGraphs, kinds_from_json
from nasgraph.evaluate.table.records import SCHEMA, TableError, info_from_json
from nasgraph.evaluate.table.table import Keys, Table, content_sha256, header_of, tensors_of
from nasgraph.files import Json, canonical_json, parse_json, write_atomically

Array = np.ndarray
Tensors = Mapping[str, Shaped[Array, "..."]]
MAX_HEADER_BYTES = 16 * 2**20
VERIFIED_ON_OPENING = 16 * 2**20
"""Files up to this size have their checksum compared whenever they are opened; it takes some milliseconds."""
_DTYPES = {"F32": "<f4", "F64": "<f8", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}
_TEXT = "table"


def write_table(path: Path, table: Table) -> None:
    """Write a table atomically. Equal tables give equal bytes.

    Raises:
        NasGraphError: If the file cannot be written.
    """
    text = canonical_json({**header_of(table), "sha256": content_sha256(table)})
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors_of(table).items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata={_TEXT: text}))


def read_table(path: Path) -> Table:
    """Open a table file that may come from a stranger. Its numbers stay on the disk until they are looked at.

    Raises:
        TableError: If the file is missing, cut off, of another form, or has been changed (checked here up to 16 MiB;
            beyond that by `Table.verify`).
    """
    source = f"'{path}'"
    try:
        size = path.stat().st_size
        if size < 8:
            raise TableError(f"Expected a table in {source} (got {size} bytes)")
        content = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    except OSError as error:
        raise TableError(f"Cannot read the table {source}: {error.strerror or error}") from error
    try:
        header, tensors = _unpack(content, source)
        table = _table(header, tensors, source)
    except TableError:
        raise
    except NasGraphError as error:
        raise TableError(f"No valid table in {source}: {error}") from error
    if size <= VERIFIED_ON_OPENING and table.sha256 != content_sha256(table):
        raise TableError(f"The table {source} has been changed: its checksum does not fit")
    return table


def _unpack(content: Shaped[Array, " bytes"], source: str) -> tuple[dict[str, Json], Tensors]:
    """The facts and the arrays of a safetensors file."""
    length = int.from_bytes(content[:8].tobytes(), "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise TableError(
            f"Expected a table in {source} (got a header of {length:,} bytes in {len(content):,})"
        )
    header = parse_json(content[8 : 8 + length].tobytes(), source=source)
    if not isinstance(header, dict):
        raise TableError(f"Expected an object as the header of {source} (got {type(header).__name__})")
    texts = header.pop("__metadata__", None)
    text = texts.get(_TEXT) if isinstance(texts, dict) else None
    if not isinstance(text, str):
        raise TableError(f"The file {source} is no table: it has no '{_TEXT}' among its texts")
    facts = parse_json(text, source=source)
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        schema = facts.get("schema") if isinstance(facts, dict) else type(facts).__name__
        raise TableError(f"Expected a table with schema '{SCHEMA}' in {source} (got {schema!r:.80})")
    numbers = content[8 + length :]
    return facts, {name: _tensor(name, place, numbers, source) for name, place in header.items()}


def _tensor(name: str, place: Json, numbers: Shaped[Array, " bytes"], source: str) -> Shaped[Array, "..."]:
    """One array, where the header says that it lies."""
    what = f"array {name!r:.80} in {source}"
    if not isinstance(place, dict) or set(place) != {"dtype", "shape", "data_offsets"}:
        raise TableError(f"Expected type, shape and place of the {what}")
    dtype, shape, offsets = place["dtype"], place["shape"], place["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise TableError(f"Expected the {what} as one of {', '.join(_DTYPES)} (got {dtype!r:.40})")
    if not _are_counts(shape) or not _are_counts(offsets) or len(cast(list[int], offsets)) != 2:
        raise TableError(f"Expected shape and place of the {what} as whole numbers")
    start, end = cast(list[int], offsets)
    sizes = cast(list[int], shape)
    kind = np.dtype(_DTYPES[dtype])
    if len(sizes) != 1 or not start <= end <= len(numbers) or end - start != prod(sizes) * kind.itemsize:
        raise TableError(
            f"The {what} has shape {tuple(sizes)!s:.80} and lies at {start} to {end} of {len(numbers)} bytes: "
            "the file is cut off or damaged"
        )
    result: Array = numbers[start:end].view(kind)
    return result


def _are_counts(value: Json) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value)
    )


def _table(facts: dict[str, Json], tensors: Tensors, source: str) -> Table:
    kinds, checksum = kinds_from_json(facts.pop("kinds", None), source=source), facts.pop("sha256", None)
    del facts["schema"]
    if not isinstance(checksum, str) or len(checksum) != 64:
        raise TableError(f"Expected 'sha256' in {source} to be 64 hexadecimal digits")
    rest = dict(tensors)
    arrays = {name: _taken(rest, f"graph.{name}", source) for name in ARRAYS}
    keys = None
    if "key.text" in rest or "key.offset" in rest:
        keys = Keys(text=_taken(rest, "key.text", source), offset=_taken(rest, "key.offset", source))
    info = info_from_json(facts, source=source)
    columns = {metric.name: _taken(rest, f"metric.{metric.name}", source) for metric in info.metrics}
    if rest:
        raise TableError(f"Unknown array {min(rest)!r:.80} in {source}")
    return Table(
        info=info, columns=columns, packed=PackedGraphs(kinds=kinds, **arrays), keys=keys, sha256=checksum
    )


def _taken(tensors: dict[str, Shaped[Array, "..."]], name: str, source: str) -> Array:
    if name not in tensors:
        raise TableError(f"The table {source} lacks the array {name!r:.140}")
    return tensors.pop(name)
