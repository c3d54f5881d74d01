"""Tables from CSV and JSON Lines files: one row per line, one graph and some numbers in each."""

import csv
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nasgraph.errors import NasGraphError
from nasgraph.evaluate.table.cells import architecture_of_cell, graph_of_cell
from nasgraph.evaluate.table.records import Metric, TableError, TableInfo
from nasgraph.evaluate.table.table import Column, Table, make_table
from nasgraph.files import MAX_JSON_BYTES, Json, canonical_json, parse_json
from nasgraph.ir import ComputationalGraph
from nasgraph.spaces import SearchSpace

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
MAX_LINES = 5_000_000
MAX_CELLS = 200_000_000
MAX_TEXT_BYTES = 8 * 2**30
"""Of an unpacked file: what is longer is a mistake, or a compressed bomb."""
MISSING = frozenset({"", "nan", "null", "none", "na", "n/a"})
GRAPH, ARCHITECTURE, KEY = "graph", "architecture", "key"
_TRUTH = {"true": 1.0, "false": 0.0}
Row = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A table, and what was noticed on the way.

    Attributes:
        table: The table.
        num_distinct: Graphs that differ by more than the order of their nodes.
        ignored: Columns that hold text.
        num_repeated: Rows whose graph an earlier row has, too.
        num_conflicting: Graphs that stand in several rows with different numbers.
        keys_dropped: Whether architectures are repeated, so that they cannot be keys.
    """

    table: Table
    num_distinct: int
    ignored: tuple[str, ...] = ()
    num_repeated: int = 0
    num_conflicting: int = 0
    keys_dropped: bool = False

    def warnings(self) -> list[str]:
        """What a user should know, in one sentence each."""
        said = []
        if self.ignored:
            said.append(f"Columns of text are left out: {', '.join(self.ignored)}")
        if self.num_repeated:
            said.append(
                f"{self.num_repeated:,} rows have the graph of an earlier row; "
                f"{self.num_conflicting:,} graphs stand with different numbers"
            )
        if self.keys_dropped:
            said.append("Architectures are repeated, so rows have no keys")
        for name, column in self.table.columns.items():
            missing, present = int(np.isnan(column).sum()), column[~np.isnan(column)]
            if missing:
                said.append(f"'{name}' is missing in {missing:,} of {len(column):,} rows")
            if len(present) and (present == present[0]).all():
                said.append(f"'{name}' is constant: {present[0]:g}")
        return said


def convert(
    path: Path,
    *,
    name: str | None = None,
    description: str = "",
    directions: Mapping[str, bool | None] | None = None,
    space: SearchSpace | None = None,
) -> Conversion:
    """Read a CSV or JSON Lines file, packed with gzip or not, as a table.

    Columns: `graph` (or, with `space`, `architecture`), optionally `key`, a name for each row; every other column whose
    first value is a number is a metric. In JSON Lines the metrics may also stand in an object `metrics`.

    Args:
        path: File with a suffix in `SUFFIXES`.
        name: Name of the table; if not given, that of the file.
        description: What the rows are.
        directions: Metrics to keep, with whether higher is better. If not given: all, with no direction stated.
        space: Builds graphs from the column `architecture`, where there is no column `graph`.

    Raises:
        TableError: If the file is missing, empty, of another form, or a cell is wrong. The message names the line.
    """
    columns, lines = _read(path)
    graphs, keys, dropped = _graphs(columns, lines, space, f"'{path}'"), *_keys(columns, lines)
    numbers, ignored = _numbers(columns, lines, None if directions is None else list(directions), f"'{path}'")
    stem = path.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        stem = stem.removesuffix(suffix)
    info = TableInfo(
        name=name or stem,
        description=description,
        source=path.name,
        metrics=tuple(Metric(name=each, higher_is_better=(directions or {}).get(each)) for each in numbers),
    )
    if len(numbers) == 1:
        info = replace(info, train_metric=info.metrics[0].name, test_metric=info.metrics[0].name)
    table = make_table(graphs, numbers, info, keys=keys)
    repeated, conflicting = _repeats(table)
    return Conversion(
        table=table,
        num_distinct=len(table) - repeated,
        ignored=tuple(ignored),
        num_repeated=repeated,
        num_conflicting=conflicting,
        keys_dropped=dropped,
    )


def is_convertible(path: Path) -> bool:
    """Whether a file has a name that `convert` takes."""
    return path.name.endswith(SUFFIXES)


# ---- reading lines


@dataclass(frozen=True, slots=True)
class _Columns:
    """A file, column by column. Every column has one cell per line; a cell that is missing is None."""

    lines: list[int] = field(default_factory=list)
    cells: dict[str, list[Json]] = field(default_factory=dict)

    def add(self, line: int, row: Row) -> None:
        for name in row:
            if name not in self.cells:
                self.cells[name] = [None] * len(self.lines)
        self.lines.append(line)
        if len(self.lines) > MAX_LINES or len(self.lines) * len(self.cells) > MAX_CELLS:
            raise TableError(f"Expected at most {MAX_LINES:,} rows and {MAX_CELLS:,} cells")
        for name, cells in self.cells.items():
            cells.append(row.get(name))


def _read(path: Path) -> tuple[dict[str, list[Json]], list[int]]:
    """Columns by name, and the number of the line that each row stands in."""
    if not is_convertible(path):
        raise TableError(f"Expected a file with one of {', '.join(SUFFIXES)} (got '{path}')")
    table = _Columns()
    rows = _csv_rows(path) if path.name.removesuffix(".gz").endswith(".csv") else _json_rows(path)
    try:
        for line, row in rows:
            table.add(line, row)
    except (OSError, EOFError) as error:  # a packed file that is cut off raises EOFError
        raise TableError(f"Cannot read '{path}': {error}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"Expected UTF-8 text in '{path}': {error}") from error
    if not table.lines:
        raise TableError(f"Expected at least one row in '{path}'")
    return table.cells, table.lines


def _text_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, bounded each and in all."""
    total = 0
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
        while line := file.readline(MAX_JSON_BYTES + 1):
            total += len(line)
            if len(line) > MAX_JSON_BYTES or total > MAX_TEXT_BYTES:
                raise TableError(
                    f"Expected lines of at most {MAX_JSON_BYTES:,} bytes and {MAX_TEXT_BYTES:,} in all in '{path}'"
                )
            yield line.decode("utf-8-sig" if total == len(line) else "utf-8")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields of a CSV file be as long as a graph is. The limit is one of the process; it is put back."""
    before = csv.field_size_limit(MAX_JSON_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with _long_fields():
        reader = csv.reader(_text_lines(path), strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            if len(set(names)) < len(names) or "" in names:
                raise TableError(f"Expected the first line of '{path}' to name the columns, all differently")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise TableError(
                        f"Line {reader.line_num} of '{path}': expected {len(names)} cells (got {len(cells)})"
                    )
                yield reader.line_num, dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise TableError(f"Line {reader.line_num} of '{path}' is no CSV: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for line, text in enumerate(_text_lines(path), start=1):
        if not text.strip():
            continue
        value = _parse_row(text, f"line {line} of '{path}'")
        metrics = value.pop("metrics", {})
        if not isinstance(metrics, dict) or set(metrics) & set(value):
            raise TableError(
                f"Line {line} of '{path}': expected 'metrics' as an object with names of its own"
            )
        yield line, {**value, **metrics}


def _parse_row(text: str, source: str) -> dict[str, Json]:
    """An object of one line. NaN, which Python writes though JSON has none, is a missing value here."""
    try:
        value = parse_json(text, source=source)
    except NasGraphError as error:
        if "NaN is not a JSON number" not in str(error):
            raise TableError(str(error)) from error
        value = json.loads(text, parse_constant=lambda constant: None if constant == "NaN" else math.inf)
    if not isinstance(value, dict):
        raise TableError(f"Expected an object in {source} (got {type(value).__name__})")
    return value


# ---- columns


def _graphs(
    columns: Mapping[str, Sequence[Json]], lines: Sequence[int], space: SearchSpace | None, source: str
) -> list[ComputationalGraph]:
    """The graph of every row."""
    column = GRAPH if GRAPH in columns else ARCHITECTURE
    if column not in columns:
        raise TableError(
            f"Expected a column '{GRAPH}' (or '{ARCHITECTURE}') in {source} (got {', '.join(columns):.200})"
        )
    if column == ARCHITECTURE and space is None:
        raise TableError(
            f"The file {source} has architectures but no graphs. Make these with "
            f"'nasgraph bench convert --space NAME'"
        )
    known: dict[str, ComputationalGraph] = {}
    graphs = []
    for line, cell in zip(lines, columns[column], strict=True):
        text = cell if isinstance(cell, str) else canonical_json(cell)
        if text not in known:
            if cell is None or not text.strip():
                raise TableError(f"Line {line} of {source}: the cell '{column}' is empty")
            try:
                known[text] = (
                    graph_of_cell(text) if column == GRAPH else architecture_of_cell(text, _given(space))
                )
            except NasGraphError as error:
                raise TableError(f"Line {line} of {source}: {error}") from error
        graphs.append(known[text])
    return graphs


def _given(space: SearchSpace | None) -> SearchSpace:
    assert space is not None
    return space


def _keys(columns: Mapping[str, Sequence[Json]], lines: Sequence[int]) -> tuple[list[str] | None, bool]:
    """A name for every row, and whether there would be some but for repeated ones."""
    column = KEY if KEY in columns else ARCHITECTURE
    if column not in columns:
        return None, False
    keys = []
    for line, cell in zip(lines, columns[column], strict=True):
        if column == KEY and (cell is None or isinstance(cell, dict | list)):
            raise TableError(f"Line {line}: expected a key as text (got {cell!r:.60})")
        keys.append(cell if isinstance(cell, str) else canonical_json(cell))
    if column == ARCHITECTURE and len(set(keys)) < len(keys):
        return None, True
    return keys, False


def _numbers(
    columns: Mapping[str, Sequence[Json]], lines: Sequence[int], wanted: Sequence[str] | None, source: str
) -> tuple[dict[str, Column], list[str]]:
    """Columns of numbers, and the names of those that are text."""
    others = [name for name in columns if name not in (GRAPH, ARCHITECTURE, KEY)]
    for name in wanted or ():
        if name not in others:
            raise TableError(f"There is no metric '{name}' in {source}. Columns: {', '.join(others):.300}")
    found: dict[str, Column] = {}
    ignored = []
    for name in others if wanted is None else wanted:
        if wanted is None and _is_text(columns[name]):
            ignored.append(name)
            continue
        cells = zip(lines, columns[name], strict=True)
        values = [_number(cell, f"'{name}' in line {line} of {source}") for line, cell in cells]
        found[name] = _narrow(np.array(values))
    if not found:
        raise TableError(f"There is no column of numbers in {source}")
    return found, ignored


def _is_text(cells: Sequence[Json]) -> bool:
    """Whether the first cell that holds something is no number."""
    first = next((cell for cell in cells if not _is_missing(cell)), None)
    if isinstance(first, str):
        try:
            float(first)
        except ValueError:
            return first.strip().lower() not in _TRUTH
    return not isinstance(first, str | int | float)


def _is_missing(cell: Json) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING)


def _number(cell: Json, what: str) -> float:
    if _is_missing(cell):
        return math.nan
    if isinstance(cell, str) and cell.strip().lower() in _TRUTH:
        return _TRUTH[cell.strip().lower()]
    try:
        value = float(cell) if isinstance(cell, str | int | float) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise TableError(
            f"Expected a finite number for {what}, or nothing where it is missing (got {cell!r:.60})"
        )
    return value


def _narrow(values: Column) -> Column:
    """Single precision where it loses nothing, else double."""
    with np.errstate(over="ignore"):
        single: Column = values.astype(np.float32)
    return single if np.array_equal(single.astype(np.float64), values, equal_nan=True) else values


def _repeats(table: Table) -> tuple[int, int]:
    """Rows whose graph, up to the order of nodes, stands in an earlier row; graphs with several rows of different numbers."""
    rising, rows = table.packed.rows_by_fingerprint
    first = np.concatenate([[True], rising[1:] != rising[:-1]])
    group = np.cumsum(first) - 1
    differs = np.zeros(int(first.sum()), dtype=bool)
    leaders = rows[first][group]
    for column in table.columns.values():
        mine, leading = column[rows], column[leaders]
        unlike = (mine != leading) & ~(np.isnan(mine) & np.isnan(leading))
        np.logical_or.at(differs, group[unlike], True)
    return int((~first).sum()), int(differs.sum())
