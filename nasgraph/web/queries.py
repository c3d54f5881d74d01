"""Addresses of the table and the chart: reading what a reader asks for, and writing it back in the shortest form."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import cast
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from nasgraph.errors import ZooError
from nasgraph.modelzoo.catalogue import SORTS, Query
from nasgraph.modelzoo.names import parse_reference
from nasgraph.web.context import BadRequestError

ROWS_PER_PAGE = 50
MAX_PAGE = 1_000_000
MAX_TEXT = 200
DEFAULT_SORT = "accuracy"
FALLING = frozenset({"accuracy", "created"})
"""Sorted from the largest down unless the address says otherwise."""

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_NUMBER = re.compile(
    r"(?P<digits>[0-9][0-9_,]{0,20}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})\s*(?P<unit>[A-Za-z%]?)", re.ASCII
)
_TEXTS = ("data", "space", "kind", "task")


@dataclass(frozen=True, slots=True)
class TableState:
    """What the table shows.

    Attributes:
        query: Filters and order.
        page: Which page, from 1.
    """

    query: Query
    page: int = 1

    def url(self, path: str = "/", **changes: object) -> str:
        """The shortest address of this state with some fields of the query, or `page`, changed.

        A change of anything but the page leads to the first page.
        """
        state = {**query_fields(self.query), **changes}
        page = cast("int", state.pop("page", self.page if not changes else 1))
        parameters = _parameters(replace(self.query, **{k: v for k, v in state.items() if k in _FIELDS}))  # type: ignore[arg-type]
        if page > 1:
            parameters["page"] = str(page)
        return f"{path}?{urlencode(parameters)}" if parameters else path


_FIELDS = frozenset(field.name for field in fields(Query))


def query_fields(query: Query) -> dict[str, object]:
    """The fields of a query by name."""
    return {name: getattr(query, name) for name in sorted(_FIELDS)}


def parse_state(parameters: QueryParams) -> TableState:
    """Read the address of a table. Names that no table has are passed over.

    Raises:
        BadRequestError: If a value is not what its field takes, or a field comes twice. The message names the field.
    """
    sort = one_of(parameters, "sort", SORTS, default=DEFAULT_SORT)
    order = one_of(
        parameters, "order", ("rising", "falling"), default="falling" if sort in FALLING else "rising"
    )
    query = Query(
        text=text_of(parameters, "q") or "",
        **{name: text_of(parameters, name) for name in _TEXTS},
        min_accuracy=_share(parameters, "min_accuracy"),
        max_parameters=_count(parameters, "max_parameters"),
        max_multiply_adds=_count(parameters, "max_multiply_adds"),
        max_latency_ms=_positive(parameters, "max_latency_ms"),
        sort=sort,
        descending=order == "falling",
    )
    return TableState(query, int_of(parameters, "page", default=1, low=1, high=MAX_PAGE))


def single(parameters: QueryParams, name: str) -> str | None:
    """The value of a parameter, without white space around it; None if it is absent or empty.

    Raises:
        BadRequestError: If it comes twice.
    """
    values = parameters.getlist(name)
    if len(values) > 1:
        raise BadRequestError(f"Expected '{name}' once in the address (got it {len(values)} times)")
    return values[0].strip() or None if values else None


def text_of(parameters: QueryParams, name: str) -> str | None:
    """A short text; None if it is absent or empty. Raises `BadRequestError` if it is too long."""
    value = single(parameters, name)
    if value is not None and len(value) > MAX_TEXT:
        raise BadRequestError(f"Expected at most {MAX_TEXT} characters in '{name}' (got {len(value)})")
    return value


def one_of(parameters: QueryParams, name: str, known: "tuple[str, ...]", *, default: str) -> str:
    """One of some words. Raises `BadRequestError` for any other."""
    value = single(parameters, name) or default
    if value not in known:
        raise BadRequestError(f"Expected '{name}' to be one of {', '.join(known)} (got {value[:60]!r})")
    return value


def int_of(parameters: QueryParams, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number in a range. Raises `BadRequestError` for anything else."""
    value = single(parameters, name)
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not low <= int(value) <= high:
        raise BadRequestError(
            f"Expected '{name}' to be a whole number from {low} to {high} (got {value[:60]!r})"
        )
    return int(value)


def reference_of(text: str) -> str:
    """A checked reference to an entry, in its usual form.

    Raises:
        BadRequestError: If it is none.
    """
    try:
        return str(parse_reference(text))
    except ZooError as error:
        raise BadRequestError(str(error)) from error


def _number(parameters: QueryParams, name: str) -> tuple[float, str] | None:
    value = single(parameters, name)
    if value is None:
        return None
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise BadRequestError(
            f"Expected '{name}' to be a number such as 250000, 250k or 1.5M (got {value[:60]!r})"
        )
    return float(match["digits"].replace("_", "").replace(",", "")), match["unit"].lower()


def _count(parameters: QueryParams, name: str) -> int | None:
    found = _number(parameters, name)
    if found is None:
        return None
    number, unit = found
    if unit not in _UNITS or not number * _UNITS[unit] <= 1e18:
        raise BadRequestError(
            f"Expected '{name}' to be a number up to 1e18 with the unit k, M, G, T or none (got {number:g}{unit})"
        )
    return math.floor(number * _UNITS[unit])


def _share(parameters: QueryParams, name: str) -> float | None:
    found = _number(parameters, name)
    if found is None:
        return None
    number, unit = found
    share = number / 100 if unit == "%" or number > 1 else number
    if unit not in ("", "%") or share > 1:
        raise BadRequestError(f"Expected '{name}' to be a share such as 0.9 or 90% (got {number:g}{unit})")
    return share


def _positive(parameters: QueryParams, name: str) -> float | None:
    found = _number(parameters, name)
    if found is None:
        return None
    number, unit = found
    if unit or not 0 < number <= 1e9:
        raise BadRequestError(
            f"Expected '{name}' to be a number of milliseconds above 0 (got {number:g}{unit})"
        )
    return number


def _parameters(query: Query) -> dict[str, str]:
    """The parameters that differ from their defaults, in a fixed order."""
    found: dict[str, str] = {"q": query.text} if query.text else {}
    values = cast("Mapping[str, object]", query_fields(query))
    for name in (*_TEXTS, "min_accuracy", "max_parameters", "max_multiply_adds", "max_latency_ms"):
        value = values[name]
        if value is not None:
            found[name] = f"{value:.12g}" if isinstance(value, float) else str(value)
    if query.sort != DEFAULT_SORT:
        found["sort"] = query.sort
    if query.descending != (query.sort in FALLING):
        found["order"] = "falling" if query.descending else "rising"
    return found
