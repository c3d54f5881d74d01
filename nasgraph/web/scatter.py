"""The chart: accuracy against cost, with the models that nothing beats in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from nasgraph.web.context import WebContext
from nasgraph.web.queries import TableState, one_of, parse_state
from nasgraph.web.words import entry_url

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

    from nasgraph.modelzoo.catalogue import Row

COSTS = {"num_parameters": "Parameters", "multiply_adds": "Multiply-adds", "latency_ms": "Latency (ms)"}
COLOURS = ("space", "data", "kind")
MAX_POINTS = 20_000
"""Points that are sent; of more, the ones that others beat most are left out, and the page says so."""


@dataclass(frozen=True, slots=True)
class ChartState:
    """What the chart shows.

    Attributes:
        table: Filters, as in the table.
        x: Cost on the x-axis.
        scale: "log" or "linear", of the x-axis.
        y: "accuracy", or "error" on a logarithmic axis.
        colour: Column whose values have colours.
    """

    table: TableState
    x: str
    scale: str
    y: str
    colour: str


@dataclass(frozen=True, slots=True)
class Points:
    """What a chart draws.

    Attributes:
        rows: Entries with both values, the cheapest first.
        best: Places in `rows` of those that no other is at least as good as in both, and better in one.
        num_unknown: Entries that fit and lack one of the values.
        num_left_out: Entries that are not drawn because there are too many.
    """

    rows: "Sequence[Row]"
    best: tuple[int, ...]
    num_unknown: int
    num_left_out: int


def routes(context: WebContext) -> APIRouter:
    """`/scatter`, and its points as JSON at `/api/points`."""
    router = APIRouter()

    @router.get("/scatter", include_in_schema=False)
    def scatter(request: Request) -> Response:
        state = parse_chart(request.query_params)
        points = chart_points(context.find(state.table.query), state.x)
        values = {
            "chart": state,
            "costs": COSTS,
            "colours": COLOURS,
            "points": points,
            "best": [points.rows[place] for place in points.best],
            "fields": filter_fields(state.table),
        }
        return context.page(request, "scatter.html", values)

    @router.get("/api/points", summary="Accuracy against cost of all entries that fit all conditions")
    def points(request: Request) -> JSONResponse:
        """Takes the filters of `/api/entries`, and `x`: `num_parameters`, `multiply_adds` or `latency_ms`. `best` are the
        places of the entries that no other beats."""
        state = parse_chart(request.query_params)
        found = chart_points(context.find(state.table.query), state.x)
        return JSONResponse(
            {
                "reference": [row.reference for row in found.rows],
                "url": [entry_url(row.reference) for row in found.rows],
                "x": [getattr(row, state.x) for row in found.rows],
                "accuracy": [row.accuracy for row in found.rows],
                "group": [getattr(row, state.colour) or "" for row in found.rows],
                "best": found.best,
                "unknown": found.num_unknown,
                "left_out": found.num_left_out,
            }
        )

    return router


def parse_chart(parameters: "QueryParams") -> ChartState:
    """Read the address of a chart. Raises `BadRequestError` for what is no chart."""
    return ChartState(
        table=parse_state(parameters),
        x=one_of(parameters, "x", tuple(COSTS), default="num_parameters"),
        scale=one_of(parameters, "scale", ("log", "linear"), default="log"),
        y=one_of(parameters, "y", ("accuracy", "error"), default="accuracy"),
        colour=one_of(parameters, "colour", COLOURS, default="space"),
    )


def filter_fields(state: TableState) -> dict[str, str]:
    """The filters of a table as fields of a form, without order and page."""
    from urllib.parse import parse_qsl

    address = state.url(sort="accuracy", descending=True)
    return dict(parse_qsl(address.partition("?")[2]))


def chart_points(rows: "Sequence[Row]", cost: str, *, most: int = MAX_POINTS) -> Points:
    """The rows that have an accuracy and that cost, and which of them are the best.

    Args:
        rows: Entries that fit.
        cost: Name of the column.
        most: Rows that are kept. The best are always kept, and of the others those least below the best of their cost.
    """
    known = [row for row in rows if row.accuracy is not None and (getattr(row, cost) or 0) > 0]
    known.sort(key=lambda row: (getattr(row, cost), -(row.accuracy or 0.0), row.reference))
    best, below, top = set(), [], float("-inf")
    for place, row in enumerate(known):
        accuracy = row.accuracy or 0.0
        if accuracy > top:
            best.add(place)
            top = accuracy
        below.append((top - accuracy, place))
    kept = (
        sorted(place for _, place in sorted(below)[: max(most, len(best))])
        if len(known) > most
        else range(len(known))
    )
    chosen = [known[place] for place in kept]
    places = tuple(new for new, old in enumerate(kept) if old in best)
    return Points(chosen, places, len(rows) - len(known), len(known) - len(chosen))
