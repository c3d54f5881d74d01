"""The journal: Optuna's own contract for storages, and what ours promises beyond it."""

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages.journal._storage import JournalOperation
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState as OptunaState

from nasgraph.search import FileJournal, SearchConfig, StudyError, open_storage, study_names
from nasgraph.search import journal as journal_module
from tests.search.processes import STUDY, exit_code, fork, load, search


class TestJournalKeepsOptunasContract(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return open_storage(tmp_path / "journal")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of five finished trials."""
    path = tmp_path / "journal"
    study = new_study(path)
    for number in range(5):
        finish_one(study, number)
    return path


def new_study(path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(path), study_name=STUDY, direction="maximize")


def finish_one(study: optuna.Study, value: float) -> None:
    trial = study.ask()
    trial.suggest_categorical("choice", ["a", "b"])
    trial.set_user_attr("fingerprint", str(value))
    study.tell(trial, value)


def values(path: Path) -> list[float | None]:
    return [trial.value for trial in load(path).trials if trial.state.is_finished()]


def test_the_operation_codes_are_optunas() -> None:
    for operation in JournalOperation:
        assert getattr(journal_module, operation.name, operation) == operation


def test_optunas_own_backend_reads_our_file(journal: Path) -> None:
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name=STUDY)
    assert [trial.value for trial in study.trials] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tail", [b"{", b'{"op_code":4,"worker_id"', b"\0\0\0", b'{"op_code":6}' * 200_000])
def test_a_torn_last_line_is_cut_off(journal: Path, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    assert values(journal) == [0, 1, 2, 3, 4]
    assert "torn last line" in caplog.text
    assert journal.read_bytes() == whole


def test_a_tail_that_another_process_leaves_is_cut_off_before_the_next_record(journal: Path) -> None:
    study = load(journal)
    with journal.open("ab") as file:
        file.write(b'{"op_code":5,"wor')
    finish_one(study, 5)
    assert values(journal) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "damage", [b"nonsense", b"\xff\xfe", b"[]", b"7", b"{}", b"[" * 100_000, b'{"op_code":99}']
)
def test_a_damaged_line_is_named(journal: Path, damage: bytes) -> None:
    lines = journal.read_bytes().split(b"\n")
    lines[6] = damage
    journal.write_bytes(b"\n".join(lines))
    with pytest.raises(StudyError, match="Line 7 of the study file"):
        open_storage(journal)


@pytest.mark.parametrize("field", ["op_code", "trial_id", "distribution", "state", "study_id"])
def test_a_record_that_makes_no_sense_is_named(journal: Path, field: str) -> None:
    lines = journal.read_bytes().splitlines()
    place = next(index for index, line in enumerate(lines) if field in json.loads(line))
    record = json.loads(lines[place])
    record[field] = {"not": "this"}
    lines[place] = json.dumps(record).encode()
    journal.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(StudyError, match=f"Line {place + 1} of the study file"):
        open_storage(journal)


def test_another_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\nit rained\n")
    with pytest.raises(StudyError, match=r"Line 1 of the study file .* is damaged"):
        open_storage(path)
    assert path.read_text() == "dear diary\nit rained\n"


def test_a_full_disk_is_a_clear_error_and_loses_nothing(journal: Path, tmp_path: Path) -> None:
    limit = journal.stat().st_size + 10_000

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        study, told = load(journal), 5
        try:
            while True:
                finish_one(study, told)
                told += 1
        except StudyError as error:
            (tmp_path / "message").write_text(f"{told}\n{error}")

    assert exit_code(fork(fill)) == 0
    told, message = (tmp_path / "message").read_text().split("\n")
    assert "Cannot write to the study file" in message
    assert "safe" in message
    assert int(told) > 10
    assert values(journal) == list(range(int(told)))
    assert journal.read_bytes().endswith(b"\n")
    finish_one(load(journal), int(told))
    assert len(values(journal)) == int(told) + 1


def test_a_full_disk_stops_a_search_that_can_be_resumed(tmp_path: Path) -> None:
    path, config = tmp_path / "journal", SearchConfig(num_trials=25, seed=9)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        with pytest.raises(StudyError, match="Cannot write to the study file"):
            search(path, config)

    assert exit_code(fork(fill)) == 0
    before = values(path)
    assert 3 < len(before) < 25
    assert search(path, config).stopped_because == "finished"
    search(tmp_path / "reference", config)
    assert values(path) == values(tmp_path / "reference")
    assert values(path)[: len(before)] == before


def test_a_deleted_file_is_noticed(journal: Path) -> None:
    study = load(journal)
    journal.unlink()
    with pytest.raises(StudyError, match="was deleted or replaced"):
        finish_one(study, 5)


def test_a_child_process_does_not_share_its_parents_lock(journal: Path) -> None:
    backend = FileJournal(journal)
    num_records = len(list(backend.read_logs(0)))
    record = {"op_code": 2, "worker_id": "someone", "study_id": 0, "user_attr": {"text": "x" * 20_000}}

    def append() -> None:
        for _ in range(100):
            backend.append_logs([record])
            assert record in backend.read_logs(num_records)

    children = [fork(append) for _ in range(2)]
    append()
    assert [exit_code(pid) for pid in children] == [0, 0]
    assert list(backend.read_logs(num_records)) == [record] * 300


def test_a_lock_dies_with_its_holder(journal: Path, tmp_path: Path) -> None:
    def hold() -> None:
        with FileJournal(journal)._locked():
            (tmp_path / "held").touch()
            time.sleep(60)

    pid = fork(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    finish_one(load(journal), 5)
    assert exit_code(pid) == -signal.SIGKILL
    assert len(values(journal)) == 6


def test_only_the_end_of_a_trial_waits_for_the_disk(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, syncs = load(journal), 0
    real: Callable[[int], None] = os.fsync

    def counting(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    trial = study.ask()
    trial.suggest_int("width", 1, 3)
    trial.set_user_attr("owner", "me")
    trial.report(0.5, 0)
    assert syncs == 0
    study.tell(trial, 1.0)
    assert syncs == 1
    study.enqueue_trial({"width": 2})
    assert syncs == 1
    study.set_user_attr("screening", "done")
    assert syncs == 2


def test_places(tmp_path: Path) -> None:
    assert isinstance(open_storage("memory"), InMemoryStorage)
    study = optuna.create_study(
        storage=open_storage(f"sqlite:///{tmp_path}/study.db"), study_name="in a database"
    )
    finish_one(study, 1)
    assert study_names(open_storage(f"sqlite:///{tmp_path}/study.db")) == ("in a database",)
    assert study_names(open_storage(tmp_path / "new" / "folder" / "journal")) == ()
    with pytest.raises(StudyError, match="Expected a file"):
        open_storage(tmp_path)
    with pytest.raises(StudyError, match="Cannot open the study file"):
        open_storage(Path("/proc/nowhere/journal"))


@pytest.mark.parametrize("url", ["nosuch://user:secret@host/name", "sqlite:////proc/nowhere/study.db", "://"])
def test_an_unusable_database_is_a_clear_error_without_the_password(url: str) -> None:
    with pytest.raises(StudyError, match="database") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_trial_is_lost_between_two_readers(journal: Path) -> None:
    first, second = load(journal), load(journal)
    for number in range(5, 15):
        finish_one((first, second)[number % 2], number)
    assert [t.value for t in first.trials] == [t.value for t in second.trials] == list(range(15))
    assert all(t.state == OptunaState.COMPLETE for t in first.trials)
