"""`optuna-dashboard` and `mlflow ui`, started by the commands of the documentation, show a search of ours as it is.

Real servers on free ports. Each needs some ten seconds to start.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from nasgraph.mlflow_client import connect, default_tracking_uri
from nasgraph.search import (
    SearchConfig,
    SearchListener,
    SearchResult,
    TrialState,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.tracking import MlflowListener
from tests.search.test_snapshot import fails_for_wide
from tests.search.toys import OBJECTIVE, Chain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
TRIALS = 12


def searched(place: Path | str, *, listeners: Sequence[SearchListener] = ()) -> SearchResult:
    space = Chain(widths=2)
    study = create_or_resume(
        open_storage(place), "toy", space=space, objective=OBJECTIVE, resume=False, seed=3,
        sampler=make_sampler("random", seed=3),
    )  # fmt: skip
    return run_search(
        space, fails_for_wide, study, SearchConfig(num_trials=TRIALS, seed=3), listeners=listeners
    )


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@contextmanager
def server(words: Sequence[str], *, port: int, folder: Path) -> Iterator[str]:
    """Run a server until the end of a `with` block; gives its address when it answers."""
    address = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(words, cwd=folder, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not _answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):
            return True
    except (URLError, OSError):
        return False


def fetch(address: str, body: dict[str, object] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(
        Request(address, data=data, headers={"Content-Type": "application/json"}), timeout=60
    ) as answer:
        return json.load(answer)


def script(name: str) -> str:
    """A command of this interpreter's environment."""
    return str(Path(sys.executable).with_name(name))


@pytest.mark.skipif(
    find_spec("optuna_dashboard") is None,
    reason="optuna-dashboard is not installed: pip install 'nasgraph[dashboard]'",
)
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_optuna_dashboard_opens_a_study_and_leaves_it_as_it_was(tmp_path: Path, kind: str) -> None:
    journal = tmp_path / "toy.journal"
    place = journal if kind == "journal" else f"sqlite:///{tmp_path / 'toy.db'}"
    result = searched(place)
    before = journal.read_bytes() if kind == "journal" else b""
    port = free_port()
    with server(
        [script("optuna-dashboard"), str(place), "--port", str(port)], port=port, folder=tmp_path
    ) as address:
        [summary] = fetch(f"{address}/api/studies")["study_summaries"]
        assert (summary["study_name"], summary["directions"]) == ("toy", ["maximize"])
        trials = fetch(f"{address}/api/studies/{summary['study_id']}")["trials"]
    values = {
        trial["number"]: trial["values"]
        for trial in trials
        if trial["state"] == "Complete" and trial["values"]
    }
    for trial in result.trials:
        if trial.state is TrialState.COMPLETE:
            assert values[trial.number] == [trial.metrics[OBJECTIVE]]
    states = [trial["state"] for trial in trials]
    assert states.count("Fail") >= sum(trial.state is TrialState.FAILED for trial in result.trials) > 0
    assert "Running" not in states
    params = {param["name"] for trial in trials for param in trial["params"]}
    assert params == {name for trial in result.trials for name, _ in trial.candidate.architecture.choices}
    assert journal.read_bytes() == before if kind == "journal" else True


def test_mlflow_ui_opens_our_store_and_shows_one_run_per_trial(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "runs")
    connect(uri)
    listener = MlflowListener(uri)
    result = searched("memory", listeners=[listener])
    assert listener.summary().pending == listener.summary().failed == 0
    port = free_port()
    words = [script("mlflow"), "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    with server(words, port=port, folder=tmp_path) as address:
        api = f"{address}/api/2.0/mlflow"
        found = fetch(f"{api}/experiments/search", {"max_results": 10})["experiments"]
        [experiment] = [each["experiment_id"] for each in found if each["name"] == "nasgraph"]
        runs = fetch(f"{api}/runs/search", {"experiment_ids": [experiment], "max_results": 100})["runs"]
    assert [run["info"]["run_id"] for run in runs if run["info"]["run_name"] == "toy"] == [listener.run_id]
    by_id = {run["info"]["run_id"]: run for run in runs}
    assert len(by_id) == 1 + len(result.trials)
    for trial in result.trials:
        run_id = listener.trial_run_id(trial.number)
        assert run_id is not None
        run = by_id[run_id]
        metrics = {metric["key"]: metric["value"] for metric in run["data"].get("metrics", [])}
        if trial.state is TrialState.COMPLETE:
            assert run["info"]["status"] == "FINISHED"
            assert metrics[OBJECTIVE] == pytest.approx(trial.metrics[OBJECTIVE])
        else:
            assert run["info"]["status"] == "FAILED"
