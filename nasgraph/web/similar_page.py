"""Models whose architecture is most like that of another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from nasgraph.errors import ZooError
from nasgraph.modelzoo.questions import Similar
from nasgraph.web.context import WebContext
from nasgraph.web.facts import row_facts
from nasgraph.web.queries import int_of
from nasgraph.web.table_page import find_row

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row

MOST = 12
MAX_API = 200


def routes(context: WebContext) -> APIRouter:
    """`/similar/<reference>`, and the same as JSON."""
    router = APIRouter()

    @router.get("/similar/{reference:path}", include_in_schema=False)
    def similar(request: Request, reference: str) -> Response:
        row = find_row(context, reference)
        return context.page(
            request, "similar.html", {"row": row, "found": find_like(context, row, most=MOST)}
        )

    @router.get(
        "/api/similar/{reference:path}", summary="Models whose architecture is most like that of an entry"
    )
    def similar_json(request: Request, reference: str) -> JSONResponse:
        """`most` is the length of the answer, up to 200. `score` is the cosine of the angle between both embeddings."""
        row = find_row(context, reference)
        most = int_of(request.query_params, "most", default=MOST, low=1, high=MAX_API)
        found = find_like(context, row, most=most)
        return JSONResponse(
            {
                "entry": row.reference,
                "similar": [{**row_facts(item.row), "score": item.score} for item in found],
            }
        )

    return router


def find_like(context: WebContext, row: "Row", *, most: int) -> Sequence[Similar]:
    """Newest versions of other models by similarity, the most similar first.

    Stored embeddings are compared where there are any, which takes milliseconds; otherwise the entries are embedded first.

    Raises:
        ZooError: If the entry is no model, or no encoder of architectures is installed.
    """
    if row.card is None:
        raise ZooError(f"'{row.reference}' is no model: nothing can be similar to it")
    if row.embedding is None:
        return context.zoo.similar(row.reference, most=most)
    others = [
        other for other in context.catalogue.rows if other.embedding is not None and other.name != row.name
    ]
    if not others:
        return ()
    vectors = np.stack([other.embedding for other in others if other.embedding is not None])
    scores = np.round(vectors @ row.embedding, 6)
    order = sorted(
        np.argpartition(-scores, min(most, len(others)) - 1)[:most].tolist(),
        key=lambda i: (-scores[i], others[i].name),
    )
    return tuple(Similar(others[i], float(scores[i])) for i in order)
