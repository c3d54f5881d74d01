"""What a tabular benchmark says about itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import cast

from nasgraph.errors import NasGraphError, UnknownNameError
from nasgraph.files import Json

SCHEMA = "nasgraph/table/1"
MAX_METRICS = 4096
MAX_TEXT = 100_000
MAX_NAME = 120


class TableError(NasGraphError, ValueError):
    """A table is damaged, has another form, or holds what a table must not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One column of numbers: what they mean.

    Attributes:
        name: Name of the column.
        higher_is_better: The direction; None if nobody has stated it, or neither end is better.
        unit: Such as `percent`, `fraction`, `ms`, `M`.
        split: Which examples it was measured on: `validation`, `test`, or nothing.
        protocol: How it was measured, in words: epochs, seeds, device.
        training_free: Whether it is known before training: sizes and zero-cost proxies. A predictor may look at it in every row.
        source: Where the numbers are from.
        licence: Their licence, or what is known about it.
    """

    name: str
    higher_is_better: bool | None = None
    unit: str = ""
    split: str = ""
    protocol: str = ""
    training_free: bool = False
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """What a table is, without its numbers.

    Attributes:
        name: Short name.
        metrics: Its columns, in order.
        description: What the rows are, in a few sentences.
        source: Where the table is from.
        licence: Licence of the table.
        train_metric: The column that predictors learn from unless told otherwise; nothing if there is no obvious one.
        test_metric: The column that they are judged by unless told otherwise.

    Raises:
        TableError: If names are empty, too long or repeated, or the default metrics are no columns.
    """

    name: str
    metrics: tuple[Metric, ...]
    description: str = ""
    source: str = ""
    licence: str = ""
    train_metric: str = ""
    test_metric: str = ""

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        for name in (self.name, *names):
            if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
                raise TableError(
                    f"Expected names of a table and its metrics of 1 to {MAX_NAME} printable characters (got {name!r:.140})"
                )
        repeated = (
            sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        )
        if repeated:
            raise TableError(f"The table '{self.name}' has two metrics named '{repeated[0]}'")
        for role in ("train_metric", "test_metric"):
            if getattr(self, role) and getattr(self, role) not in names:
                raise TableError(
                    f"The table '{self.name}' names '{getattr(self, role):.80}' as its '{role}' but has no such metric"
                )

    def metric(self, name: str) -> Metric:
        """The column of a name. Raises `UnknownNameError` if there is none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise UnknownNameError(
            f"metric in the table '{self.name}'", name, [metric.name for metric in self.metrics]
        )


def info_to_json(info: TableInfo) -> dict[str, object]:
    """The facts as plain values. `info_from_json` reads them back equal."""
    plain = {field.name: getattr(info, field.name) for field in fields(info)}
    metrics = [
        {field.name: getattr(metric, field.name) for field in fields(metric)} for metric in info.metrics
    ]
    return {**plain, "metrics": metrics}


def info_from_json(value: Mapping[str, Json], *, source: str) -> TableInfo:
    """The facts of a file that may come from a stranger. Fields may be missing, but none may be unknown.

    Raises:
        TableError: If a field is unknown or of another type.
    """
    metrics = value.get("metrics", [])
    if not isinstance(metrics, list) or len(metrics) > MAX_METRICS:
        raise TableError(f"Expected 'metrics' in {source} to be a list of at most {MAX_METRICS:,}")
    texts = _texts(value, TableInfo, "the table", source, other=("metrics",))
    return TableInfo(metrics=tuple(_metric(item, source) for item in metrics), **texts)


def _metric(value: Json, source: str) -> Metric:
    if not isinstance(value, dict):
        raise TableError(f"Expected each metric in {source} to be an object (got {type(value).__name__})")
    higher, free = value.get("higher_is_better"), value.get("training_free", False)
    if not (higher is None or isinstance(higher, bool)) or not isinstance(free, bool):
        raise TableError(
            f"Expected 'higher_is_better' and 'training_free' of a metric in {source} to be true or false"
        )
    texts = _texts(value, Metric, "a metric", source, other=("higher_is_better", "training_free"))
    return Metric(higher_is_better=higher, training_free=free, **texts)


def _texts(
    value: Mapping[str, Json], of: type[TableInfo | Metric], what: str, source: str, *, other: Sequence[str]
) -> dict[str, str]:
    """The text fields of an object, checked."""
    known = [field.name for field in fields(of)]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise TableError(f"Unknown field {unknown[0]!r:.80} of {what} in {source}")
    texts = {name: text for name, text in value.items() if name not in other}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise TableError(f"Expected '{name}' of {what} in {source} to be text (got {text!r:.80})")
    if "name" not in texts:
        raise TableError(f"Expected {what} in {source} to have a 'name'")
    return cast("dict[str, str]", texts)
