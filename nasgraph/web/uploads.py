"""Data that a reader sends: read by the safe readers of `nasgraph.data`, bounded in every direction."""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from nasgraph.data import RawData
from nasgraph.data.load import read_path
from nasgraph.errors import DataError
from nasgraph.retrieve.behaviour.records import QueryData
from nasgraph.seeding import generator

KINDS = ("npz", "csv", "tsv")
PER_CLASS = 50
"""Examples of each class that models are tried on: more cost time and change little."""
MAX_CLASSES = 1000
MAX_MEMBERS = 16
MAX_UNPACKED_BYTES = 512 * 2**20


def read_upload(body: bytes, kind: str, *, seed: int = 0) -> QueryData:
    """Read the bytes of a `.npz` archive or a table.

    They are written to a folder of their own, under a name that is not the sender's, and removed afterwards.

    Args:
        body: The bytes.
        kind: One of `KINDS`.
        seed: Decides which examples of each class are taken.

    Raises:
        DataError: If it is not in that form, too large when unpacked, or makes no query. See `read_npz` and `read_csv_table`.
    """
    if kind not in KINDS:
        raise DataError(f"Expected a file that ends with .{', .'.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="nasgraph-web-") as folder:
        path = Path(folder) / f"data.{kind}"
        path.write_bytes(body)
        if kind == "npz":
            check_archive(path)
        return query_from_raw(read_path(path), seed=seed)


def check_archive(path: Path) -> None:
    """Refuse an archive that is large when unpacked: a few kilobytes can hold many gigabytes of zeros.

    Raises:
        DataError: If it is no archive, has more than 16 members, or more than 512 MiB in them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    # Offsets that lead nowhere are an OSError or a ValueError, a version of the format that zipfile does not read is the last.
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DataError("Expected a .npz archive as numpy.savez writes it: this is no archive") from error
    total = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or total > MAX_UNPACKED_BYTES:
        raise DataError(
            f"Expected at most {MAX_MEMBERS} arrays of {MAX_UNPACKED_BYTES:,} bytes in sum (got {len(members):,} with {total:,})"
        )


def query_from_raw(raw: RawData, *, seed: int = 0) -> QueryData:
    """Some training examples of each class, with pixels from 0 to 1 and the classes that occur numbered from 0.

    Raises:
        DataError: If there are more than 1000 classes, or the examples make no query.
    """
    rng = generator(seed, "uploaded query")
    labels = raw.train_labels.astype(np.int64)
    present = np.unique(labels)
    if len(present) > MAX_CLASSES:
        raise DataError(
            f"Expected at most {MAX_CLASSES} classes (got {len(present)}). Is the last column the class?"
        )
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:PER_CLASS] for label in present]
    index = np.concatenate(chosen)
    inputs = torch.from_numpy(np.ascontiguousarray(raw.train_inputs[index]))
    if inputs.dtype == torch.uint8 and inputs.ndim == 4:
        inputs = inputs.float() / 255
    inputs = inputs.float()
    if inputs.ndim == 4:
        low, high = float(inputs.min()), float(inputs.max())
        if low < 0 or high > 1:
            inputs = (inputs - low) / max(high - low, 1e-12)
    return QueryData(inputs, torch.from_numpy(np.searchsorted(present, labels[index])))
