"""Sheets: thousands of small images in one picture file, with the labels in `index.npz`."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nasgraph.data.arrays import open_npz
from nasgraph.data.pictures import decode
from nasgraph.data.records import RawData
from nasgraph.errors import DataError

TILE = 32  # pixels
_SHEET = re.compile(r"(train|test)_(\d+)\.(webp|png)")


def read_sheets(folder: Path, *, licence: str = "unknown", source: str | None = None) -> RawData:
    """Read `train_00.webp`, `test_00.webp` and so on: grids of 32x32 images, row by row.

    Sheet k holds the examples k*n to k*n + n - 1, where n is the number of images per sheet; the last
    one may have unused tiles. Any sheets may be missing; what is there is used. `index.npz` has
    `train_label`, `test_label` and perhaps `class_names`.

    Args:
        folder: Folder with the sheets.
        licence: Licence to record.
        source: Where the data is from; None records the folder.

    Raises:
        DataError: If a file is damaged, there is no training or no test sheet, sheets differ in size, or
            there are more sheets than labels.
    """
    index = open_npz(folder / "index.npz", required=("train_label", "test_label"))
    train_inputs, train_labels = _read_part(folder, "train", index["train_label"])
    test_inputs, test_labels = _read_part(folder, "test", index["test_label"])
    if "class_names" in index:
        class_names = tuple(str(name) for name in index["class_names"].ravel())
    else:
        class_names = tuple(str(number) for number in range(int(train_labels.max()) + 1))
    return RawData(
        train_inputs=train_inputs,
        train_labels=train_labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
        class_names=class_names,
        licence=licence,
        source=source or str(folder),
    )


def _read_part(
    folder: Path, part: str, labels: npt.NDArray[np.generic]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.generic]]:
    matches = [match for path in folder.iterdir() if (match := _SHEET.fullmatch(path.name))]
    names = {int(match[2]): match[0] for match in matches if match[1] == part}
    if not names:
        raise DataError(f"Expected at least one sheet '{part}_00.webp' in '{folder}'")
    images, kept_labels = [], []
    num_tiles = 0
    for number, name in sorted(names.items()):
        tiles = _cut(folder / name)
        num_tiles = num_tiles or len(tiles)
        if len(tiles) != num_tiles:
            raise DataError(
                f"Expected {num_tiles} images in '{folder / name}', as in the others (got {len(tiles)})"
            )
        here = labels[number * num_tiles : (number + 1) * num_tiles]
        if not len(here):
            raise DataError(f"'{folder / 'index.npz'}' has {len(labels):,} labels, none for '{name}'")
        images.append(tiles[: len(here)])
        kept_labels.append(here)
    return np.concatenate(images), np.concatenate(kept_labels)


def _cut(path: Path) -> npt.NDArray[np.uint8]:
    """The tiles of one sheet, `[images, 3, 32, 32]`, row by row."""
    sheet = decode(path, "RGB")
    _, height, width = sheet.shape
    if height % TILE or width % TILE:
        raise DataError(f"Expected multiples of {TILE} pixels in '{path}' (got {width}x{height})")
    grid = sheet.reshape(3, height // TILE, TILE, width // TILE, TILE)
    return grid.transpose(1, 3, 0, 2, 4).reshape(-1, 3, TILE, TILE)
