"""Tabular benchmarks: many graphs, and what was measured of each."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Shaped

from nasgraph.errors import UnknownNameError
from nasgraph.evaluate.table.packed import ARRAYS, PackedGraphs, compact, kinds_to_json, pack_graphs
from nasgraph.evaluate.table.records import SCHEMA, Metric, TableError, TableInfo, info_to_json
from nasgraph.files import canonical_json
from nasgraph.ir import ComputationalGraph

Array = np.ndarray
Column = Float[Array, " rows"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Keys:
    """A name for every row, such as the text of its architecture, as UTF-8 in one array.

    Attributes:
        text: All names, one after another.
        offset: Where each begins, and one last end.

    Raises:
        TableError: If the offsets do not fit, or two rows have one name.
    """

    text: Shaped[Array, "..."]
    offset: Shaped[Array, "..."]

    def __post_init__(self) -> None:
        if (
            self.text.dtype != np.uint8
            or self.offset.dtype.kind != "u"
            or self.text.ndim + self.offset.ndim != 2
        ):
            raise TableError("Expected keys as bytes, and their offsets as unsigned integers")
        if len(self.offset) < 1 or self.offset[0] != 0 or int(self.offset[-1]) != len(self.text):
            raise TableError(f"Expected the offsets of the keys to run from 0 to {len(self.text)}")
        if np.any(self.offset[1:] < self.offset[:-1]):
            raise TableError("Expected the offsets of the keys to rise")
        if len(self.row_of) < len(self):
            [(twice, _)] = Counter(self._all()).most_common(1)
            raise TableError(f"Two rows have the key '{twice.decode(errors='replace'):.200}'")

    def __len__(self) -> int:
        return len(self.offset) - 1

    @cached_property
    def row_of(self) -> Mapping[bytes, int]:
        """Rows by their names."""
        return {key: row for row, key in enumerate(self._all())}

    def key(self, row: int) -> str:
        """Name of a row. Raises `TableError` if it is not UTF-8."""
        try:
            return bytes(self.text[int(self.offset[row]) : int(self.offset[row + 1])]).decode()
        except UnicodeDecodeError as error:
            raise TableError(f"The key of row {row} is not UTF-8") from error

    def _all(self) -> Iterator[bytes]:
        text, offset = self.text.tobytes(), self.offset.tolist()
        return (text[start:end] for start, end in pairwise(offset))


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A tabular benchmark: rows of a graph and numbers. What it holds is never changed; its arrays may lie in a file.

    Whatever can be checked without looking at each graph is checked when a table is made: lengths, offsets, operators,
    names. A graph is checked when it is taken out. `verify` checks everything.

    Attributes:
        info: Name, metrics, source, licence.
        columns: One array per metric, with NaN where a value is missing.
        packed: The graphs.
        keys: A name for every row, if rows have names.
        sha256: Checksum that the file states; nothing for a table that is not from a file.

    Raises:
        TableError: If lengths differ, there are no rows, or a number is infinite.
    """

    info: TableInfo
    columns: Mapping[str, Shaped[Array, "..."]]
    packed: PackedGraphs
    keys: Keys | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        name = self.info.name
        if not len(self):
            raise TableError(f"The table '{name}' has no rows")
        if set(self.columns) != {metric.name for metric in self.info.metrics}:
            raise TableError(f"Expected one column per metric in the table '{name}'")
        for metric, column in self.columns.items():
            if column.shape != (len(self),) or column.dtype not in (np.float32, np.float64):
                raise TableError(
                    f"Expected '{metric}' of the table '{name}' as {len(self)} float32 or float64 "
                    f"(got {column.dtype} of shape {column.shape})"
                )
            if np.isinf(column).any():
                row = int(np.flatnonzero(np.isinf(column))[0])
                raise TableError(
                    f"Expected finite numbers or NaN for a missing one (got '{metric}' of row {row}: infinite)"
                )
        if self.keys is not None and len(self.keys) != len(self):
            raise TableError(
                f"Expected one key per row in the table '{name}' (got {len(self.keys)} for {len(self)})"
            )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.packed.row_graph)

    @property
    def num_graphs(self) -> int:
        """Number of graphs that are written down differently."""
        return len(self.packed)

    def metric(self, name: str) -> Metric:
        """What a column means. Raises `UnknownNameError` if there is none of that name."""
        return self.info.metric(name)

    def column(self, name: str) -> Column:
        """A metric of all rows, not to be written to. Raises `UnknownNameError` if there is none of that name."""
        return self.columns[self.info.metric(name).name]

    def row_of(self, key: str) -> int:
        """The row of a name.

        Raises:
            TableError: If rows have no names, or none has this one.
        """
        if self.keys is None:
            raise TableError(f"The rows of the table '{self.info.name}' have no keys")
        row = self.keys.row_of.get(key.encode(errors="surrogatepass"))
        if row is None:
            raise TableError(f"The table '{self.info.name}' has no row with the key '{key:.200}'")
        return row

    def key(self, row: int) -> str:
        """The name of a row. Raises `TableError` if rows have no names."""
        if self.keys is None:
            raise TableError(f"The rows of the table '{self.info.name}' have no keys")
        return self.keys.key(self._row(row))

    def value(self, row: int | str, metric: str) -> float:
        """One number: of a row, or of the row with a key. NaN if it is missing.

        Raises:
            TableError: If there is no such row.
            UnknownNameError: If there is no such metric.
        """
        place = self.row_of(row) if isinstance(row, str) else self._row(row)
        column = self.columns.get(metric)
        if column is None:
            raise UnknownNameError(f"metric in the table '{self.info.name}'", metric, self.columns)
        return float(column[place])

    def graph(self, row: int) -> ComputationalGraph:
        """The checked graph of a row. Raises `TableError` if there is no such row, or its graph is not valid."""
        return self.packed.graph(int(self.packed.row_graph[self._row(row)]))

    def graphs(
        self, rows: Sequence[int] | Shaped[Array, " chosen"] | None = None
    ) -> list[ComputationalGraph]:
        """The checked graphs of some rows, or of all. Rows with equal graphs share one object."""
        places = self.packed.row_graph
        chosen = places if rows is None else places[[self._row(int(row)) for row in rows]]
        made: dict[int, ComputationalGraph] = {}
        result = []
        for place in chosen.tolist():
            graph = made.get(place)
            if graph is None:
                graph = made[place] = self.packed.graph(place)
            result.append(graph)
        return result

    def fingerprint(self, row: int) -> str:
        """The fingerprint of a row's graph, as the table states it."""
        return f"{int(self.packed.fingerprint[self.packed.row_graph[self._row(row)]]):016x}"

    def rows_of_fingerprint(self, fingerprint: str) -> tuple[int, ...]:
        """All rows whose graphs have a fingerprint, rising; none if it is unknown or no fingerprint."""
        try:
            wanted = np.uint64(int(fingerprint, 16))
        except (ValueError, OverflowError):
            return ()
        rising, rows = self.packed.rows_by_fingerprint
        start, end = np.searchsorted(rising, wanted, "left"), np.searchsorted(rising, wanted, "right")
        return tuple(rows[start:end].tolist())

    def verify(self) -> None:
        """Check everything that opening leaves out: the checksum, every graph, every fingerprint, every key.

        Raises:
            TableError: For the first thing that is wrong.
        """
        if self.sha256 and self.sha256 != content_sha256(self):
            raise TableError(f"The table '{self.info.name}' has been changed: its checksum does not fit")
        for place in range(len(self.packed)):
            fingerprint = int(self.packed.graph(place).fingerprint, 16)
            if fingerprint != int(self.packed.fingerprint[place]):
                raise TableError(f"The fingerprint of graph {place} in the table '{self.info.name}' is wrong")
        if self.keys is not None:
            for row in range(len(self)):
                self.keys.key(row)

    def _row(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise TableError(f"The table '{self.info.name}' has rows 0 to {len(self) - 1} (got {row})")
        return row


def make_table(
    graphs: Sequence[ComputationalGraph],
    columns: Mapping[str, Column],
    info: TableInfo,
    *,
    keys: Sequence[str] | None = None,
) -> Table:
    """A table of graphs and numbers.

    Args:
        graphs: One checked graph per row.
        columns: One array per metric of `info`, NaN where a value is missing.
        info: Name, metrics, source, licence.
        keys: A name for every row, if rows have names; all different.

    Raises:
        TableError: If lengths differ, there are no rows, a number is infinite, or a key is repeated.
    """
    named = None
    if keys is not None:
        encoded = [key.encode() for key in keys]
        ends = np.cumsum([0, *map(len, encoded)])
        named = Keys(text=np.frombuffer(b"".join(encoded), dtype=np.uint8), offset=compact(ends))
    ordered = {
        metric.name: np.asarray(columns[metric.name]) for metric in info.metrics if metric.name in columns
    }
    return Table(
        info=info,
        columns={**ordered, **{n: c for n, c in columns.items() if n not in ordered}},
        packed=pack_graphs(graphs),
        keys=named,
    )


def tensors_of(table: Table) -> dict[str, Shaped[Array, "..."]]:
    """All arrays of a table by the names that they have in a file."""
    tensors = {f"graph.{name}": getattr(table.packed, name) for name in ARRAYS}
    if table.keys is not None:
        tensors |= {"key.text": table.keys.text, "key.offset": table.keys.offset}
    return tensors | {f"metric.{name}": column for name, column in table.columns.items()}


def header_of(table: Table) -> dict[str, object]:
    """What a file says about a table, without the checksum."""
    return {"schema": SCHEMA, **info_to_json(table.info), "kinds": kinds_to_json(table.packed.kinds)}


def content_sha256(table: Table) -> str:
    """Checksum of everything that a table holds; it does not depend on how a file is laid out."""
    digest = hashlib.sha256(canonical_json(header_of(table)).encode())
    for name, array in sorted(tensors_of(table).items()):
        digest.update(canonical_json([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
