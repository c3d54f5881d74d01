"""The table of all entries: filter, sort, search, page through; every state of it has an address."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from nasgraph.web.context import WebContext
from nasgraph.web.facts import row_facts
from nasgraph.web.queries import FALLING, ROWS_PER_PAGE, TableState, parse_state, reference_of

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row


@dataclass(frozen=True, slots=True)
class Column:
    """A column that sorts.

    Attributes:
        sort: Name of the order.
        title: Its heading.
        is_number: Whether it is set to the right.
        first: Whether a first click sorts from the largest down.
    """

    sort: str
    title: str
    is_number: bool = False

    @property
    def first(self) -> bool:
        return self.sort in FALLING


COLUMNS = (
    Column("name", "Model"),
    Column("data", "Data"),
    Column("space", "Space"),
    Column("accuracy", "Test accuracy", is_number=True),
    Column("num_parameters", "Parameters", is_number=True),
    Column("multiply_adds", "Multiply-adds", is_number=True),
    Column("latency_ms", "Latency", is_number=True),
    Column("created", "Created", is_number=True),
)


def routes(context: WebContext) -> APIRouter:
    """`/`, and the same as JSON below `/api/entries`."""
    router = APIRouter()
    facets = Facets()

    @router.get("/", include_in_schema=False)
    def table(request: Request) -> Response:
        state = parse_state(request.query_params)
        found = context.find(state.query)
        state = TableState(state.query, min(state.page, num_pages(len(found))))
        values = {
            "state": state,
            "columns": COLUMNS,
            "rows": page_of(found, state.page),
            "num_found": len(found),
            "num_all": len(context.catalogue.rows),
            "num_pages": num_pages(len(found)),
            "first": (state.page - 1) * ROWS_PER_PAGE,
            "pages": neighbours(state.page, num_pages(len(found))),
        }
        if is_fragment(request):
            answer = context.page(request, "_rows.html", {**values, "is_fragment": True})
            answer.headers["hx-push-url"] = state.url()
        else:
            values = {**values, "is_fragment": False, "facets": facets.of(context.catalogue.rows)}
            answer = context.page(request, "table.html", values)
        answer.headers["vary"] = "HX-Request"
        return answer

    @router.get("/api/entries", summary="Entries that fit all conditions, a page of 50 at a time")
    def entries(request: Request) -> JSONResponse:
        """Takes the parameters of the table: `q`, `data`, `space`, `kind`, `task`, `min_accuracy`, `max_parameters`,
        `max_multiply_adds`, `max_latency_ms`, `sort`, `order` (`rising` or `falling`) and `page`."""
        state = parse_state(request.query_params)
        found = context.find(state.query)
        return JSONResponse(
            {
                "entries": [row_facts(row) for row in page_of(found, state.page)],
                "found": len(found),
                "page": state.page,
                "pages": num_pages(len(found)),
            }
        )

    @router.get("/api/entries/{reference:path}", summary="One entry with its card")
    def entry(reference: str) -> JSONResponse:
        """`reference` is `name`, `name/3` or `name@alias`."""
        from json import loads

        from nasgraph.modelzoo.card import card_to_json

        row = find_row(context, reference)
        card = None if row.card is None else loads(card_to_json(row.card))
        return JSONResponse({**row_facts(row), "card": card})

    return router


def find_row(context: WebContext, reference: str) -> "Row":
    """The row of an entry that a stranger names.

    Raises:
        BadRequestError: If it is no reference.
        UnknownNameError: If there is no such entry.
    """
    return context.current().row(reference_of(reference))


def is_fragment(request: Request) -> bool:
    """Whether htmx asks for a part of the page. When the reader goes back, it asks for the whole page."""
    headers = request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"


def num_pages(num_rows: int) -> int:
    """How many pages so many rows take, at least 1."""
    return max(1, -(-num_rows // ROWS_PER_PAGE))


def page_of(rows: "Sequence[Row]", page: int) -> "Sequence[Row]":
    """The rows of a page, counted from 1."""
    return rows[(page - 1) * ROWS_PER_PAGE : page * ROWS_PER_PAGE]


def neighbours(page: int, last: int) -> list[int | None]:
    """Pages to offer links to: the first, the last and those around this one, with None where some are left out."""
    wanted = sorted({1, last, *range(max(1, page - 2), min(last, page + 2) + 1)})
    found: list[int | None] = []
    for number in wanted:
        if found and number - (found[-1] or 0) > 1:
            found.append(None)
        found.append(number)
    return found


class Facets:
    """The values that each filter may take, with how often they occur; counted once per state of the catalogue."""

    def __init__(self) -> None:
        self._known: tuple[Sequence[Row], dict[str, list[tuple[str, int]]]] | None = None

    def of(self, rows: "Sequence[Row]") -> dict[str, list[tuple[str, int]]]:
        """Values and counts by the name of the filter, the most frequent first."""
        if self._known is None or self._known[0] is not rows:
            self._known = rows, {name: _counts(rows, value) for name, value in _FACETS.items()}
        return self._known[1]


_FACETS: "dict[str, Callable[[Row], str | None]]" = {
    "data": lambda row: row.data,
    "space": lambda row: row.space,
    "task": lambda row: row.task,
    "kind": lambda row: row.kind,
}


def _counts(rows: "Sequence[Row]", value: "Callable[[Row], str | None]") -> list[tuple[str, int]]:
    counts = Counter(map(value, rows))
    return sorted(
        ((text, count) for text, count in counts.items() if text), key=lambda item: (-item[1], item[0])
    )
