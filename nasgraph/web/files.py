"""Files that belong to an entry: its thumbnail, and what can be downloaded. No name from a request becomes a path."""

import shutil
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from nasgraph.draw.thumbnail import draw_thumbnail
from nasgraph.errors import ZooError
from nasgraph.ir import ComputationalGraph
from nasgraph.web.context import WebContext
from nasgraph.web.errors import StatusError
from nasgraph.web.table_page import find_row

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row

MAX_KEPT = 4000
"""Thumbnails in memory, about two kilobytes each."""
_PICTURE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'",
    "cache-control": "private, no-cache",
}


class Thumbnails:
    """Thumbnails by the fingerprint of their graph: versions of one architecture share one. The least used are dropped."""

    def __init__(self, *, most: int = MAX_KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, fingerprint: str, graph: Callable[[], ComputationalGraph]) -> str:
        """The SVG of a graph, which is read only where the picture is not known yet."""
        with self._lock:
            if fingerprint in self._kept:
                self._kept.move_to_end(fingerprint)
                return self._kept[fingerprint]
        picture = draw_thumbnail(graph())
        with self._lock:
            self._kept[fingerprint] = picture
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return picture


def routes(context: WebContext) -> APIRouter:
    """`/thumbnail/<reference>.svg` and `/download/<reference>/...`."""
    router = APIRouter(include_in_schema=False)
    thumbnails = Thumbnails()

    @router.get("/thumbnail/{reference:path}.svg")
    def thumbnail(request: Request, reference: str) -> Response:
        row = find_row(context, reference)
        if not row.fingerprint:
            raise StatusError(404, f"'{row.reference}' is no model and has no picture.")
        tag = f'"{row.fingerprint[:32]}-1"'
        headers = {**_PICTURE_HEADERS, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        picture = thumbnails.of(row.fingerprint, lambda: context.zoo.graph(row.reference))
        return Response(picture, media_type="image/svg+xml", headers=headers)

    @router.get("/download/{reference:path}/entry.zip")
    def entry(reference: str) -> FileResponse:
        row = _model(context, reference)

        def fill(folder: Path) -> Path:
            context.zoo.export(row.reference, folder / "entry")
            return zip_folder(folder / "entry", folder / "entry.zip", inside=row.name)

        return _sent(fill, name=f"{_file_name(row.reference)}.zip", media_type="application/zip")

    @router.get("/download/{reference:path}/source.zip")
    def source(reference: str) -> FileResponse:
        from nasgraph.modelzoo.export import export_source

        row = _model(context, reference)

        def fill(folder: Path) -> Path:
            export_source(context.zoo.load(row.reference), folder / "source")
            return zip_folder(folder / "source", folder / "source.zip", inside=f"{row.name}-source")

        return _sent(fill, name=f"{_file_name(row.reference)}-source.zip", media_type="application/zip")

    @router.get("/download/{reference:path}/model.onnx")
    def onnx(reference: str) -> FileResponse:
        from nasgraph.modelzoo.export import export_onnx

        row = _model(context, reference)

        def fill(folder: Path) -> Path:
            export_onnx(context.zoo.load(row.reference), folder / "model.onnx")
            return folder / "model.onnx"

        return _sent(fill, name=f"{_file_name(row.reference)}.onnx", media_type="application/octet-stream")

    return router


def _model(context: WebContext, reference: str) -> "Row":
    row = find_row(context, reference)
    if row.card is None:
        raise ZooError(f"'{row.reference}' is no model that can be downloaded")
    return row


def zip_folder(folder: Path, path: Path, *, inside: str) -> Path:
    """Put the files of a folder into an archive, below a folder named `inside`. Equal files give equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                place = zipfile.ZipInfo(f"{inside}/{file.relative_to(folder).as_posix()}")  # the date is 1980
                place.compress_type = (
                    zipfile.ZIP_DEFLATED
                    if file.suffix in (".json", ".md", ".svg", ".txt", ".py")
                    else zipfile.ZIP_STORED
                )
                with archive.open(place, "w", force_zip64=True) as target, file.open("rb") as source:
                    shutil.copyfileobj(source, target)
    return path


def _sent(fill: Callable[[Path], Path], *, name: str, media_type: str) -> FileResponse:
    """A file that is made in a folder of its own, sent, and removed."""
    folder = Path(tempfile.mkdtemp(prefix="nasgraph-web-"))
    try:
        path = fill(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    clean = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(path, media_type=media_type, filename=name, background=clean)


def _file_name(reference: str) -> str:
    return reference.replace("/", "-v")
