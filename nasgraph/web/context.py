"""What every page has at hand: the zoo, its catalogue, the templates, and the settings of the server.

A page is a module with a function `routes(context: WebContext) -> APIRouter`. Its handlers are plain `def` functions (the
server runs them in threads), take the `Request`, and return `context.page(request, "name.html", ...)`. Errors are raised,
never rendered by a page: `UnknownNameError` becomes "404 Not Found", `BadRequestError` and a malformed reference "400 Bad Request",
`DataError` "422", any other `NasGraphError` "409 Conflict", each with its message (paths are cut out), and everything else "500" without details.

Templates extend `base.html` (blocks `title`, `head`, `content`; scripts and styles by `static_url('file')`, never inline).
"""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from nasgraph.errors import NasGraphError
from nasgraph.web import words

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Query, Row
    from nasgraph.modelzoo.store import Zoo

_PATIENCE_S = 0.15  # a page waits so long for news from the registry, then shows what is known
_NEWS_EVERY_S = 1.0
_KEPT_ANSWERS = 32


class BadRequestError(NasGraphError, ValueError):
    """A request that asks for something in a form that no page understands. Its text is shown to whoever sent it."""


class EntryCatalogue(Protocol):
    """The part of `nasgraph.modelzoo.catalogue.Catalogue` that the pages need."""

    @property
    def rows(self) -> "tuple[Row, ...]":
        """The newest version of each entry."""

    @property
    def all_rows(self) -> "tuple[Row, ...]":
        """Every version of each entry."""

    def refresh(self) -> object:
        """Read what was added since the last time."""

    def query(self, query: "Query") -> "tuple[Row, ...]":
        """Rows that fit, sorted."""

    def row(self, reference: str) -> "Row":
        """One row. Raises `UnknownNameError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Settings of the server.

    Attributes:
        workspace: Folder with the searches that the live view shows; None: no live view.
        mlflow_url: Where MLflow's own pages are; empty: no links to them.
        dashboard_url: Where optuna-dashboard is; empty: no links to it.
        data_dir: Folder of data sets for "find for my data"; None: the usual places.
        allow_server_paths: Whether "find for my data" may be given paths on the machine of the server.
        max_upload_bytes: Largest data set that may be sent.
    """

    workspace: Path | None = None
    mlflow_url: str = ""
    dashboard_url: str = ""
    data_dir: Path | None = None
    allow_server_paths: bool = False
    max_upload_bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A style sheet, script or picture that the package ships.

    Attributes:
        name: Its file name.
        content: Its bytes.
        tag: Start of its hash: a new content has a new address.
    """

    name: str
    content: bytes
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContext:
    """What every page has at hand. Made once per server, shared by all threads.

    Attributes:
        zoo: Registered and shipped entries.
        catalogue: Rows for tables; ask for them with `current()`, which keeps them fresh.
        settings: Settings of the server.
        templates: The Jinja environment; escapes everything.
        token: Secret that requests which change something must send as the header `X-NASGraph-Token`.
    """

    zoo: "Zoo"
    catalogue: EntryCatalogue
    settings: WebSettings = field(default_factory=WebSettings)
    templates: Environment = field(default_factory=lambda: make_templates())
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    _news: "_News" = field(default_factory=lambda: _News(), repr=False)
    _answers: "_Answers" = field(default_factory=lambda: _Answers(), repr=False)

    def current(self) -> EntryCatalogue:
        """The catalogue, after a look for news that takes at most a moment; later news come with the next request."""
        self._news.ask(self.catalogue)
        return self.catalogue

    def find(self, query: "Query") -> "tuple[Row, ...]":
        """Rows that fit, sorted. Paging on, or drawing what was a table, does not search again."""
        return self._answers.of(self.current(), query)

    def page(
        self, request: Request, template: str, values: dict[str, object], *, status: int = 200
    ) -> HTMLResponse:
        """Render a template. `request`, `settings` and `token` are known in it, besides `values`."""
        common = {
            "request": request,
            "path": request.scope["path"],
            "settings": self.settings,
            "token": self.token,
        }
        text = self.templates.get_template(template).render({**common, **values})
        return HTMLResponse(text, status_code=status)


class _News:
    """One look at the registry at a time, at most once a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nasgraph-catalogue")
        self._running: Future[object] | None = None
        self._asked = float("-inf")

    def ask(self, catalogue: EntryCatalogue) -> None:
        with self._lock:
            is_idle = self._running is None or self._running.done()
            if is_idle and time.monotonic() - self._asked >= _NEWS_EVERY_S:
                self._asked = time.monotonic()
                self._running = self._thread.submit(catalogue.refresh)
            running = self._running
        if running is not None:
            done, _ = wait([running], timeout=_PATIENCE_S)
            if done:
                running.result()  # an unreachable registry is told, not hidden behind old rows


class _Answers:
    """The latest answers to queries, forgotten as soon as the catalogue has other rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: object = None
        self._known: OrderedDict[Query, tuple[Row, ...]] = OrderedDict()

    def of(self, catalogue: EntryCatalogue, query: "Query") -> "tuple[Row, ...]":
        rows = catalogue.rows
        with self._lock:
            if self._rows is not rows:
                self._rows, self._known = rows, OrderedDict()
            if query in self._known:
                self._known.move_to_end(query)
                return self._known[query]
        found = catalogue.query(query)
        with self._lock:
            if self._rows is rows:
                self._known[query] = found
                while len(self._known) > _KEPT_ANSWERS:
                    self._known.popitem(last=False)
        return found


@cache
def static_files() -> dict[str, StaticFile]:
    """Everything in the folder `static`, by name, read once."""
    found = {}
    for item in files("nasgraph.web").joinpath("static").iterdir():
        if item.is_file() and item.name.rpartition(".")[2] in ("css", "js", "svg"):
            content = item.read_bytes()
            found[item.name] = StaticFile(item.name, content, hashlib.sha256(content).hexdigest()[:12])
    return found


def static_url(name: str) -> str:
    """Address of a shipped file.

    Raises:
        KeyError: If there is no such file.
    """
    return f"/static/{name}?v={static_files()[name].tag}"


def make_templates() -> Environment:
    """The Jinja environment of the pages: everything is escaped, an undefined name is an error."""
    environment = Environment(
        loader=PackageLoader("nasgraph.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        short_number=words.short_number,
        full_number=words.full_number,
        percent=words.percent,
        exact_percent=words.exact_percent,
        milliseconds=words.milliseconds,
        plain_number=words.plain_number,
        rate=words.rate,
        entry_url=words.entry_url,
        code_spans=words.code_spans,
    )
    environment.globals.update(static_url=static_url)
    return environment
