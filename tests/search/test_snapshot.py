"""Looking at a study changes nothing and shows what is there, also while another process writes it."""

from pathlib import Path

import pytest

from nasgraph.errors import CandidateError
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph
from nasgraph.search import (
    SearchConfig,
    SearchResult,
    StudyError,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.search.snapshot import StudyView, open_read_only, view_of, view_study
from tests.search.toys import OBJECTIVE, Chain, instant


def fails_for_wide(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
    if len(graph) > 5:
        raise CandidateError("too deep for this test")
    return instant(graph, seed=seed, keep_going=keep_going)


def searched(journal: Path, *, trials: int = 40, resume: bool = False) -> SearchResult:
    space = Chain(widths=2)
    study = create_or_resume(
        open_storage(journal), "toy", space=space, objective=OBJECTIVE, resume=resume, seed=3, data="none",
        sampler=make_sampler("random", seed=3),
    )  # fmt: skip
    return run_search(space, fails_for_wide, study, SearchConfig(num_trials=trials, seed=3))


def view(journal: Path) -> StudyView:
    return view_study(open_read_only(journal), "toy")


def test_a_view_shows_what_the_search_returned(tmp_path: Path) -> None:
    journal = tmp_path / "toy.journal"
    result = searched(journal)
    shown = view(journal)
    assert (shown.study, shown.space, shown.data, shown.seed) == ("toy", "chain", "none", 3)
    assert shown.objectives == ((OBJECTIVE, True),)
    assert [trial.number for trial in shown.trials] == [trial.number for trial in result.trials]
    assert [trial.state for trial in shown.trials] == [trial.state.value for trial in result.trials]
    assert [trial.reason for trial in shown.trials] == [trial.reason for trial in result.trials]
    assert shown.num_duplicates == result.num_duplicates > 0
    assert shown.with_state("failed")
    assert result.best is not None
    assert shown.best is not None
    assert shown.best.number == result.best.number
    assert shown.best_so_far()[-1] == shown.best.values[0]
    finite = [value for value in shown.best_so_far() if value == value]
    assert finite == sorted(finite)
    assert all(trial.ended and trial.started and trial.worker for trial in shown.trials)


def test_looking_writes_nothing_and_sees_what_is_written_later(tmp_path: Path) -> None:
    journal = tmp_path / "toy.journal"
    searched(journal, trials=4)
    journal.chmod(0o444)
    before = journal.read_bytes()
    storage = open_read_only(journal)
    assert len(view_study(storage, "toy").evaluated) == 4
    assert journal.read_bytes() == before
    with pytest.raises(StudyError, match="for reading only"):
        storage.create_new_study([])
    journal.chmod(0o644)
    searched(journal, trials=7, resume=True)
    assert len(view_study(storage, "toy").evaluated) == 7


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    journal, copy = tmp_path / "toy.journal", tmp_path / "copy.journal"
    searched(journal, trials=4)
    data = journal.read_bytes()
    copy.write_bytes(data[:-20])
    storage = open_read_only(copy)
    seen = len(view_study(storage, "toy").evaluated)
    with copy.open("ab") as file:
        file.write(data[-20:])
    assert len(view_study(storage, "toy").evaluated) == 4 >= seen


def test_what_is_no_study_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="Cannot read"):
        open_read_only(tmp_path / "none.journal")
    (tmp_path / "text.journal").write_text("hello\n")
    with pytest.raises(StudyError, match=r"Line 1 .* is damaged"):
        open_read_only(tmp_path / "text.journal")
    (tmp_path / "other.journal").write_text('{"a": 1}\n')
    with pytest.raises(StudyError, match="no record"):
        open_read_only(tmp_path / "other.journal")
    (tmp_path / "empty.journal").write_text("")
    with pytest.raises(KeyError):
        view_study(open_read_only(tmp_path / "empty.journal"), "toy")


def test_an_open_study_gives_the_same_view_as_its_file(tmp_path: Path) -> None:
    result = searched(tmp_path / "toy.journal")
    study = create_or_resume(
        open_storage(tmp_path / "toy.journal"), "toy", space=Chain(widths=2), objective=OBJECTIVE, resume=True, seed=3, data="none"
    )  # fmt: skip
    assert view_of(study) == view(tmp_path / "toy.journal")
    assert view_of(study).num_duplicates == result.num_duplicates
