"""The drawing of an architecture on a page: parts that open and close, and details of its operators."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, cast, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup
from starlette.datastructures import QueryParams

from nasgraph.draw.interactive import (
    Detail,
    InteractiveDrawing,
    View,
    draw_interactive,
    opened_of,
    opened_text,
)
from nasgraph.draw.theme import page_style
from nasgraph.errors import ZooError
from nasgraph.ir import ComputationalGraph
from nasgraph.web.context import BadRequestError, WebContext
from nasgraph.web.operators import operator_facts
from nasgraph.web.parts import part_page
from nasgraph.web.queries import one_of, reference_of, single
from nasgraph.web.words import entry_url

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row

MAX_REMEMBERED = 64
MAX_DETAILS = 24
"""Operators that are described at once."""
MAX_TABLE_ROWS = 1500
_DETAILS: tuple[tuple[Detail, str], ...] = (
    ("overview", "Overview"),
    ("chains", "Blocks"),
    ("operators", "Operators"),
)
_NODES = re.compile(r"[0-9]{1,6}(,[0-9]{1,6}){0,199}", re.ASCII)


class GraphMemory:
    """Graphs of entries that were looked at lately. A version never changes, so what is remembered stays true.

    Args:
        context: With the zoo that they are read from.
    """

    def __init__(self, context: WebContext) -> None:
        self._zoo = context.zoo
        self._known: OrderedDict[tuple[str, str], ComputationalGraph] = OrderedDict()
        self._lock = Lock()

    def of(self, row: "Row") -> ComputationalGraph:
        """The graph of a model.

        Raises:
            ZooError: If it is no model, or its file has vanished or is damaged.
        """
        key = (row.reference, row.fingerprint)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        if row.card is None:
            raise ZooError(f"'{row.reference}' is no model with a readable card, and has no drawing")
        graph = self._zoo.graph(row.reference)
        with self._lock:
            self._known[key] = graph
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A way to draw, and the address of the page that draws so."""

    words: str
    url: str
    is_current: bool


def view_of(parameters: QueryParams) -> View:
    """Read what a reader wants to see from an address.

    Raises:
        BadRequestError: If it is nothing that can be drawn.
    """
    detail = one_of(parameters, "detail", ("", *get_args(Detail)), default="")
    opened = single(parameters, "open")
    try:
        return View(
            detail=cast("Detail", detail) if detail else None,
            opened=None if opened is None else opened_of(opened),
        )
    except ValueError as error:
        raise BadRequestError(str(error)) from error


def drawing_values(row: "Row", graph: ComputationalGraph, parameters: QueryParams) -> dict[str, object]:
    """What `_drawing.html` needs."""
    view = view_of(parameters)
    page = entry_url(row.reference)

    def link(opened: frozenset[int]) -> str:
        named = {"detail": view.detail} if view.detail else {}
        return f"{page}?{urlencode({**named, 'open': opened_text(opened)})}#drawing"

    drawing = draw_interactive(graph, view, link=link, label=f"Architecture of {row.name}")
    return {
        "drawing": drawing,
        "picture": Markup(drawing.svg),
        "choices": _choices(drawing, graph, page),
        "row": row,
    }


def _choices(drawing: InteractiveDrawing, graph: ComputationalGraph, page: str) -> list[Choice]:
    is_small = drawing.detail != "overview" and len(graph) <= 60
    return [
        Choice(words=words, url=f"{page}?detail={detail}#drawing", is_current=detail == drawing.detail)
        for detail, words in _DETAILS
        if not (is_small and detail == "overview")
    ]


def drawing_routes(context: WebContext, memory: GraphMemory) -> APIRouter:
    """Fragments for the entry page, and the style sheet of all pictures."""
    router = APIRouter(include_in_schema=False)

    @router.get("/drawing.css")
    def style() -> Response:
        headers = {"cache-control": "no-cache"}
        return Response(page_style(), media_type="text/css; charset=utf-8", headers=headers)

    @router.get("/drawing/{reference:path}")
    def drawing(request: Request, reference: str) -> Response:
        row = context.current().row(reference_of(reference))
        values = drawing_values(row, memory.of(row), request.query_params)
        return part_page(context, request, "_drawing.html", values, row=row, title="Architecture")

    @router.get("/operators/{reference:path}")
    def operators(request: Request, reference: str) -> Response:
        row = context.current().row(reference_of(reference))
        graph = memory.of(row)
        nodes = _nodes_of(single(request.query_params, "nodes") or "", graph)
        facts = operator_facts(graph, nodes[:MAX_DETAILS])
        values: dict[str, object] = {"facts": facts, "num_more": len(nodes) - len(facts)}
        return part_page(context, request, "_operators.html", values, row=row, title="Operators")

    return router


def _nodes_of(text: str, graph: ComputationalGraph) -> list[int]:
    if not _NODES.fullmatch(text):
        raise BadRequestError(f"Expected numbers of nodes such as '3,7' in 'nodes' (got {text[:60]!r})")
    nodes = list(map(int, text.split(",")))
    if max(nodes) >= len(graph):
        raise BadRequestError(f"Expected nodes from 0 to {len(graph) - 1} (got {max(nodes)})")
    return nodes
