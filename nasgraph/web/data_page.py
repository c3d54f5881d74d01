"""Find for my data: which of the models promise most for a data set, named or sent."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from nasgraph.errors import UnknownNameError
from nasgraph.web.context import WebContext
from nasgraph.web.errors import StatusError
from nasgraph.web.queries import one_of, text_of

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row
    from nasgraph.retrieve.behaviour.ranking import RankedModel
    from nasgraph.retrieve.behaviour.records import QueryData

MOST = 20
KINDS = ("npz", "csv", "tsv")
MAX_PATH_CHARACTERS = 4096
_WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Fit:
    """A model and how well it promises to fit.

    Attributes:
        row: The model.
        ranked: Its place.
    """

    row: "Row"
    ranked: "RankedModel"


def routes(context: WebContext) -> APIRouter:
    """`/for-data`, and what its form sends to."""
    router = APIRouter(include_in_schema=False)
    turn = _Turn()
    known = _Known(context, turn)

    @router.get("/for-data")
    def for_data(request: Request) -> Response:
        from nasgraph.data import dataset_names

        name = text_of(request.query_params, "data")
        values: dict[str, object] = {"names": dataset_names(), "chosen": name, "kinds": KINDS}
        if name is not None:
            values |= known.of(name)
        return context.page(request, "for_data.html", {"fits": None, **values})

    @router.post("/for-data/upload")
    async def upload(request: Request) -> Response:
        _check_content_type(request)
        kind = one_of(request.query_params, "kind", KINDS, default="npz")
        body = await request.body()

        def answer() -> Response:
            from nasgraph.web.uploads import read_upload

            with turn.taken():
                values = _fits(context, f"your .{kind} file", lambda: read_upload(body, kind))
            return context.page(request, "_fits.html", values)

        return await run_in_threadpool(answer)

    @router.post("/for-data/path")
    async def path(request: Request) -> Response:
        if not context.settings.allow_server_paths:
            raise StatusError(
                403, "This server does not read files of its own machine. Start it with '--allow-paths'."
            )
        _check_content_type(request)
        text = (await request.body()).decode("utf-8", "replace").strip()
        if not 0 < len(text) <= MAX_PATH_CHARACTERS or "\x00" in text:
            raise StatusError(400, "Expected the path of a .npz archive, a .csv table or a folder of images.")

        def answer() -> Response:
            with turn.taken():
                values = _fits(context, Path(text).name, lambda: _query_at(Path(text)))
            return context.page(request, "_fits.html", values)

        return await run_in_threadpool(answer)

    return router


class _Turn:
    """Running models keeps a processor busy: one question at a time, the next waits a little."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(1)

    @contextmanager
    def taken(self) -> Iterator[None]:
        if not self._free.acquire(timeout=_WAIT_S):
            raise StatusError(503, "Somebody else is asking right now. Try again in a minute.")
        try:
            yield
        finally:
            self._free.release()


class _Known:
    """Answers for named data sets: the same until the zoo changes, so that going back costs nothing."""

    def __init__(self, context: WebContext, turn: _Turn) -> None:
        self._context = context
        self._turn = turn
        self._answers: dict[str, tuple[object, dict[str, object]]] = {}

    def of(self, name: str) -> dict[str, object]:
        rows = self._context.current().rows
        if name not in self._answers or self._answers[name][0] is not rows:
            with self._turn.taken():
                fits = _fits(self._context, name, lambda: _named_query(self._context, name))
            self._answers[name] = (rows, fits)  # only installed names get here, so there are few
        return self._answers[name][1]


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/octet-stream", "text/csv", "text/plain"):
        raise StatusError(415, "Expected the bytes of the file as 'application/octet-stream'.")


def _fits(context: WebContext, title: str, read: "Callable[[], QueryData]") -> dict[str, object]:
    """What the list of fits shows."""
    from nasgraph.modelzoo.fitting import rank_for_data

    query = read()
    catalogue = context.current()
    ranked = rank_for_data(context.zoo, catalogue.rows, query)
    fits = [Fit(catalogue.row(each.reference), each) for each in ranked]
    return {
        "title": title,
        "num_examples": len(query.labels),
        "num_classes": query.num_classes,
        "fits": [fit for fit in fits if not fit.ranked.failed][:MOST],
        "failed": [fit for fit in fits if fit.ranked.failed],
        "num_ranked": len(fits),
    }


def _named_query(context: WebContext, name: str) -> "QueryData":
    """Examples of an installed data set, which is not fetched from anywhere."""
    from nasgraph.data import dataset_names, load_dataset
    from nasgraph.retrieve.behaviour.records import query_from_dataset
    from nasgraph.web.uploads import PER_CLASS

    if name not in dataset_names():
        raise UnknownNameError("data set", name, dataset_names())
    data = load_dataset(name, data_dir=context.settings.data_dir, download=False)
    return query_from_dataset(data, per_class=PER_CLASS)


def _query_at(path: Path) -> "QueryData":
    from nasgraph.data.load import read_path
    from nasgraph.web.uploads import check_archive, query_from_raw

    if path.suffix.lower() == ".npz" and path.is_file():
        check_archive(path)
    return query_from_raw(read_path(path.expanduser()))
