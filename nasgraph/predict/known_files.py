"""The files of `KnownPerformance`: `rows.safetensors` beside `config.json`, read as if a stranger had written them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nasgraph.errors import CheckpointError, NasGraphError
from nasgraph.files import Json, canonical_json, parse_json, read_json

Array = np.ndarray
SCHEMA = "nasgraph/performance/1"
CONFIG, ROWS = "config.json", "rows.safetensors"
MAX_BYTES = 256 * 2**20
MAX_TEXT = 10_000
_DTYPES = {"rows": np.float32, "targets": np.float64, "fingerprints": np.uint64, "keys": np.uint8}
_AXES = {"rows": 2, "targets": 1, "fingerprints": 1, "keys": 1}


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredRows:
    """What `rows.safetensors` holds.

    Attributes:
        rows: Features, in single precision.
        targets: What was measured, in double precision.
        keys: A name for each row. Stored as UTF-8 of a JSON list.
        fingerprints: 16 hexadecimal digits each, or nothing. Stored as numbers, 0 for nothing.
    """

    rows: Float[Array, "rows columns"]
    targets: Float[Array, " rows"]
    keys: tuple[str, ...]
    fingerprints: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """The content of the file."""
        numbers = [int(fingerprint or "0", 16) for fingerprint in self.fingerprints]
        data: bytes = save(
            {
                "rows": np.ascontiguousarray(self.rows),
                "targets": np.ascontiguousarray(self.targets),
                "fingerprints": np.array(numbers, dtype=np.uint64),
                "keys": np.frombuffer(canonical_json(list(self.keys)).encode(), dtype=np.uint8),
            }
        )
        return data


def read_stored(folder: Path) -> tuple[dict[str, Json], StoredRows]:
    """Configuration and rows. The bytes whose checksum is compared are those that are read.

    Raises:
        CheckpointError: If a file is missing, damaged, foreign or too large, or the checksum differs.
    """
    try:
        config = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No known performance in '{folder}': {error}") from error
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        raise CheckpointError(f"Expected '{folder / CONFIG}' to have schema '{SCHEMA}'")
    data = _bytes(folder / ROWS)
    if sha256(data).hexdigest() != config.get("sha256"):
        raise CheckpointError(
            f"The checksum of '{folder / ROWS}' differs from the recorded one: damaged or changed"
        )
    return config, _rows(data, folder / ROWS)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(
                f"Expected at most {MAX_BYTES:,} bytes in '{path}' (got {path.stat().st_size:,})"
            )
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Cannot read '{path}': {error.strerror or error}") from error


def _rows(data: bytes, path: Path) -> StoredRows:
    try:
        arrays: dict[str, Array] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"'{path}' is no complete safetensors file: {error}") from error
    if set(arrays) != set(_DTYPES):
        raise CheckpointError(f"Expected {', '.join(_DTYPES)} in '{path}' (got {', '.join(sorted(arrays))})")
    for name, array in arrays.items():
        if array.dtype != _DTYPES[name] or array.ndim != _AXES[name]:
            raise CheckpointError(
                f"Expected '{name}' in '{path}' as {np.dtype(_DTYPES[name])} with {_AXES[name]} axes (got {array.dtype} with {array.ndim})"
            )
    try:
        keys = parse_json(arrays["keys"].tobytes(), source=f"the keys of '{path}'")
    except NasGraphError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"Expected the keys of '{path}' to be a list of texts")
    return StoredRows(
        rows=arrays["rows"],
        targets=arrays["targets"],
        keys=tuple(str(key) for key in keys),
        fingerprints=tuple(f"{int(n):016x}" if n else "" for n in arrays["fingerprints"]),
    )


def read_text(document: Mapping[str, Json], name: str, source: str) -> str:
    """A text of a configuration; nothing if it is missing.

    Raises:
        CheckpointError: If it is something else, or absurdly long.
    """
    value = document.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise CheckpointError(f"Expected '{name}' in {source} to be text (got {value!r:.80})")
    return value
