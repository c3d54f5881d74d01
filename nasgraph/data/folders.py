"""Image folders: one sub-folder per class."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from nasgraph.data.pictures import SUFFIXES, PictureHeader, decode, read_header
from nasgraph.data.records import RawData
from nasgraph.errors import DataError

logger = logging.getLogger(__name__)

_IGNORED_SPLITS = ("val", "valid", "validation")
_Files = list[tuple[Path, int]]


def read_image_folder(folder: Path, *, licence: str = "unknown", source: str | None = None) -> RawData:
    """Read `train/<class>/*.png` with an optional `test/<class>/*.png`, or `<class>/*.png`.

    Classes are numbered by name, images are ordered by file name. All images must have one size. They
    are grey if every file is grey, else all are read as RGB without transparency. Hidden files and files
    that are not pictures by their suffix are left out. A `val` folder is not read, with a warning,
    because validation data is cut from the training data.

    Args:
        folder: The folder.
        licence: Licence to record.
        source: Where the data is from; None records the folder.

    Raises:
        DataError: If there are no class folders, a class has no images, sizes differ, a test class is not
            among the training classes, or a file is damaged.
    """
    has_parts = (folder / "train").is_dir()
    train_folder = folder / "train" if has_parts else folder
    class_names = tuple(_folders_in(train_folder))
    if len(class_names) < 2:
        found = ", ".join(repr(name) for name in class_names) or "none"
        raise DataError(
            f"Expected a sub-folder of images per class, at least 2, in '{train_folder}' (got {found})"
        )
    train = _list_images(train_folder, class_names)
    test: _Files = []
    if has_parts:
        for name in _IGNORED_SPLITS:
            if (folder / name).is_dir():
                logger.warning("'%s' is not read: validation images are cut from 'train'", folder / name)
        if (folder / "test").is_dir():
            test = _list_images(folder / "test", class_names)
    header = _common_header([path for path, _ in train + test])
    mode: Literal["L", "RGB"] = "L" if header.grey else "RGB"
    return RawData(
        train_inputs=_decode_all(train, header, mode),
        train_labels=np.array([label for _, label in train]),
        test_inputs=_decode_all(test, header, mode) if test else None,
        test_labels=np.array([label for _, label in test]) if test else None,
        class_names=class_names,
        licence=licence,
        source=source or str(folder),
    )


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_images(folder: Path, class_names: tuple[str, ...]) -> _Files:
    files: _Files = []
    for name in _folders_in(folder):
        if name not in class_names:
            raise DataError(f"'{folder / name}' is a class that the training images do not have")
        paths = sorted(
            path
            for path in (folder / name).iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        if not paths:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"The class folder '{folder / name}' has no images ({kinds}). Fill or remove it")
        files += [(path, class_names.index(name)) for path in paths]
    return files


def _common_header(paths: list[Path]) -> PictureHeader:
    headers = [read_header(path) for path in paths]
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        if (header.width, header.height) != (first.width, first.height):
            raise DataError(
                f"Expected images of one size: '{paths[0]}' has {first.width}x{first.height} pixels, "
                f"'{path}' has {header.width}x{header.height}. Resize them first"
            )
    return PictureHeader(first.width, first.height, all(header.grey for header in headers))


def _decode_all(files: _Files, header: PictureHeader, mode: Literal["L", "RGB"]) -> npt.NDArray[np.uint8]:
    num_channels = 1 if mode == "L" else 3
    images = np.empty((len(files), num_channels, header.height, header.width), np.uint8)
    for place, (path, _) in enumerate(files):
        images[place] = decode(path, mode)
    return images
