"""The application: all pages behind the guard."""

from collections.abc import Callable, Sequence
from typing import cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from nasgraph.web import (
    compare_page,
    data_page,
    entry_page,
    files,
    live_page,
    scatter,
    similar_page,
    table_page,
)
from nasgraph.web.context import WebContext, static_files
from nasgraph.web.errors import StatusError, add_error_pages, refusing
from nasgraph.web.security import Application, Guard, GuardRules

Routes = Callable[[WebContext], APIRouter]

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_PAGES: Sequence[Routes] = (
    table_page.routes,
    scatter.routes,
    compare_page.routes,
    entry_page.routes,
    similar_page.routes,
    data_page.routes,
    live_page.routes,
    files.routes,
)


def make_app(context: WebContext, *, rules: GuardRules | None = None) -> Guard:
    """The application over a zoo, as `uvicorn` and Starlette's `TestClient` run it.

    Args:
        context: What every page has at hand.
        rules: What the guard lets through; None: requests of this machine.
    """
    app = FastAPI(
        title="nasgraph zoo",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        redirect_slashes=False,
    )
    add_error_pages(app, context)
    app.include_router(_static_routes())
    for routes in _PAGES:
        app.include_router(routes(context))
    app.include_router(_interface_routes(context, app))
    rules = rules or GuardRules(token=context.token, max_body_bytes=context.settings.max_upload_bytes)
    return Guard(cast("Application", app), rules, refusing(context))


def _interface_routes(context: WebContext, app: FastAPI) -> APIRouter:
    """`/api`: what there is as JSON, in words."""
    router = APIRouter(include_in_schema=False)

    @router.get("/api")
    def interface(request: Request) -> Response:
        paths = app.openapi()["paths"]
        lines = [
            (address, found["get"]["summary"], found["get"].get("description", ""))
            for address, found in paths.items()
        ]
        return context.page(request, "api.html", {"lines": lines})

    return router


def _static_routes() -> APIRouter:
    """Style sheets and scripts, from memory: no name from a request reaches the file system."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        file = static_files().get(name)
        if file is None:
            raise StatusError(404, "There is no such file.")
        headers = {"etag": f'"{file.tag}"', "cache-control": "no-cache"}
        if request.query_params.get("v") == file.tag:
            headers["cache-control"] = "public, max-age=31536000, immutable"
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)

    return router
