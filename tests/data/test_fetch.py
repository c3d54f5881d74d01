import hashlib
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from nasgraph.data import cifar, idx, load_dataset
from nasgraph.data.fetch import RemoteFile, check_file, fetch
from nasgraph.errors import DataError, NasGraphError
from tests.data.making import make_archive, write_cifar, write_idx_set

CONTENT = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """Files of a folder, and addresses that misbehave."""

    def __init__(self, folder: Path, *args: object) -> None:
        self.folder = folder
        super().__init__(*args)  # type: ignore[arg-type]  # request, address and server, as the server passes them

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        if name == "truncated":
            self._answer(CONTENT[:-1000], claimed=len(CONTENT))
        elif name == "short":
            self._answer(CONTENT[:-1000])
        elif name == "long":
            self._answer(CONTENT + b"more")
        elif name == "garbage":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
        elif (self.folder / name).is_file():
            self._answer((self.folder / name).read_bytes())
        else:
            self.send_error(404)

    def _answer(self, content: bytes, *, claimed: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(claimed or len(content)))
        self.end_headers()
        with suppress(OSError):  # the client has seen enough of the long one
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "file.bin").write_bytes(CONTENT)
    return folder


@pytest.fixture
def server(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, published)) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def remote_file(*urls: str, algorithm: str = "sha256") -> RemoteFile:
    return RemoteFile(
        "file.bin", urls, f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}", len(CONTENT)
    )


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_with_the_right_checksum_arrives_whole(server: str, tmp_path: Path, algorithm: str) -> None:
    seen: list[tuple[str, int, int]] = []
    file = remote_file(f"{server}/file.bin", algorithm=algorithm)
    path = fetch(file, tmp_path / "new" / "folder", progress=lambda *step: seen.append(step))
    assert path == tmp_path / "new" / "folder" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert [step[1] for step in seen] == sorted(step[1] for step in seen)
    check_file(file, path)


def test_progress_is_logged(server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nasgraph.data.fetch"):
        fetch(remote_file(f"{server}/file.bin"), tmp_path)
    assert f"Fetching {server}/file.bin (1.0 MB)" in caplog.messages
    assert "file.bin: 100 %" in caplog.messages


def test_the_second_address_is_tried_when_the_first_fails(server: str, tmp_path: Path) -> None:
    assert fetch(remote_file(f"{server}/missing", f"{server}/file.bin"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("missing", "404"),
        ("truncated", r"expected 1,024,000 bytes, got only 1,023,000|IncompleteRead"),
        ("short", "expected 1,024,000 bytes, got only 1,023,000"),
        ("long", "expected 1,024,000 bytes, got more"),
        ("garbage", "this is not HTTP|BadStatusLine"),
    ],
)
def test_a_failed_fetch_leaves_nothing_and_says_what_to_do(
    server: str, tmp_path: Path, address: str, words: str
) -> None:
    url, folder = f"{server}/{address}", tmp_path / "data"
    with pytest.raises(DataError, match=words) as caught:
        fetch(remote_file(url), folder)
    assert f"Download it elsewhere from {url} and put it into '{folder}'" in str(caught.value)
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(DataError, match=words):
        fetch(remote_file(url), folder)
    assert list(folder.iterdir()) == []


def test_a_wrong_checksum_is_refused_and_an_older_file_stays(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"older")
    wrong = replace(remote_file(f"{server}/file.bin"), checksum="sha256:" + "0" * 64)
    with pytest.raises(DataError, match="expected sha256 0000"):
        fetch(wrong, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"older"


def test_without_a_network_the_message_names_folder_and_address(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(DataError, match=rf"(?s)127.0.0.1:{port}.*refused.*put it into '{tmp_path}'"):
        fetch(remote_file(f"http://127.0.0.1:{port}/file.bin"), tmp_path)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file.bin"
        with pytest.raises(DataError, match="timed out"):
            fetch(remote_file(url), tmp_path, timeout_s=0.1)


def test_other_schemes_are_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="begins with https"):
        fetch(remote_file((published / "file.bin").as_uri()), tmp_path)


def test_a_folder_that_cannot_be_made_is_named(server: str, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(NasGraphError, match=r"Cannot write '.*occupied/file.bin'"):
        fetch(remote_file(f"{server}/file.bin"), tmp_path / "occupied")


def test_a_copy_by_hand_is_checked(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT[1:])
    with pytest.raises(DataError, match="is damaged or another file: expected sha256"):
        check_file(remote_file("https://example.org/file.bin"), tmp_path / "file.bin")


def test_missing_idx_files_are_fetched_once(
    server: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx_set(published)
    files = tuple(
        RemoteFile(
            file.name,
            (f"{server}/{file.name}",),
            f"sha256:{hashlib.sha256((published / file.name).read_bytes()).hexdigest()}",
            (published / file.name).stat().st_size,
        )
        for file in idx.MNIST.files
    )
    monkeypatch.setattr(idx, "MNIST", replace(idx.MNIST, files=files))
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    first = load_dataset("mnist", data_dir=data_dir)
    assert sorted(path.name for path in (data_dir / "mnist").iterdir()) == sorted(file.name for file in files)
    for file in files:
        (published / file.name).unlink()
    assert load_dataset("mnist", data_dir=data_dir).sha256 == first.sha256


def test_cifar10_is_fetched_unpacked_and_read(
    server: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(published / "cifar-10-batches-bin", binary=True)
    members = {
        f"cifar-10-batches-bin/{p.name}": p.read_bytes()
        for p in (published / "cifar-10-batches-bin").iterdir()
    }
    archive = replace(make_archive(published, members), urls=(f"{server}/made.tar.gz",))
    monkeypatch.setattr(cifar, "BINARY_ARCHIVE", archive)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    first = load_dataset("cifar10", data_dir=data_dir)
    assert len(first.test) == 20
    assert sorted(path.name for path in (data_dir / "cifar10").iterdir()) == [
        "cifar-10-batches-bin",
        "made.tar.gz",
    ]
    (published / "made.tar.gz").unlink()
    assert load_dataset("cifar10", data_dir=data_dir).sha256 == first.sha256


@pytest.mark.parametrize("idx_set", [idx.MNIST, idx.FASHION_MNIST], ids=lambda s: s.name)
def test_official_files_are_named_as_published(idx_set: idx.IdxSet) -> None:
    assert [file.name for file in idx_set.files] == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]
    assert all(
        url.startswith("https://") and url.endswith(file.name) for file in idx_set.files for url in file.urls
    )
    assert all(len(bytes.fromhex(file.checksum.removeprefix("sha256:"))) == 32 for file in idx_set.files)
