"""CSV tables: one class column, all other columns numbers."""

import csv
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nasgraph.data.records import RawData
from nasgraph.errors import DataError

_LABEL_NAMES = ("label", "target")


def read_csv_table(path: Path) -> RawData:
    """Read a table with one example per row.

    The class stands in the column named `label` or `target`, else in the last one; it may be text or
    numbers, and classes are sorted (as numbers if all are). All other columns are features. The
    first row is a header if it has such a name or no number at all outside the last column. Cells are
    separated by comma, semicolon or tab, whichever the first row has most of. Empty lines are skipped.

    Args:
        path: UTF-8 text, with or without a byte order mark.

    Raises:
        DataError: If a feature is not a finite number (the message names row and column), rows differ in
            length, there is no feature or no row, or the text is not UTF-8. See also `RawData`.
    """
    rows = _read_rows(path)
    header = _header(rows[0][1])
    column = _label_column(header, path) if header else len(rows[0][1]) - 1
    width = len(rows[0][1])
    if width < 2:
        raise DataError(f"Expected at least one feature and one class column in '{path}' (got 1 column)")
    names = header or [str(number) for number in range(1, width + 1)]
    body = rows[1:] if header else rows
    if not body:
        raise DataError(f"'{path}' has a header and no rows")
    features = np.empty((len(body), width - 1), np.float32)
    labels = []
    for place, (line, cells) in enumerate(body):
        if len(cells) != width:
            raise DataError(f"Expected {width} cells in line {line} of '{path}' (got {len(cells)})")
        labels.append(cells[column].strip())
        if not labels[-1]:
            raise DataError(f"The class is empty in line {line}, column '{names[column]}' of '{path}'")
        features[place] = [_number(cell, line, names[i], path) for i, cell in enumerate(cells) if i != column]
    class_names, numbers = _number_classes(labels)
    return RawData(
        train_inputs=features,
        train_labels=numbers,
        class_names=class_names,
        licence="unknown",
        source=str(path),
    )


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows with their line numbers, from 1."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read the table '{path}': {error}") from error
    if not rows:
        raise DataError(f"The table '{path}' is empty")
    return rows


def _header(cells: list[str]) -> list[str] | None:
    names = [cell.strip() for cell in cells]
    if any(name.lower() in _LABEL_NAMES for name in names):
        return names
    return None if any(_is_number(name) for name in names[:-1]) else names


def _label_column(header: list[str], path: Path) -> int:
    places = [place for place, name in enumerate(header) if name.lower() in _LABEL_NAMES]
    if len(places) > 1:
        raise DataError(f"Expected one column named 'label' or 'target' in '{path}' (got {len(places)})")
    return places[0] if places else len(header) - 1


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, line: int, column: str, path: Path) -> float:
    where = f"line {line}, column '{column}' of '{path}'"
    if not _is_number(cell):
        raise DataError(f"Expected a number in {where} (got {cell[:40]!r})")
    value = float(cell)
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        raise DataError(
            f"Expected a finite 32-bit number in {where} (got {cell[:40]!r}). Fill or remove the row"
        )
    return value


def _number_classes(labels: list[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    distinct = set(labels)
    by_value = all(_is_number(label) for label in distinct)
    class_names = sorted(distinct, key=lambda label: (float(label), label) if by_value else (0.0, label))
    number = {name: place for place, name in enumerate(class_names)}
    return tuple(class_names), np.array([number[label] for label in labels])
