"""Files that are whole or absent: atomic writes, canonical JSON, bounded reading, checksums."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nasgraph.errors import NasGraphError

if TYPE_CHECKING:
    Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
else:
    Json = object  # beartype, which checks types in the tests, cannot follow a type that names itself

MAX_JSON_BYTES = 64 * 2**20


def canonical_json(value: object) -> str:
    """Serialise with sorted keys and no white space: equal values give equal text.

    Raises:
        ValueError: If `value` holds NaN or an infinity, which JSON cannot express.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Readers see the old file or the new one, never a part. The bytes are on the disk before the move, so
    a power cut or a full disk leaves the old file. The temporary file is removed when `write` fails.

    Args:
        path: Final place. Its folder is created.
        write: Called once with the path to fill.

    Raises:
        NasGraphError: If the disk is full or the folder cannot be written. The message names the path.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise NasGraphError(f"Cannot write '{path}': {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise NasGraphError(f"Cannot write '{path}': {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. See `write_atomically` for errors."""
    write_atomically(path, lambda temporary: _write(temporary, text.encode()))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically. See `write_atomically` for errors."""
    write_atomically(path, lambda temporary: _write(temporary, data))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write `value` atomically as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(text: str | bytes, *, source: str = "text") -> Json:
    """Parse JSON that may come from a stranger.

    Args:
        text: The document.
        source: What to call the document in messages.

    Raises:
        NasGraphError: If it is over 64 MiB, is not JSON, holds NaN or an infinity, is nested too deeply,
            or is not UTF-8.
    """
    if len(text) > MAX_JSON_BYTES:
        raise NasGraphError(
            f"Expected at most {MAX_JSON_BYTES:,} bytes of JSON in {source} (got {len(text):,})"
        )
    try:
        value: Json = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float)
    except RecursionError as error:
        raise NasGraphError(f"The JSON in {source} is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, and integers of absurd length
        raise NasGraphError(f"Not valid JSON in {source}: {error}") from error
    return value


def read_json(path: Path) -> Json:
    """Read a JSON file that may come from a stranger. See `parse_json` for what is refused."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise NasGraphError(
                f"Expected at most {MAX_JSON_BYTES:,} bytes in '{path}' (got {path.stat().st_size:,})"
            )
        data = path.read_bytes()
    except OSError as error:
        raise NasGraphError(f"Cannot read '{path}': {error.strerror or error}") from error
    return parse_json(data, source=f"'{path}'")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text:.40} is too large for a JSON number")
    return value
