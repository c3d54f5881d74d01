"""numpy archives (`.npz`) as data sets. No pickle is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nasgraph.data.records import Array, RawData
from nasgraph.errors import DataError

_IMAGE_CHANNELS = (1, 2, 3, 4)


def open_npz(path: Path, *, required: Sequence[str]) -> dict[str, Array]:
    """Read all arrays of an archive that may come from a stranger.

    Args:
        path: File.
        required: Names that must be there.

    Raises:
        DataError: If it is not an archive of plain arrays, is damaged, or lacks a required name.
    """
    try:
        with path.open("rb") as file:  # numpy leaks the file it opens itself where the archive is damaged
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, Mapping):
                raise DataError("it holds a single array, not named ones; use numpy.savez")
            arrays = {name: archive[name] for name in archive}
    except Exception as error:  # zipfile, zlib and numpy each have their own for damaged files
        raise DataError(f"Cannot read arrays from '{path}': {error or type(error).__name__}") from error
    missing = [name for name in required if name not in arrays]
    if missing:
        have = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"Expected the arrays {', '.join(required)} in '{path}' (got {have})")
    return arrays


def read_npz(path: Path) -> RawData:
    """Read `x_train, y_train[, x_test, y_test]`, or `x, y`, from a numpy archive.

    Inputs `[n, h, w]` get a channel; `[n, h, w, channels]` and `[n, channels, h, w]` are told apart by the
    axis that has 1 to 4 entries, or by an array `layout` that says "NHWC" or "NCHW"; `[n, features]` is a
    table. uint8 stays, every other number becomes float32. Labels are integers from 0 if `class_names`
    is there; otherwise the distinct labels, integers or text, are sorted and numbered.

    Raises:
        DataError: If a name is missing, or an array has the wrong type or shape. See also `RawData`.
    """
    arrays = open_npz(path, required=())
    x_name, y_name = ("x_train", "y_train") if "x_train" in arrays else ("x", "y")
    if x_name not in arrays or y_name not in arrays or ("x_test" in arrays) != ("y_test" in arrays):
        have = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"Expected x_train, y_train [, x_test, y_test] or x, y in '{path}' (got {have})")
    layout = str(arrays["layout"]) if "layout" in arrays else None
    names = [str(name) for name in arrays["class_names"].ravel()] if "class_names" in arrays else None
    labels = _labels(arrays[y_name], f"'{y_name}' in '{path}'")
    test_labels = _labels(arrays["y_test"], f"'y_test' in '{path}'") if "y_test" in arrays else None
    if names is None:
        distinct = np.unique(labels)
        if test_labels is not None:
            test_labels = _number(test_labels, distinct, f"'y_test' in '{path}'")
        labels = _number(labels, distinct, f"'{y_name}' in '{path}'")
        names = [str(value) for value in distinct]
    return RawData(
        train_inputs=_inputs(arrays[x_name], layout, f"'{x_name}' in '{path}'"),
        train_labels=labels,
        test_inputs=_inputs(arrays["x_test"], layout, f"'x_test' in '{path}'")
        if "x_test" in arrays
        else None,
        test_labels=test_labels,
        class_names=tuple(names),
        licence="unknown",
        source=str(path),
    )


def _inputs(x: Array, layout: str | None, what: str) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    if x.dtype.kind not in "buif":
        raise DataError(f"Expected numbers as {what} (got {x.dtype})")
    if x.ndim not in (2, 3, 4):
        raise DataError(f"Expected 2, 3 or 4 axes as {what} (got shape {list(x.shape)})")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and _channels_last(x.shape, layout, what):
        x = x.transpose(0, 3, 1, 2)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x, dtype=np.uint8)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which RawData refuses
        return np.ascontiguousarray(x, dtype=np.float32)


def _channels_last(shape: tuple[int, ...], layout: str | None, what: str) -> bool:
    if layout not in (None, "NHWC", "NCHW"):
        raise DataError(f"Expected 'layout' as NHWC or NCHW beside {what} (got {layout!r})")
    if layout is not None:
        return layout == "NHWC"
    first, last = shape[1] in _IMAGE_CHANNELS, shape[3] in _IMAGE_CHANNELS
    if first == last:
        raise DataError(
            f"Cannot tell which axis of {what} is the channel (shape {list(shape)}). "
            f"Add an array 'layout' that says NHWC or NCHW"
        )
    return last


def _labels(y: Array, what: str) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iuU":
        raise DataError(f"Expected one integer or text per example as {what} (got {y.dtype} {list(y.shape)})")
    if y.dtype.kind == "i" and len(y) and y.min() < 0:
        raise DataError(f"Expected labels from 0 as {what} (got {y.min()})")
    return y


def _number(y: Array, distinct: Array, what: str) -> npt.NDArray[np.int64]:
    unknown = np.setdiff1d(y, distinct)
    if len(unknown):
        raise DataError(f"Label {unknown[0]!s:.60} of {what} does not occur in the training labels")
    return np.searchsorted(distinct, y).astype(np.int64)
