"""A real MLflow server over HTTP, killed in the middle. Starting one costs half a minute."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from nasgraph.data import load_dataset
from nasgraph.errors import TrackingError
from nasgraph.mlflow_client import check_reachable, connect, default_tracking_uri
from nasgraph.modelzoo import ZooEntry
from nasgraph.modelzoo.store import Zoo
from nasgraph.tracking import MlflowListener
from tests.modelzoo.making import made_entry
from tests.search.postgres import postgres_server
from tests.tracking.searches import end, info, screened, trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

StartServer = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[StartServer]:
    """Starts a server on the port and waits for it; every server is killed at the end."""
    running: list[subprocess.Popen[bytes]] = []
    store = default_tracking_uri(tmp_path / "server")
    connect(store)

    def begin(store: str = store) -> "subprocess.Popen[bytes]":
        words = ["server", "--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "served")]
        words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        with (tmp_path / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=tmp_path,
            )
        running.append(process)
        deadline = time.monotonic() + 300
        while True:
            try:
                check_reachable(f"http://127.0.0.1:{port}", timeout_s=2)
            except TrackingError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.5)
            else:
                return process

    yield begin
    for process in running:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a server and its workers, as by kill -9."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_search_survives_the_death_of_its_server_and_says_what_is_missing(
    start: StartServer, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    uri = f"http://127.0.0.1:{port}"
    listener = MlflowListener(uri)
    listener.on_start(info())
    listener.on_screened(screened(20), total=20)
    listener.on_kept(screened(20))
    results = [trial(0, accuracy=0.9), *(trial(number) for number in range(1, 4))]
    listener.on_trial(results[0])
    assert listener.summary().pending == 0
    assert listener.summary().failed == 0
    run_id = listener.trial_run_id(0)
    assert run_id is not None
    names = {file.path for file in connect(uri).list_artifacts(run_id)}
    assert names == {"graph.json", "architecture.json", "weights.safetensors"}

    kill(server)
    started = time.monotonic()
    for result in results[1:]:
        listener.on_trial(result)
    listener.on_end(end(results))
    assert time.monotonic() - started < 60
    summary = listener.summary()
    assert summary.pending == 6, "three trials, their series, their table, and the end"
    assert summary.last_error
    assert "lacks 6 writes" in caplog.text

    start()
    client = connect(uri)
    again = MlflowListener(uri)
    again.on_start(info())
    again.on_trial(results[1])
    again.on_end(end(results[1:2]))
    assert again.summary().pending == 0
    assert client.get_run(again.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_the_zoo_works_over_http(start: StartServer, port: int, tmp_path: Path, backend: str) -> None:
    entry = made_entry(tmp_path / "entry", load_dataset("digits"))
    with nullcontext() if backend == "sqlite" else postgres_server() as postgres:
        if postgres is None:
            start()
        else:
            start(postgres.url.replace("postgresql://", "postgresql+psycopg://"))
        assert_zoo_works(Zoo(f"http://127.0.0.1:{port}"), entry, tmp_path)


def assert_zoo_works(zoo: Zoo, entry: ZooEntry, tmp_path: Path) -> None:
    zoo.add(entry.path, "net", aliases=["champion"], packed=True)
    assert [listing.card for listing in zoo.list_models("net")] == [entry.card]
    assert zoo.load("net@champion").card == entry.card
    zoo.export("net", tmp_path / "out")
    zoo.add(entry.path, "net", aliases=["fastest"])
    zoo.set_alias("net/2", "champion")
    assert (
        zoo.catalogue.row("net@champion").reference == zoo.catalogue.row("net@fastest").reference == "net/2"
    )
    assert zoo.catalogue.row("net/1").card == entry.card
    assert zoo.graph("net/1") == entry.graph
    assert (zoo.artifact("net/1", "thumbnail.svg") or b"").startswith(b"<svg")
    assert zoo.artifact("net/1", "architecture.svg") == (entry.path / "architecture.svg").read_bytes()
