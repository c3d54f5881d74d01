"""CIFAR-10: the official python or binary batches, an image folder, or sheets of images."""

import logging
import pickle
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nasgraph.data.fetch import RemoteFile, check_file, fetch
from nasgraph.data.folders import read_image_folder
from nasgraph.data.records import DataRequest, RawData
from nasgraph.data.sheets import read_sheets
from nasgraph.errors import DataError

logger = logging.getLogger(__name__)

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LICENCE = "no formal licence; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
# Published sums (Keras has the first, TensorFlow Datasets the second), not our own.
PYTHON_ARCHIVE = RemoteFile(
    "cifar-10-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    170498071,
)
BINARY_ARCHIVE = RemoteFile(
    "cifar-10-binary.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170052171,
)
_IMAGE_SHAPE = (3, 32, 32)
_IMAGE_BYTES = 3 * 32 * 32
_MAX_BATCH_BYTES = 2**26
_FOLDERS = ("cifar10", "cifar-10", "CIFAR10", ".")
_PYTHON_FOLDER, _BINARY_FOLDER = "cifar-10-batches-py", "cifar-10-batches-bin"
_PYTHON_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_BINARY_FILES = tuple(f"{name}.bin" for name in _PYTHON_FILES)

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def load_cifar10(request: DataRequest) -> RawData:
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels, from whatever form lies in the data folder.

    Below the data folder, `cifar10`, `cifar-10`, `CIFAR10` and the folder itself are searched, for each
    form in turn: python batches, binary batches, an official archive (its checksum is tested before it
    is unpacked), sheets (`index.npz` and `train_*.webp`, however many there are), an image folder. If
    nothing is found the binary archive is fetched.

    Args:
        request: Data folder, and whether to fetch.

    Raises:
        DataError: If nothing is found and nothing can be fetched, or what was found is damaged.
    """
    folders = [request.data_dir / name for name in _FOLDERS]
    for reader in (_read_python, _read_binary, _unpack_and_read, _read_cifar_sheets, _read_cifar_folder):
        for folder in folders:
            if (raw := reader(folder)) is not None:
                return raw
    if not request.download:
        raise DataError(
            f"CIFAR-10 is not in '{request.data_dir}', and fetching is switched off. Put "
            f"'{BINARY_ARCHIVE.name}' (from {BINARY_ARCHIVE.urls[0]}) there, or name the folder with "
            f"--data-dir or NASGRAPH_DATA"
        )
    fetch(BINARY_ARCHIVE, folders[0])
    raw = _unpack_and_read(folders[0])
    assert raw is not None
    return raw


def unpickle_batch(path: Path) -> Batch:
    """Read one python batch without running anything that the pickle names.

    The unpickler admits three names, those by which numpy arrays were pickled when the set was made, and
    stands in for them with code of this file. Anything else in the pickle is refused.

    Args:
        path: File, possibly from a stranger.

    Returns:
        Images `[examples, 3, 32, 32]` and labels `[examples]`.

    Raises:
        DataError: If the file is too large, is not such a pickle, or names anything else.
    """
    if path.stat().st_size > _MAX_BATCH_BYTES:
        raise DataError(
            f"Expected at most {_MAX_BATCH_BYTES:,} bytes in '{path}' (got {path.stat().st_size:,})"
        )
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        values = {_text(key): value for key, value in content.items()}
        images = values["data"].array
        return images.reshape(-1, *_IMAGE_SHAPE), np.array(values["labels"], dtype=np.int64)
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"'{path}' is not a CIFAR-10 batch: {error or type(error).__name__}") from error


class _PickledType:
    """Stands in for `numpy.dtype`; only unsigned bytes are admitted."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise DataError(f"expected an array of type 'u1' (got {code!r:.40})")

    def __setstate__(self, state: object) -> None:
        pass


class _PickledArray:
    """Stands in for the array that `numpy.core.multiarray._reconstruct` makes."""

    array: npt.NDArray[np.uint8]

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[int, tuple[int, ...], _PickledType, bool, bytes | str]) -> None:
        _, shape, _, column_major, content = state
        data = content.encode("latin1") if isinstance(content, str) else content
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if column_major else "C")


_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy", "ndarray"): "ndarray",  # only ever an argument of the above
    ("numpy", "dtype"): _PickledType,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> object:
        if (module, name) not in _ADMITTED:
            raise DataError(f"it asks for '{module}.{name}', which no CIFAR-10 batch needs; nothing was run")
        return _ADMITTED[module, name]


def read_binary_batch(path: Path) -> Batch:
    """Read one binary batch: records of a label byte and 3,072 bytes of channels, rows, columns.

    Args:
        path: File, possibly from a stranger.

    Returns:
        Images `[examples, 3, 32, 32]` and labels `[examples]`.

    Raises:
        DataError: If the size is not a whole number of records.
    """
    size, record = path.stat().st_size, 1 + _IMAGE_BYTES
    if size == 0 or size % record or size > _MAX_BATCH_BYTES:
        raise DataError(
            f"Expected a multiple of {record:,} bytes in '{path}' (got {size:,}); it is truncated or foreign"
        )
    records = np.fromfile(path, np.uint8).reshape(-1, record)
    return records[:, 1:].reshape(-1, *_IMAGE_SHAPE), records[:, 0].astype(np.int64)


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def _read_python(folder: Path) -> RawData | None:
    return _read_batches(folder, _PYTHON_FOLDER, _PYTHON_FILES, unpickle_batch)


def _read_binary(folder: Path) -> RawData | None:
    return _read_batches(folder, _BINARY_FOLDER, _BINARY_FILES, read_binary_batch)


def _read_batches(
    folder: Path, below: str, names: Sequence[str], read: Callable[[Path], Batch]
) -> RawData | None:
    place = next((p for p in (folder / below, folder) if any((p / name).is_file() for name in names)), None)
    if place is None:
        return None
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise DataError(f"Expected all batches of CIFAR-10 in '{place}' (missing: {', '.join(missing)})")
    *train, test = [read(place / name) for name in names]
    return RawData(
        train_inputs=np.concatenate([images for images, _ in train]),
        train_labels=np.concatenate([labels for _, labels in train]),
        test_inputs=test[0],
        test_labels=test[1],
        class_names=CLASS_NAMES,
        licence=LICENCE,
        source=SOURCE,
    )


def _unpack_and_read(folder: Path) -> RawData | None:
    if (folder / BINARY_ARCHIVE.name).is_file():
        unpack(BINARY_ARCHIVE, folder, below=_BINARY_FOLDER, names=_BINARY_FILES)
        return _read_binary(folder)
    if (folder / PYTHON_ARCHIVE.name).is_file():
        unpack(PYTHON_ARCHIVE, folder, below=_PYTHON_FOLDER, names=_PYTHON_FILES)
        return _read_python(folder)
    return None


def unpack(archive: RemoteFile, folder: Path, *, below: str, names: Sequence[str]) -> None:
    """Take the named members out of an archive in `folder` into `folder/below`, all or none.

    The checksum is tested first. Members are read one by one and written under the names given here, so
    no path, link or owner in the archive has any effect.

    Raises:
        DataError: If the archive is not the published one, or lacks a member.
    """
    path = folder / archive.name
    check_file(archive, path)
    logger.info("Unpacking %s", path)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{below}.") as temporary:
            filled = Path(temporary) / "filled"
            filled.mkdir()
            with tarfile.open(path) as tar:
                for name in names:
                    member = tar.extractfile(f"{below}/{name}")
                    if member is None:
                        raise DataError(f"'{below}/{name}' in '{path}' is not a file")
                    with member, (filled / name).open("wb") as target:
                        shutil.copyfileobj(member, target)
            if not all(
                (folder / below / name).is_file() for name in names
            ):  # else another process was faster
                filled.replace(folder / below)
    except (OSError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"Cannot unpack '{path}': {error}") from error


def _read_cifar_sheets(folder: Path) -> RawData | None:
    if not (folder / "index.npz").is_file():
        return None
    raw = read_sheets(folder, licence=LICENCE, source=SOURCE)
    return raw if raw.class_names == CLASS_NAMES else None


def _read_cifar_folder(folder: Path) -> RawData | None:
    if not all((folder / "train" / name).is_dir() for name in CLASS_NAMES):
        return None
    return read_image_folder(folder, licence=LICENCE, source=SOURCE)
