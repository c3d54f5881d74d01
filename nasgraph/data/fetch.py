"""Fetching published files: over HTTP(S), checked against a fixed checksum, whole or not at all."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from nasgraph.errors import DataError
from nasgraph.files import write_atomically

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**18

Progress = Callable[[str, int, int], None]
"""Called with the name of the file, the bytes that have come, and the bytes in all."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file whose content is known beforehand.

    Args:
        name: File name on disk.
        urls: Addresses that offer it, the official one first.
        checksum: `algorithm:hex`, such as `sha256:3aed...`. Any algorithm that hashlib always has.
        num_bytes: Exact size.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str
    num_bytes: int


def fetch(
    file: RemoteFile, folder: Path, *, timeout_s: float = 30.0, progress: Progress | None = None
) -> Path:
    """Fetch `file` into `folder`, unless every address fails.

    The file appears whole and with the right checksum, or not at all. No more than its known size is
    read. The addresses are tried in order. Progress is logged at level INFO, in steps of a tenth.

    Args:
        file: What to fetch.
        folder: Created if need be.
        timeout_s: Longest wait for the connection and for each piece of data, in seconds.
        progress: Called after each piece.

    Returns:
        Path of the file.

    Raises:
        DataError: If no address gave the file. The message says why for each, and where to put a copy.
        NasGraphError: If the folder cannot be written or the disk is full.
    """
    target = folder / file.name
    is_new = not folder.exists()
    reasons = []
    for url in file.urls:
        logger.info("Fetching %s (%.1f MB)", url, file.num_bytes / 1e6)
        try:
            write_atomically(target, partial(_download, file, url, timeout_s, progress))
        except DataError as error:
            reasons.append(f"{url}: {error}")
        else:
            return target
    if is_new:
        with suppress(OSError):  # another process may have put something into it
            folder.rmdir()
    raise DataError(
        f"Cannot fetch '{file.name}' ({'; '.join(reasons)}). "
        f"Download it elsewhere from {file.urls[0]} and put it into '{folder}'"
    )


def check_file(file: RemoteFile, path: Path) -> None:
    """Check a copy that somebody put there by hand.

    Raises:
        DataError: If it is not byte for byte the published file.
    """
    algorithm, expected = file.checksum.split(":")
    with path.open("rb") as stream:
        got = hashlib.file_digest(stream, algorithm).hexdigest()
    if got != expected:
        raise DataError(
            f"'{path}' is damaged or another file: expected {algorithm} {expected} (got {got}). Remove it"
        )


def _download(file: RemoteFile, url: str, timeout_s: float, progress: Progress | None, path: Path) -> None:
    if not url.startswith(("https://", "http://")):
        raise DataError("expected an address that begins with https:// or http://")
    algorithm, expected = file.checksum.split(":")
    digest = hashlib.new(algorithm)
    done = tenths = 0
    with path.open("wb") as target:
        for chunk in _read_chunks(url, file.num_bytes, timeout_s):
            target.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(file.name, done, file.num_bytes)
            if done * 10 // file.num_bytes > tenths:
                tenths = done * 10 // file.num_bytes
                logger.info("%s: %d %%", file.name, 10 * tenths)
    if done != file.num_bytes:
        got = "more" if done > file.num_bytes else f"only {done:,}"
        raise DataError(f"expected {file.num_bytes:,} bytes, got {got}")
    if digest.hexdigest() != expected:
        raise DataError(f"expected {algorithm} {expected}, got {digest.hexdigest()}")


def _read_chunks(url: str, num_bytes: int, timeout_s: float) -> Iterator[bytes]:
    """At most one byte more than `num_bytes`, so that an endless answer does not fill the disk."""
    left = num_bytes + 1
    try:
        with urlopen(Request(url, headers={"User-Agent": "nasgraph"}), timeout=timeout_s) as response:
            while left and (chunk := response.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk
    except (OSError, HTTPException) as error:
        raise DataError(str(error)) from error
