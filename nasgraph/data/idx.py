"""MNIST and Fashion-MNIST: the four official IDX files, raw or gzipped."""

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nasgraph.data.fetch import RemoteFile, fetch
from nasgraph.data.records import DataRequest, RawData
from nasgraph.errors import DataError

MAX_IDX_BYTES = 2**30
_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_NUM_AXES = {"images": 3, "labels": 1}
# Both sets use the same file names. The first labels tell them apart where a folder was mixed up.
_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5),
    "fashion-mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9),
}


@dataclass(frozen=True, slots=True)
class IdxSet:
    """A data set that is published as four IDX files.

    Args:
        name: Registered name.
        folders: Places below the data folder to look into, in this order. The first is where missing
            files are fetched to.
        files: The four gzipped files: training images, training labels, test images, test labels.
        class_names: Ten names.
        licence: Licence of the data.
        source: Address of its home page.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[RemoteFile, ...]
    class_names: tuple[str, ...]
    licence: str
    source: str


def _remote_files(urls: tuple[str, ...], checks: tuple[tuple[str, int], ...]) -> tuple[RemoteFile, ...]:
    files = []
    for stem, (sha256, num_bytes) in zip(_STEMS, checks, strict=True):
        name = f"{stem}-idx{_NUM_AXES[stem.split('-')[1]]}-ubyte.gz"
        files.append(RemoteFile(name, tuple(url + name for url in urls), f"sha256:{sha256}", num_bytes))
    return tuple(files)


MNIST = IdxSet(
    name="mnist",
    folders=("mnist", "MNIST/raw", "MNIST", "."),
    # The home page of the set has stopped giving out files; these two hold the same bytes. The sums are
    # those that several projects publish (TensorFlow Datasets among them), not our own.
    files=_remote_files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
            ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
            ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
            ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
        ),
    ),
    class_names=tuple("0123456789"),
    licence="CC BY-SA 3.0",
    source="http://yann.lecun.com/exdb/mnist/",
)

FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST", "."),
    # Sums computed from the official files.
    files=_remote_files(
        ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",),
        (
            ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
            ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
            ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
            ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148),
        ),
    ),
    class_names=(
        "t-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    licence="MIT",
    source="https://github.com/zalandoresearch/fashion-mnist",
)


def load_mnist(request: DataRequest) -> RawData:
    """MNIST: 60,000 + 10,000 grey images of 28x28 pixels. See `load_idx_set`."""
    return load_idx_set(MNIST, request)


def load_fashion_mnist(request: DataRequest) -> RawData:
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels. See `load_idx_set`."""
    return load_idx_set(FASHION_MNIST, request)


def load_idx_set(idx_set: IdxSet, request: DataRequest) -> RawData:
    """Read the four files of a set, fetching those that are missing.

    Args:
        idx_set: What to load.
        request: Data folder, and whether to fetch.

    Raises:
        DataError: If a file is missing and cannot be fetched, is damaged, or is of another set.
    """
    folders = [request.data_dir / folder for folder in idx_set.folders]
    folder = next((f for f in folders if any(_find(f, file) for file in idx_set.files)), folders[0])
    paths = [_find(folder, file) or _obtain(file, folder, request) for file in idx_set.files]
    train_images, train_labels, test_images, test_labels = (
        read_idx(path, num_axes=_NUM_AXES[stem.split("-")[1]])
        for path, stem in zip(paths, _STEMS, strict=True)
    )
    _check_not_another_set(idx_set, train_labels, folder)
    return RawData(
        train_inputs=train_images[:, None],
        train_labels=train_labels,
        test_inputs=test_images[:, None],
        test_labels=test_labels,
        class_names=idx_set.class_names,
        licence=idx_set.licence,
        source=idx_set.source,
    )


def read_idx(path: Path, *, num_axes: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, raw or gzipped (told by content, not by name).

    Args:
        path: File, possibly from a stranger. Nothing larger than 1 GiB is read.
        num_axes: Axes it must have.

    Returns:
        An array of the shape that the header states.

    Raises:
        DataError: If the file cannot be read, has another magic number, or more or fewer bytes than its
            header says.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not zipped:
                return _parse_idx(file.read, path, num_axes)
            with gzip.GzipFile(fileobj=file) as stream:
                return _parse_idx(stream.read, path, num_axes)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read '{path}': {error}") from error


def _parse_idx(read: Callable[[int], bytes], path: Path, num_axes: int) -> npt.NDArray[np.uint8]:
    magic = bytes((0, 0, 8, num_axes))
    got = read(4)
    if got != magic:
        raise DataError(
            f"'{path}' is not an IDX file of bytes with {num_axes} axes: magic {got.hex()}, not {magic.hex()}"
        )
    header = read(4 * num_axes)
    if len(header) < 4 * num_axes:
        raise DataError(f"'{path}' ends within its header")
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
    size = math.prod(shape)
    if size > MAX_IDX_BYTES:
        raise DataError(f"Expected at most {MAX_IDX_BYTES:,} values in '{path}' (its header says {size:,})")
    content = bytearray()
    while chunk := read(min(2**22, size + 1 - len(content))):
        content += chunk
    if len(content) != size:
        got_size = "more" if len(content) > size else f"{len(content):,}; the file is truncated"
        raise DataError(
            f"Expected {size:,} bytes after the header of '{path}', shape {list(shape)} (got {got_size})"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(folder: Path, file: RemoteFile) -> Path | None:
    """The file under one of its usual names: gzipped or raw, with a dash or a dot before `idx`."""
    raw = file.name.removesuffix(".gz")
    names = (file.name, raw, f"{raw.replace('-idx', '.idx')}.gz", raw.replace("-idx", ".idx"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _obtain(file: RemoteFile, folder: Path, request: DataRequest) -> Path:
    if not request.download:
        raise DataError(
            f"'{file.name}' is not in '{folder}', and fetching is switched off. "
            f"Put it there (from {file.urls[0]}), or name the folder with --data-dir or NASGRAPH_DATA"
        )
    return fetch(file, folder)


def _check_not_another_set(idx_set: IdxSet, labels: npt.NDArray[np.uint8], folder: Path) -> None:
    for name, first in _FIRST_LABELS.items():
        if name != idx_set.name and tuple(labels[: len(first)].tolist()) == first:
            raise DataError(f"The files in '{folder}' are those of '{name}', not of '{idx_set.name}'")
