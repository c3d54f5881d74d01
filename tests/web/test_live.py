"""The live view looks at searches of other processes, whatever state their files are in, and leaves them alone."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from nasgraph.errors import UnknownNameError
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modelzoo.store import Zoo
from nasgraph.pipeline import SearchSettings, Workspace
from nasgraph.search import SearchConfig, create_or_resume, make_sampler, open_storage, run_search
from nasgraph.search.pareto import is_nondominated
from nasgraph.web.app import make_app
from nasgraph.web.context import BadRequestError, WebContext, WebSettings
from nasgraph.web.live_page import front_of
from nasgraph.web.progress import Searches, duration
from tests.search.processes import fork
from tests.search.toys import OBJECTIVE, Chain, evaluation, instant, quality, slow
from tests.web.conftest import ADDRESS
from tests.web.reading import Page


def run(folder: Path, *, study: str = "toy", trials: int = 5, wanted: int = 8, seconds: float = 0.0, objective: str = OBJECTIVE) -> None:  # fmt: skip
    """A search of `trials` trials where `wanted` are planned."""
    workspace = Workspace(folder, study)
    if not workspace.state_file.exists():
        workspace.begin(SearchSettings(trials=wanted))
    opened = create_or_resume(
        open_storage(workspace.journal), study, space=Chain(num_layers=4), objective=objective, resume=False, seed=0,
        data="none 1234", sampler=make_sampler("random", seed=0),
    )  # fmt: skip
    evaluate = slow(Path(os.devnull), seconds) if seconds else measured_twice if "," in objective else instant
    run_search(Chain(num_layers=4), evaluate, opened, SearchConfig(num_trials=trials))


def measured_twice(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
    """A value, and what it costs."""
    return evaluation(quality(graph), num_parameters=float(cost_of(graph).num_parameters))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with a search that has done five of eight trials."""
    run(tmp_path)
    return tmp_path


@pytest.fixture
def client_of(zoo: Zoo) -> Callable[[Path | None], TestClient]:
    def make(folder: Path | None) -> TestClient:
        settings = WebSettings(workspace=folder)
        context = WebContext(zoo=zoo, catalogue=zoo.catalogue, settings=settings)
        return TestClient(make_app(context), base_url=ADDRESS)

    return make


ClientOf = Callable[[Path | None], TestClient]


def test_the_list_shows_every_search_with_a_link(client_of: ClientOf, folder: Path) -> None:
    run(folder, study="other", trials=2)
    page = Page(client_of(folder).get("/live").text)
    rows = [row.words for row in page.all("tr")]
    assert any(row.startswith("toy nothing is being evaluated 5 of 8 0.") for row in rows)
    assert {a.attributes["href"] for a in page.all("a")} >= {"/live/toy", "/live/other"}


def test_a_search_shows_progress_best_curve_and_trials_newest_first(
    client_of: ClientOf, folder: Path
) -> None:
    page = Page(client_of(folder).get("/live/toy").text)
    assert page.one("progress").attributes["value"] == "5"
    numbers = [row.words.partition("complete")[0] for row in page.all("tr") if "complete" in row.words]
    assert numbers == ["4", "3", "2", "1", "0"]
    picture = page.one("svg", role="img")
    best = Searches(folder).progress("toy").view
    assert best is not None
    assert best.best is not None
    assert picture.attributes["aria-label"].startswith(
        f"Best so far: best so far ends at {best.best.values[0]:.5g}"
    )
    assert page.one("tr", class_="is-best").words.startswith(str(best.best.number))


def test_htmx_is_given_the_part_that_changes(client_of: ClientOf, folder: Path) -> None:
    client = client_of(folder)
    whole, part = client.get("/live/toy"), client.get("/live/toy", headers={"hx-request": "true"})
    assert "<html" in whole.text
    assert "<html" not in part.text
    assert part.text.strip() in whole.text
    assert part.headers["vary"] == "HX-Request"


def test_a_finished_search_says_so_and_is_not_asked_again(client_of: ClientOf, folder: Path) -> None:
    Workspace(folder, "toy").end({"best": None})
    page = Page(client_of(folder).get("/live/toy").text)
    assert page.one("div", data_over="").attributes["data-phase"] == "finished"


def test_looking_changes_no_file(client_of: ClientOf, folder: Path) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    client = client_of(folder)
    for address in ("/live", "/live/toy"):
        client.get(address)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_a_line_that_is_being_written_is_left_for_later(client_of: ClientOf, folder: Path) -> None:
    journal = Workspace(folder, "toy").journal
    content = journal.read_bytes()
    journal.write_bytes(content[:-9])
    client = client_of(folder)
    assert client.get("/live/toy").status_code == 200
    journal.write_bytes(content)
    assert Page(client.get("/live/toy").text).one("progress").attributes["value"] == "5"


def test_a_damaged_file_is_told_and_hides_no_other_search(client_of: ClientOf, folder: Path) -> None:
    (folder / "broken.journal").write_bytes(b"no json\n")
    client = client_of(folder)
    assert client.get("/live").status_code == 200
    assert "is damaged" in client.get("/live").text
    answer = client.get("/live/broken")
    assert answer.status_code == 409
    assert "damaged" in answer.text
    assert str(folder) not in answer.text


def test_a_file_without_a_study_is_a_search_that_starts(client_of: ClientOf, folder: Path) -> None:
    (folder / "new.journal").write_bytes(b"")
    assert "starting" in client_of(folder).get("/live/new").text


def test_a_file_that_vanished_is_gone_and_may_come_back(client_of: ClientOf, folder: Path) -> None:
    client, journal = client_of(folder), Workspace(folder, "toy").journal
    assert client.get("/live/toy").status_code == 200
    content = journal.read_bytes()
    journal.unlink()
    assert client.get("/live/toy").status_code == 404
    journal.write_bytes(content)
    assert client.get("/live/toy").status_code == 200


def test_a_study_that_was_begun_again_under_its_name_is_read_anew(folder: Path) -> None:
    searches, workspace = Searches(folder), Workspace(folder, "toy")
    assert searches.progress("toy").done == 5
    workspace.journal.unlink()
    run(folder, trials=2)
    assert searches.progress("toy").done == 2


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("nobody", 404),
        ("%2e%2e%2fetc", 400),
        ("a%20b", 400),
        ("<script>", 400),
        ("x" * 101, 400),
    ],
)
def test_names_that_are_no_study_are_refused(
    client_of: ClientOf, folder: Path, name: str, status: int
) -> None:
    answer = client_of(folder).get(f"/live/{name}")
    assert answer.status_code == status
    assert "<script>" not in answer.text.replace('<script src="', "")


def test_without_a_folder_there_is_no_live_view(client_of: ClientOf, tmp_path: Path) -> None:
    assert client_of(None).get("/live").status_code == 404
    page = client_of(tmp_path / "absent").get("/live")
    assert "There is no search" in page.text


def test_several_objectives_have_a_front_that_nothing_beats(client_of: ClientOf, tmp_path: Path) -> None:
    run(tmp_path, trials=8, objective="val_accuracy,min:num_parameters")
    view = Searches(tmp_path).progress("toy").view
    assert view is not None
    complete = view.with_state("complete")
    gains = np.array([trial.values for trial in complete]) * [1, -1]
    front = {trial.number for trial in front_of(view)}
    assert front == {
        trial.number for trial, kept in zip(complete, is_nondominated(gains), strict=True) if kept
    }
    page = Page(client_of(tmp_path).get("/live/toy").text)
    assert len(page.all("svg", role="img")) == 2


@pytest.mark.timeout(120)
def test_a_running_search_is_seen_running_and_a_dead_one_dead(client_of: ClientOf, tmp_path: Path) -> None:
    client = client_of(tmp_path)
    pid = fork(lambda: run(tmp_path, trials=1000, wanted=1000, seconds=0.3))
    try:
        deadline = time.monotonic() + 60
        seen: list[int] = []
        while len(set(seen)) < 3:
            assert time.monotonic() < deadline
            answer = client.get("/live/toy", headers={"hx-request": "true"})
            if answer.status_code == 200 and 'data-phase="searching"' in answer.text:
                seen.append(int(Page(answer.text).one("progress").attributes["value"]))
            time.sleep(0.2)
        assert seen == sorted(seen)
        assert "time left, about" in answer.text
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    time.sleep(3.2)  # longer than what was read is believed
    assert "its process has died" in client.get("/live/toy").text


def test_unknown_studies_and_impossible_names_differ(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        Searches(tmp_path).progress("toy")
    with pytest.raises(BadRequestError):
        Searches(tmp_path).progress("../toy")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7830, "2 h 10 min")]
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
