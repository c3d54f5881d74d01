"""Parts of a page that the browser asks for later: a fragment for htmx, a page of their own for everybody else."""

from fastapi import Request
from fastapi.responses import HTMLResponse

from nasgraph.modelzoo.catalogue import Row
from nasgraph.web.context import WebContext
from nasgraph.web.table_page import is_fragment


def part_page(
    context: WebContext, request: Request, template: str, values: dict[str, object], *, row: Row, title: str
) -> HTMLResponse:
    """Render a part of the page of an entry.

    Args:
        context: With the templates.
        request: Says who asks.
        template: The part.
        values: What it needs, besides `row`.
        row: The entry.
        title: Heading of the part where it stands alone.
    """
    values = {**values, "row": row}
    if is_fragment(request):
        answer = context.page(request, template, values)
    else:
        answer = context.page(request, "part.html", {**values, "part": template, "title": title})
    answer.headers["vary"] = "HX-Request"
    return answer
