"""The door to MLflow: addresses, reachability, and stores that are created once."""

import http.server
import multiprocessing
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.errors import TrackingError
from nasgraph.mlflow_client import (
    artifact_root,
    check_reachable,
    connect,
    default_tracking_uri,
    ensure_experiment,
    local_path,
    resolve_tracking_uri,
    shown_uri,
)
from nasgraph.tracking import environment_tags
from nasgraph.tracking.runs import safe_name

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier


def test_the_default_store_is_absolute_and_its_artifacts_lie_beside_it(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "a b#c")
    assert uri == f"sqlite:///{tmp_path}/a b#c/nasgraph.db"
    root = artifact_root(uri)
    assert root is not None
    assert local_path(root) == tmp_path / "a b#c" / "artifacts"
    assert not (tmp_path / "a b#c").exists(), "naming a store creates nothing"


def test_the_argument_wins_over_the_environment_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve_tracking_uri() == f"sqlite:///{tmp_path}/nasgraph-runs/nasgraph.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert resolve_tracking_uri() == "http://server:5000"
    assert resolve_tracking_uri("sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"


def test_a_folder_that_no_address_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no database address"):
        default_tracking_uri(tmp_path / "50%?")


def test_passwords_are_not_shown() -> None:
    assert shown_uri("postgresql://me:secret@host:5432/db") == "postgresql://me:***@host:5432/db"
    with pytest.raises(TrackingError) as caught:
        check_reachable("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:9", "refused.*Start the server"),
        ("http://no-such-host.invalid:5000", "does not answer"),
        ("mysql+pymysql://127.0.0.1:1/db", "refused"),
        ("./mlruns", "Expected a tracking address"),
        ("file:///tmp/mlruns", "Expected a tracking address"),
        ("http://[broken", "does not answer|Expected"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_within_seconds(uri: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError, match=message):
        check_reachable(uri)
    assert time.monotonic() - started < 10


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("dear diary, " * 200)
    with pytest.raises(TrackingError, match="not a database"):
        connect(f"sqlite:///{tmp_path}/notes.db")
    assert (tmp_path / "notes.db").read_text().startswith("dear diary")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="cannot be written"):
        connect(default_tracking_uri(tmp_path / "file"))


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        started = time.monotonic()
        with pytest.raises(TrackingError, match="timed out"):
            check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)
        assert time.monotonic() - started < 5


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize(
    ("status", "reachable"), [(200, True), (404, True), (401, True), (500, False), (503, False)]
)
def test_any_answer_but_a_failure_counts_as_reachable(
    server: str, status: int, reachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Answer, "status", status)
    if reachable:
        check_reachable(server)
    else:
        with pytest.raises(TrackingError, match=str(status)):
            check_reachable(server)


def test_a_new_store_lets_readers_and_a_writer_work_together(tracking_uri: str) -> None:
    with closing(sqlite3.connect(tracking_uri.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_experiment_is_made_once(tracking_uri: str) -> None:
    client = connect(tracking_uri)
    first = ensure_experiment(client, "x", root=artifact_root(tracking_uri))
    assert ensure_experiment(client, "x", root=None) == first
    client.delete_experiment(first)
    with pytest.raises(TrackingError, match="was deleted"):
        ensure_experiment(client, "x", root=None)


def _open(uri: str, start: "Barrier", ids: "Queue[str]") -> None:
    start.wait(60)
    client = connect(uri)
    ids.put(ensure_experiment(client, "x", root=artifact_root(uri)))


def test_processes_that_create_one_store_at_the_same_time_all_succeed(tmp_path: Path) -> None:
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported once, before the fork

    uri = default_tracking_uri(tmp_path)
    context = multiprocessing.get_context("fork")
    start, ids = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_open, args=(uri, start, ids)) for _ in range(3)]
    for process in processes:
        process.start()
    assert len({ids.get(timeout=120) for _ in processes}) == 1
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_connecting_does_not_print_and_forbids_pickles(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    connect(default_tracking_uri(tmp_path))
    assert capfd.readouterr().out == ""
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_environment_is_recorded(tmp_path: Path) -> None:
    tags = environment_tags(tmp_path)
    assert {"python_version", "nasgraph_version", "torch_version", "optuna_version"} <= set(tags)
    assert "git_commit" not in tags, "there is no checkout"


@given(st.text(min_size=1, max_size=20) | st.text("./ab<", min_size=1, max_size=300))
def test_every_name_becomes_one_that_mlflow_accepts(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    safe = safe_name(name)
    _validate_metric_name(safe)
    _validate_param_name(safe)
    _validate_tag_name(f"nasgraph.{safe}"[:250])


@given(st.text(max_size=10), st.text(max_size=10))
def test_different_names_stay_different(first: str, second: str) -> None:
    assert (safe_name(first) == safe_name(second)) == (first == second)
