"""`nasgraph watch` shows a search of another process and leaves it alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nasgraph.pipeline import SearchSettings, Workspace
from nasgraph.search import SearchConfig, create_or_resume, load_study, make_sampler, open_storage, run_search
from tests.commands.running import Cli
from tests.search.processes import fork
from tests.search.toys import OBJECTIVE, Chain, instant, slow

COMMAND = [sys.executable, "-c", "import sys; from nasgraph.commands import main; sys.exit(main())", "watch"]


def search(place: Path | str, *, trials: int = 5, study: str = "toy", seconds: float = 0.0) -> None:
    space = Chain(num_layers=4)
    opened = create_or_resume(
        open_storage(place), study, space=space, objective=OBJECTIVE, resume=False, seed=0, data="none 1234",
        sampler=make_sampler("random", seed=0),
    )  # fmt: skip
    evaluate = slow(Path(os.devnull), seconds) if seconds else instant
    run_search(space, evaluate, opened, SearchConfig(num_trials=trials))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with a search of five trials that is not over."""
    workspace = Workspace(tmp_path / "runs", "toy")
    workspace.begin(SearchSettings(trials=8))
    search(workspace.journal)
    return tmp_path / "runs"


def test_a_study_is_found_by_name_by_folder_and_by_file(cli: Cli, project: Path) -> None:
    ways = (
        ("toy", "--folder", str(project)),
        ("--folder", str(project)),
        (str(project),),
        (str(project / "toy.journal"),),
    )
    for words in ways:
        done = cli("watch", *words, "--json")
        assert done.code == 0, done.err
        assert (done.json["done"], done.json["total"], done.json["complete"]) == (5, 8, 5)
        assert done.json["title"] == "toy · chain · none"
        assert done.json["phase"] == "nothing is being evaluated"


def test_a_study_in_a_database_is_found_by_its_address(cli: Cli, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'studies.db'}"
    search(address, trials=3)
    for words in (("toy",), ()):
        done = cli("watch", *words, "--storage", address, "--json")
        assert done.code == 0, done.err
        assert done.json["done"] == 3
    unknown = cli("watch", "tou", "--storage", address)
    assert unknown.code == 2
    assert "Close: 'toy'" in unknown.err


def test_a_study_in_a_database_brings_its_settings_along(cli: Cli, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'studies.db'}"
    search(address, trials=3)
    study = load_study(open_storage(address), "toy")
    for trials, phase in ((8, "nothing is being evaluated"), (3, "finished")):
        study.set_user_attr("settings", SearchSettings(trials=trials, kept=2).model_dump(mode="json"))
        done = cli("watch", "--storage", address, "--json")
        assert done.code == 0, done.err
        assert (done.json["total"], done.json["phase"]) == (trials, phase)


def test_a_search_that_its_time_ends_has_no_number_of_trials(cli: Cli, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "toy")
    workspace.begin(SearchSettings(trials=1_000_000, time_limit_s=60))
    search(workspace.journal)
    assert cli("watch", str(tmp_path), "--json").json["total"] is None


def test_once_shows_the_state_for_people(cli: Cli, project: Path) -> None:
    done = cli("watch", str(project), "--once")
    assert done.code == 0, done.err
    assert "5/8 trials" in done.err
    assert re.search(r"val_accuracy 0\.\d+ \(trial \d\)", done.err)
    assert "best so far  " in done.err
    assert done.out == ""


def test_a_search_that_is_over_is_watched_to_its_end(cli: Cli, project: Path) -> None:
    Workspace(project, "toy").end({"best": None})
    done = cli("watch", str(project))
    assert done.code == 0, done.err
    assert "finished: 5/8 trials" in done.err


def test_a_dead_search_is_told_from_a_living_one(cli: Cli, tmp_path: Path) -> None:
    journal = tmp_path / "toy.journal"
    pid = fork(lambda: search(journal, trials=1000, seconds=0.3))
    try:
        deadline = time.monotonic() + 60
        while (found := _state(cli, journal)) is None or found["done"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (found["phase"], found["running"], found["workers"], found["orphans"]) in [
            ("searching", 1, 1, 0),
            ("nothing is being evaluated", 0, 0, 0),  # between two trials
        ]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    dead = _state(cli, journal)
    assert dead is not None
    assert dead["running"] == 0
    assert dead["orphans"] == 0 or dead["phase"].startswith("stopped")
    size = journal.stat().st_size
    assert _state(cli, journal) == dead
    assert journal.stat().st_size == size  # looking has written nothing


def _state(cli: Cli, journal: Path) -> dict[str, Any] | None:
    if not journal.exists():
        return None
    done = cli("watch", str(journal), "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_without_a_terminal_a_line_is_printed_whenever_something_changes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "toy")
    workspace.begin(SearchSettings(trials=4, kept=2))
    pid = fork(lambda: search(workspace.journal, trials=4, seconds=0.5))
    try:
        while not workspace.journal.exists():
            time.sleep(0.05)
        with subprocess.Popen(
            [*COMMAND, str(tmp_path), "--interval", "0.2"], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "4/4 trials" in line:
                    workspace.end({})
        assert process.returncode == 0
    finally:
        os.waitpid(pid, 0)
    assert lines[-1].startswith("finished: 4/4 trials")
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ((), 2, "There is no study in 'nasgraph-runs'"),
        (("toz", "--folder", "runs"), 2, "Close: 'toy'"),
        (("runs/text.journal",), 1, "is damaged"),
    ],
)
def test_mistakes_are_one_clear_line(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, reason: str
) -> None:
    monkeypatch.chdir(project.parent)
    (project / "text.journal").write_text("hello\n")
    done = cli("watch", *words, "--once")
    assert done.code == code, done.err
    assert reason in done.err
    assert "this is a bug" not in done.err
