"""Data sets by name or by path."""

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from nasgraph.data.arrays import read_npz
from nasgraph.data.folders import read_image_folder
from nasgraph.data.nodes import RawNodeData, prepare_nodes
from nasgraph.data.prepare import Preparation, prepare
from nasgraph.data.records import DataRequest, DataSet, RawData
from nasgraph.data.sheets import read_sheets
from nasgraph.data.tables import read_csv_table
from nasgraph.errors import DataError
from nasgraph.plugins import load_plugin, plugin_names

GROUP = "nasgraph.datasets"
DATA_DIR_VARIABLE = "NASGRAPH_DATA"

_FILE_READERS: dict[str, Callable[[Path], RawData]] = {
    ".npz": read_npz,
    ".csv": read_csv_table,
    ".tsv": read_csv_table,
}


def dataset_names() -> tuple[str, ...]:
    """Sorted names of all installed data sets. Loads none of them."""
    return plugin_names(GROUP)


def load_dataset(
    name_or_path: str | Path,
    *,
    data_dir: Path | None = None,
    split_seed: int = 0,
    validation_share: float = 0.2,
    image_size: int | None = None,
    num_train: int | None = None,
    download: bool = True,
) -> DataSet:
    """Find, read, split and normalise a data set. Everything is done once and kept in memory.

    Equal arguments and equal files give bit-identical tensors on one machine. The test split is the
    official one, or a fifth of the data that is the same for every `split_seed`.

    Args:
        name_or_path: A name (see `dataset_names`), or the path of a `.npz` archive, a `.csv` or `.tsv`
            table, or a folder of images or sheets. A name wins over a path; write `./digits` for a folder
            of that name.
        data_dir: Folder in which named data sets lie. None means the environment variable NASGRAPH_DATA,
            or else `~/.cache/nasgraph/data`.
        split_seed: Divides training from validation data.
        validation_share: Validation examples, as a share of the published training examples.
        image_size: Height and width in pixels to resize images to; None keeps them.
        num_train: Training examples to keep; the validation split shrinks in proportion. None keeps all.
        download: Whether files that are missing in `data_dir` may be fetched from their official address.

    Raises:
        UnknownNameError: If there is no such name, and it is no path either.
        DataError: If something is missing, damaged, or not in the expected form.
        ConfigError: If a number is out of its range.
    """
    settings = Preparation(
        split_seed=split_seed, validation_share=validation_share, image_size=image_size, num_train=num_train
    )
    request = DataRequest(find_data_dir(data_dir), download)
    if _names_a_path(name_or_path):
        path = Path(name_or_path).expanduser()
        return prepare(read_path(path), name=path.resolve().stem, settings=settings)
    name = str(name_or_path)
    hint = "The path of a .npz archive, a .csv table or an image folder works, too."
    load = cast("Callable[[DataRequest], object]", load_plugin(GROUP, name, kind="data set", hint=hint))
    raw = load(request)
    if isinstance(raw, RawNodeData):
        return prepare_nodes(raw, name=name, settings=settings)
    if not isinstance(raw, RawData):
        raise DataError(
            f"Expected a RawData from the plug-in of data set '{name}' (got {type(raw).__name__})"
        )
    return prepare(raw, name=name, settings=settings)


def _names_a_path(name_or_path: str | Path) -> bool:
    if isinstance(name_or_path, Path):
        return True
    if name_or_path in dataset_names():
        return False
    path = Path(name_or_path).expanduser()
    looks_like_one = (
        len(path.parts) > 1 or path.suffix in _FILE_READERS or name_or_path.startswith((".", "~"))
    )
    return looks_like_one or path.exists()


def find_data_dir(data_dir: Path | None) -> Path:
    """The folder of named data sets: the argument, else NASGRAPH_DATA, else `~/.cache/nasgraph/data`.

    Raises:
        DataError: If a folder was named and does not exist. The default need not exist.
    """
    named = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not named:
        return Path.home() / ".cache" / "nasgraph" / "data"
    folder = Path(named).expanduser()
    if not folder.is_dir():
        origin = "" if data_dir else f", named by {DATA_DIR_VARIABLE},"
        raise DataError(
            f"The data folder '{folder}'{origin} does not exist.{_near(folder)} Create it or name another"
        )
    return folder


def read_path(path: Path) -> RawData:
    """Read a data set of one's own: `.npz`, `.csv`, `.tsv`, a folder of images, or a folder of sheets.

    Raises:
        DataError: If there is no such path, its form is not known, or its content is refused.
    """
    if not path.exists():
        raise DataError(f"There is no '{path}'.{_near(path)}")
    if path.is_dir():
        return read_sheets(path) if (path / "index.npz").is_file() else read_image_folder(path)
    if path.suffix.lower() not in _FILE_READERS:
        raise DataError(f"Expected a data set as .npz, .csv, .tsv or a folder of images (got '{path}')")
    return _FILE_READERS[path.suffix.lower()](path)


def _near(path: Path) -> str:
    """A sentence that names paths like the missing one, or what part of it is missing."""
    parent = path.absolute().parent
    if not parent.is_dir():
        return f" There is no '{parent}' either."
    names = sorted(child.name for child in parent.iterdir() if not child.name.startswith("."))
    close = get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f" Close: {', '.join(repr(str(parent / name)) for name in close)}." if close else ""
