"""Small real files in the forms that data sets are published in."""

import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from nasgraph.data import RawData
from nasgraph.data.fetch import RemoteFile

Bytes = npt.NDArray[np.uint8]
CIFAR_NAMES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def random_bytes(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cyclic_labels(num_examples: int, num_classes: int = 10) -> Bytes:
    return (np.arange(num_examples) % num_classes).astype(np.uint8)


def raw_data(num_train: int = 60, num_test: int = 0, *, num_classes: int = 3, seed: int = 0) -> RawData:
    """Images whose first pixel numbers them, so that a test can tell which example it holds."""
    images = np.random.default_rng(seed).random((num_train + num_test, 2, 4, 5), dtype=np.float32)
    images[:, 0, 0, 0] = np.arange(len(images))
    labels = cyclic_labels(len(images), num_classes)
    return RawData(
        train_inputs=images[:num_train],
        train_labels=labels[:num_train],
        test_inputs=images[num_train:] if num_test else None,
        test_labels=labels[num_train:] if num_test else None,
        class_names=tuple("abcdefghij"[:num_classes]),
        licence="none",
        source="made here",
    )


def idx_bytes(array: Bytes) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(struct.pack(">I", size) for size in array.shape)
    return header + array.tobytes()


def write_idx_set(folder: Path, *, num_train: int = 40, num_test: int = 20, zipped: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", num_train), ("t10k", num_test)):
        for kind, array in (
            ("images-idx3", random_bytes(count, 6, 6)),
            ("labels-idx1", cyclic_labels(count)),
        ):
            data = idx_bytes(array)
            if zipped:
                (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))
            else:
                (folder / f"{part}-{kind}-ubyte").write_bytes(data)


def python2_batch(images: Bytes, labels: list[int]) -> bytes:
    """A pickle with the opcodes that Python 2 and numpy 1 wrote for the official batches."""
    rows = images.reshape(len(images), -1)

    def text(value: bytes) -> bytes:
        return b"U" + bytes((len(value),)) + value

    data = rows.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R("
        b"K\x01"
        + b"".join(b"J" + struct.pack("<i", n) for n in rows.shape)
        + b"\x86cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(data))
        + data
        + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes((label,)) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def write_pictures(
    folder: Path, counts: dict[str, int], *, size: tuple[int, int] = (5, 4), mode: str = "L"
) -> None:
    """Pictures of `size` (width, height); the first pixel of each is its number within the class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            pixels = random_bytes(*shape, seed=number)
            pixels[0, 0] = number
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")


def write_sheet(path: Path, images: Bytes, *, columns: int) -> None:
    """Images `[n, 3, 32, 32]` as a lossless grid, row by row."""
    rows = len(images) // columns
    grid = images.reshape(rows, columns, 3, 32, 32).transpose(0, 3, 1, 4, 2)
    Image.fromarray(grid.reshape(rows * 32, columns * 32, 3)).save(path, lossless=True)


def cifar_batch(number: int) -> tuple[Bytes, Bytes]:
    return random_bytes(20, 3, 32, 32, seed=number), cyclic_labels(20)


def write_cifar(folder: Path, *, binary: bool) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(CIFAR_NAMES):
        images, labels = cifar_batch(number)
        if binary:
            records = np.concatenate([labels[:, None], images.reshape(20, -1)], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            (folder / name).write_bytes(python2_batch(images, labels.tolist()))


def make_archive(
    folder: Path, members: dict[str, bytes], *, links: dict[str, str] | None = None
) -> RemoteFile:
    path = folder / "made.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    data = path.read_bytes()
    return RemoteFile(
        path.name, ("https://example.org",), f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)
    )
