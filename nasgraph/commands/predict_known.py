"""Where `nasgraph predict` learns from: a zoo entry, a folder, or any table."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasgraph.commands.options import WrongUsageError
from nasgraph.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    from nasgraph.evaluate.table import Metric, Table
    from nasgraph.predict import KnownPerformance

SHIPPED = "performance-cifar10"


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """Measured architectures to learn from.

    Attributes:
        name: What they are called in results.
        known: The architectures.
        remarks: What a user should know, one sentence each.
        table: The table that they are from, if they are.
    """

    name: str
    known: "KnownPerformance"
    remarks: tuple[str, ...] = ()
    table: "Table | None" = None


def find_known(wanted: str) -> Labels | None:
    """A shipped entry of kind "performance" by its name, or a folder; None for "none".

    Raises:
        UnknownNameError: If there is neither.
        CheckpointError: If it cannot be read.
    """
    from nasgraph.modelzoo.builtin import builtin_entries
    from nasgraph.predict import KnownPerformance

    if wanted == "none":
        return None
    shipped = {e.name: e.path for e in builtin_entries().values() if e.kind == "performance"}
    folder = shipped.get(wanted, Path(wanted))
    if not folder.is_dir():
        raise UnknownNameError("known performance", wanted, shipped, hint="A folder works, too.")
    return Labels(name=folder.name, known=KnownPerformance.load(folder))


def labels_of_table(text: str, *, max_labels: int, seed: int) -> Labels:
    """Learn from a table.

    Rows are drawn at random; those in which the metric is missing are left out, and of those with equal graphs the mean counts.

    Args:
        text: Name or path of the table, and after a colon the metric, unless there is an obvious one.
        max_labels: Rows at most.
        seed: Draws them.

    Raises:
        WrongUsageError: If no metric is named and none is obvious.
        UnknownNameError: If there is no such table or metric.
        TableError: If the table is damaged.
        DataError: If fewer than eight rows are labelled, or all alike.
    """
    import numpy as np

    from nasgraph.predict import GraphFeatures, KnownPerformance, PerformanceMetric
    from nasgraph.seeding import generator

    table, metric = _table_and_metric(text)
    column = np.asarray(table.column(metric.name), dtype=np.float64)
    labelled = np.flatnonzero(~np.isnan(column))
    remarks = []
    if len(labelled) < len(table):
        remarks.append(
            f"'{metric.name}' is missing in {len(table) - len(labelled):,} of {len(table):,} rows, which are left out"
        )
    if len(labelled) > max_labels:
        remarks.append(f"{max_labels:,} of {len(labelled):,} labelled rows are used, drawn by seed {seed}")
        labelled = np.sort(generator(seed, "labels").permutation(labelled)[:max_labels])
    if metric.higher_is_better is None:
        remarks.append(f"Nobody said which end of '{metric.name}' is better; higher is taken to be")
    by_fingerprint: dict[str, list[int]] = {}
    for row in labelled.tolist():
        by_fingerprint.setdefault(table.fingerprint(row), []).append(row)
    if len(by_fingerprint) < len(labelled):
        remarks.append(
            f"{len(labelled):,} rows have {len(by_fingerprint):,} distinct graphs; the mean of equal ones counts"
        )
    first = [rows[0] for rows in by_fingerprint.values()]
    graphs = table.graphs(first)
    if not graphs:
        raise DataError(f"'{metric.name}' of the table '{table.info.name}' is missing in every row")
    try:
        known = KnownPerformance.of(
            graphs,
            [float(column[rows].mean()) for rows in by_fingerprint.values()],
            metric=PerformanceMetric(
                name=metric.name,
                unit=metric.unit,
                data=table.info.name,
                protocol=metric.protocol,
                higher_is_better=metric.higher_is_better is not False,
            ),
            keys=[f"row {row}" if table.keys is None else table.key(row) for row in first],
            features=GraphFeatures.of(graphs),
            source=metric.source or table.info.source,
        )
    except DataError as error:
        raise DataError(f"Cannot learn '{metric.name}' of the table '{table.info.name}': {error}") from error
    return Labels(name=table.info.name, known=known, remarks=tuple(remarks), table=table)


def _table_and_metric(text: str) -> "tuple[Table, Metric]":
    from nasgraph.evaluate.table import open_table, table_names

    whole = text in table_names() or Path(text).is_file()
    name, colon, wanted = (text, "", "") if whole else text.rpartition(":")
    table = open_table(name if colon or whole else text)
    if colon:
        return table, table.metric(wanted)
    obvious = table.info.test_metric or table.info.train_metric
    if not obvious and len(table.info.metrics) == 1:
        obvious = table.info.metrics[0].name
    if not obvious:
        names = ", ".join(metric.name for metric in table.info.metrics)
        raise WrongUsageError(
            f"The table '{table.info.name}' has several metrics; name one as '--labels {text}:METRIC': {names:.300}"
        )
    return table, table.metric(obvious)
