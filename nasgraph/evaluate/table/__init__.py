"""Tabular benchmarks as data: graphs with what was measured of each, in one documented file format."""

from nasgraph.evaluate.table.cells import graph_of_labelled_dag
from nasgraph.evaluate.table.convert import Conversion, convert, is_convertible
from nasgraph.evaluate.table.file import read_table, write_table
from nasgraph.evaluate.table.opening import open_table, table_names
from nasgraph.evaluate.table.records import Metric, TableError, TableInfo
from nasgraph.evaluate.table.table import Table, make_table

__all__ = [
    "Conversion",
    "Metric",
    "Table",
    "TableError",
    "TableInfo",
    "convert",
    "graph_of_labelled_dag",
    "is_convertible",
    "make_table",
    "open_table",
    "read_table",
    "table_names",
    "write_table",
]
