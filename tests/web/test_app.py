"""The application and its server: files, downloads, uploads, freshness, starting and stopping."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from starlette.testclient import TestClient

from nasgraph.data import DataSet
from nasgraph.errors import ConfigError, DataError
from nasgraph.modelzoo import ZooEntry, load_entry
from nasgraph.modelzoo.store import Zoo
from nasgraph.web import words
from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext, WebSettings, static_files, static_url
from nasgraph.web.server import ServeConfig, open_socket
from nasgraph.web.uploads import read_upload
from tests.signals import heed_ctrl_c
from tests.web.conftest import ADDRESS
from tests.web.reading import Page

OUTSIDE = re.compile(
    r"""(?:src|href|action)=["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import|\bimport\s*\("""
)


def npz(**arrays: "np.typing.NDArray[np.generic]") -> bytes:
    target = io.BytesIO()
    np.savez(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def test_no_page_and_no_file_loads_anything_from_elsewhere(client: TestClient) -> None:
    for address in (
        "/",
        "/scatter",
        "/for-data",
        "/api",
        "/entry/small",
        "/compare?with=small&with=convnet-0",
    ):
        assert not OUTSIDE.search(client.get(address).text), address
    for file in static_files().values():
        if file.name != "htmx.min.js":
            assert not OUTSIDE.search(file.content.decode()), file.name


def test_every_file_that_a_page_names_is_there(client: TestClient) -> None:
    for address in ("/", "/scatter", "/for-data", "/entry/small", "/compare?with=small&with=convnet-0"):
        page = Page(client.get(address).text)
        files = [
            e.attributes[name]
            for e in page.elements
            for name in ("src", "href")
            if e.attributes.get(name, "").startswith("/static/")
        ]
        assert files
        for file in files:
            answer = client.get(file)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert client.get(file, headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_vendored_files_are_those_that_are_declared() -> None:
    import hashlib

    text = (Path(__file__).parents[2] / "nasgraph/web/static/THIRD_PARTY.md").read_text()
    declared = dict(re.findall(r"^- `(\S+?)`:.*?sha256 `([0-9a-f]{64})`", text, re.DOTALL | re.MULTILINE))
    assert declared
    for name, digest in declared.items():
        assert hashlib.sha256(static_files()[name].content).hexdigest() == digest
    assert {name for name in static_files() if ".min." in name} == set(declared)


def test_a_new_content_has_a_new_address() -> None:
    assert static_url("base.css") == f"/static/base.css?v={static_files()['base.css'].tag}"
    with pytest.raises(KeyError):
        static_url("nope.css")


def test_thumbnails_are_pictures_that_browsers_keep(client: TestClient) -> None:
    answer = client.get("/thumbnail/convnet-0/1.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert ElementTree.fromstring(answer.text).tag == "{http://www.w3.org/2000/svg}svg"
    again = client.get("/thumbnail/convnet-0.svg", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/thumbnail/small.svg").headers["etag"] != answer.headers["etag"]
    assert client.get("/thumbnail/ghn-digits.svg").status_code == 404


def test_a_downloaded_entry_is_the_entry(client: TestClient, zoo: Zoo, tmp_path: Path) -> None:
    answer = client.get("/download/small@champion/entry.zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="small-v1.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert all(name.startswith("small/") for name in archive.namelist())
        archive.extractall(tmp_path)
    again, stored = load_entry(tmp_path / "small"), zoo.load("small/1")
    assert again.card == stored.card
    assert again.graph == stored.graph
    assert all(np.array_equal(again.state[name], tensor) for name, tensor in stored.state.items())
    assert client.get("/download/small/1/entry.zip").content == answer.content


def test_a_downloaded_source_is_python(client: TestClient) -> None:
    answer = client.get("/download/small/source.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        sources = [name for name in archive.namelist() if name.endswith(".py")]
        assert sources
        for name in sources:
            compile(archive.read(name), name, "exec")


def test_a_downloaded_onnx_file_is_onnx(client: TestClient) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    answer = client.get("/download/small/model.onnx")
    assert answer.status_code == 200
    onnx.checker.check_model(onnx.load_model_from_string(answer.content))


def test_what_cannot_be_downloaded_is_refused(client: TestClient) -> None:
    assert client.get("/download/ghn-digits/entry.zip").status_code == 409
    assert client.get("/download/no-such/entry.zip").status_code == 404
    assert client.get("/download/small/weights.pkl").status_code == 404


def test_a_file_finds_models(client: TestClient, context: WebContext, digits: DataSet) -> None:
    split = digits.search.train
    pictures = (split.inputs[:200] * 0.25 + 0.5).clamp(0, 1).numpy()
    answer = send(client, context, npz(x=pictures, y=split.targets[:200].numpy()), kind="npz")
    assert answer.status_code == 200
    page = Page(answer.text)
    rows = [e.words for e in page.all("th", scope="row")]
    assert set(rows) == {"small/2", "convnet-0/1", "convnet-1/1", "nasbench201-0/1", "nasbench201-1/1"}
    assert "<html" not in answer.text


def test_a_data_set_is_found_by_name(client: TestClient) -> None:
    page = Page(client.get("/for-data?data=digits").text)
    assert len(page.all("th", scope="row")) == 5
    assert client.get("/for-data?data=no-such").status_code == 404
    assert client.get("/for-data").text.count("<option") >= 3


def test_a_table_is_told_to_fit_no_picture_model(client: TestClient, context: WebContext) -> None:
    table = "a,b,label\n" + "\n".join(f"{i},{i % 3},{'yes' if i % 2 else 'no'}" for i in range(40))
    answer = send(client, context, table.encode(), kind="csv")
    assert answer.status_code == 200
    assert "No model could be tried" in answer.text


def test_paths_of_the_server_are_read_only_where_that_is_allowed(
    zoo: Zoo, context: WebContext, client: TestClient, tmp_path: Path
) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(npz(x=np.zeros((8, 1, 8, 8), np.uint8), y=np.arange(8) % 2))
    headers = {"x-nasgraph-token": context.token, "content-type": "text/plain"}
    assert client.post("/for-data/path", content=str(path), headers=headers).status_code == 403
    open_context = WebContext(zoo=zoo, catalogue=zoo.catalogue, settings=WebSettings(allow_server_paths=True))
    opened = TestClient(make_app(open_context), base_url=ADDRESS)
    headers["x-nasgraph-token"] = open_context.token
    assert opened.post("/for-data/path", content=str(path), headers=headers).status_code == 200
    missing = opened.post("/for-data/path", content=str(tmp_path / "none.npz"), headers=headers)
    assert missing.status_code == 422
    assert str(tmp_path) not in missing.text


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 1, 8, 8), np.uint8), "y": np.zeros(4, np.int64)}, "2 classes"),
        ({"x": np.zeros((4, 1, 8, 8), np.uint8)}, "x, y"),
        ({f"a{n}": np.zeros(1) for n in range(20)}, "at most 16"),
        ({"x": np.zeros((1200, 2), np.float32), "y": np.arange(1200)}, "at most 1000 classes"),
    ],
)
def test_uploads_that_are_no_data_are_refused(
    arrays: Mapping[str, "np.typing.NDArray[np.generic]"], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_upload(npz(**arrays), "npz")


def test_few_examples_of_each_class_are_taken_and_pixels_lie_between_0_and_1() -> None:
    pictures = np.arange(300 * 64, dtype=np.float32).reshape(300, 1, 8, 8)
    query = read_upload(npz(x=pictures, y=np.arange(300) % 3 + 5), "npz")
    assert query.labels.bincount().tolist() == [50, 50, 50]
    assert (float(query.inputs.min()), float(query.inputs.max())) == (0.0, 1.0)


def test_what_is_registered_while_the_server_runs_appears_with_the_next_page(
    tracking_uri: str, entry: ZooEntry
) -> None:
    zoo = Zoo(tracking_uri)
    client = TestClient(make_app(WebContext(zoo=zoo, catalogue=zoo.catalogue)), base_url=ADDRESS)
    assert client.get("/api/entries/newcomer").status_code == 404
    Zoo(tracking_uri).add(entry.path, "newcomer")
    deadline = time.monotonic() + 30
    while client.get("/api/entries/newcomer").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_interface_is_described_in_words_and_for_machines(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()["paths"]
    assert {"/api/entries", "/api/entries/{reference}", "/api/similar/{reference}", "/api/points"} <= set(
        described
    )
    text = Page(client.get("/api").text).one("main").words
    assert all(path in text for path in described)
    assert client.get("/api/nothing").json() == {"status": 404, "error": "There is no such page."}


def test_numbers_are_written_for_people() -> None:
    assert [words.short_number(n) for n in (0, 7, 999, 1000, 1234, 999_950, 12_345_678, 4.2e9, None)] == [
        "0", "7", "999", "1 k", "1.23 k", "1.00 M", "12.3 M", "4.20 G", "",
    ]  # fmt: skip
    assert words.percent(0.91644) == "91.64 %"
    assert words.percent(float("nan")) == ""
    assert [words.milliseconds(n) for n in (0.001234, 0.5, 12.34, None)] == [
        "0.00123 ms",
        "0.50 ms",
        "12.3 ms",
        "",
    ]
    assert words.entry_url("a b/3", "/thumbnail") == "/thumbnail/a%20b/3"
    assert words.code_spans("`a<b` is <i>") == "<code>a&lt;b</code> is &lt;i&gt;"


def test_a_taken_port_is_told_in_one_sentence() -> None:
    with open_socket("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match=r"Port \d+ is taken.*--port"):
        open_socket("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match="no address"):
        open_socket("no.such.host.invalid", 0)
    with pytest.raises(ConfigError, match="from 0 to 65535"):
        ServeConfig(port=70_000)


def test_a_server_starts_on_a_free_port_answers_and_ends_with_ctrl_c(tracking_uri: str) -> None:
    program = (
        "import sys; from nasgraph.web.server import ServeConfig, serve\n"
        "serve(sys.argv[1], ServeConfig(port=0), on_start=lambda address: print(address, flush=True)); print('ended')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tracking_uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), address
        with urllib.request.urlopen(f"{address}api/entries?kind=ghn", timeout=60) as answer:
            assert json.load(answer)["found"] >= 1
        port = int(address.rsplit(":", 1)[1].rstrip("/"))
        others = [
            a
            for a in {i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None)}
            if not str(a).startswith(("127.", "::1"))
        ]
        for other in others:
            with pytest.raises(OSError):
                socket.create_connection((str(other), port), timeout=2).close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert out == "ended\n"
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def send(client: TestClient, context: WebContext, body: bytes, *, kind: str):  # type: ignore[no-untyped-def]  # httpx's answer
    headers = {"x-nasgraph-token": context.token, "content-type": "application/octet-stream"}
    return client.post(f"/for-data/upload?kind={kind}", content=body, headers=headers)


PAIRS = (
    ("text", "ground", 4.5), ("text", "raised", 4.5), ("muted", "ground", 4.5), ("muted", "raised", 4.5), ("accent", "ground", 4.5),
    ("accent", "raised", 4.5), ("accent", "accent-soft", 4.5), ("text", "accent-soft", 4.5), ("text", "bad-soft", 4.5), ("good", "ground", 4.5),
    ("edge", "ground", 3.0), ("edge", "raised", 3.0), ("accent", "line", 3.0),
)  # fmt: skip


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_controls_have_the_contrast_that_wcag_aa_asks_for(theme: int) -> None:
    text = static_files()["base.css"].content.decode()
    colours = {
        name: both.split(",")[theme].strip()
        for name, both in re.findall(r"--([a-z-]+): light-dark\(([^)]+)\)", text)
    }
    for front, back, least in PAIRS:
        assert contrast(colours[front], colours[back]) >= least, (front, back)
    assert contrast("#ffffff", colours["accent-ground"]) >= 4.5  # the words on buttons


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2, "contrast ratio" and "relative luminance")."""
    light, dark = sorted(map(luminance, (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
