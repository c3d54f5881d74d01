"""What a reader sees when something goes wrong: one sentence and a status, never a stack trace or a path of the server."""

import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from nasgraph.errors import DataError, NasGraphError, UnknownNameError
from nasgraph.web.context import BadRequestError, WebContext
from nasgraph.web.security import Application, Refusal, Scope

_logger = logging.getLogger(__name__)
_PATH = re.compile(r"(?:(?<![\w/.])|(?<=file:))/{1,3}(?:[^\s/'\"]+/)+(?P<name>[^\s/'\",;]*)")
_WINDOWS_PATH = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\'\"]+\\)*")
_SECRET = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+]{0,30})://[^\s/'\"]{0,300}@[^\s'\"]*")
_MAX_CHARACTERS = 600
_SERVER_FAULT = "The server failed at this request. What happened is told in the terminal where it runs."


class StatusError(NasGraphError):
    """A refusal with a status of its own.

    Args:
        status: HTTP status.
        text: One sentence for whoever asked.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def public_text(error: BaseException | str) -> str:
    """The text of an error without folders and passwords: only the last part of a path stays."""
    text = _SECRET.sub(r"\g<scheme>://...", str(error)[: 4 * _MAX_CHARACTERS])
    text = _WINDOWS_PATH.sub("", _PATH.sub(r"\g<name>", text))
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} ..."


def status_of(error: NasGraphError) -> int:
    """The HTTP status that fits an error."""
    if isinstance(error, StatusError):
        return error.status
    if isinstance(error, UnknownNameError):
        return 404
    if isinstance(error, DataError):
        return 422
    return 400 if isinstance(error, BadRequestError) else 409


def add_error_pages(app: FastAPI, context: WebContext) -> None:
    """Let every error of an application end in a page of ours, or in JSON below `/api/`."""

    def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, NasGraphError)
        status = status_of(error)
        if status == 409:  # something is wrong with the zoo, not with the request
            _logger.warning("%s %s: %s", request.method, request.scope["path"], error)
        return error_answer(context, request, status, public_text(error))

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        texts = {404: "There is no such page.", 405: "This page does not take that method."}
        answer = error_answer(
            context,
            request,
            error.status_code,
            texts.get(error.status_code, HTTPStatus(error.status_code).phrase),
        )
        answer.headers.update(error.headers or {})
        return answer

    def invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return error_answer(context, request, 400, "This page does not understand those parameters.")

    def unforeseen(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return error_answer(context, request, 500, _SERVER_FAULT)

    app.add_exception_handler(NasGraphError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unforeseen)  # the server tells the terminal
    app.add_exception_handler(HTTPException, http)


def error_answer(context: WebContext, request: Request, status: int, text: str) -> Response:
    """A page, a fragment for htmx, or JSON, as the request wants it."""
    if request.scope["path"].startswith("/api/"):
        return JSONResponse({"status": status, "error": text}, status_code=status)
    is_fragment = request.headers.get("hx-request") == "true"
    template = "_problem.html" if is_fragment else "error.html"
    phrase = HTTPStatus(status).phrase
    answer = context.page(
        request, template, {"status": status, "phrase": phrase, "text": text}, status=status
    )
    if is_fragment:
        answer.headers["hx-push-url"] = "false"
    return answer


def refusing(context: WebContext) -> Callable[[Scope, Refusal], Application]:
    """Makes the answers to requests that the guard refuses."""

    def refuse(scope: Scope, refusal: Refusal) -> Application:
        return cast("Application", error_answer(context, Request(scope), refusal.status, refusal.text))

    return refuse
