"""Studies are created once and continued as what they are."""

from pathlib import Path
from typing import Literal

import optuna
import pytest

from nasgraph.errors import UnknownNameError
from nasgraph.search import SearchConfig, StudyError, create_or_resume, open_storage, run_search, study_facts
from nasgraph.spaces import SearchSpace
from tests.search.toys import OBJECTIVE, Chain, Conditional, instant


def open_study(
    path: Path | str,
    *,
    resume: bool,
    name: str = "study",
    space: SearchSpace | None = None,
    objective: str = OBJECTIVE,
    seed: int = 0,
    data: str = "digits",
) -> optuna.Study:
    return create_or_resume(
        open_storage(path),
        name,
        space=space or Chain(),
        objective=objective,
        resume=resume,
        seed=seed,
        data=data,
    )


def test_a_new_study_knows_what_it_searches(tmp_path: Path) -> None:
    open_study(tmp_path / "journal", resume=False)
    facts = study_facts(open_study(tmp_path / "journal", resume=True))
    assert facts == {
        "schema": "nasgraph/study/1",
        "space": "chain",
        "input_shape": [4],
        "num_classes": 3,
        "data": "digits",
        "objective": OBJECTIVE,
        "seed": 0,
    }


def test_an_existing_study_is_not_continued_by_accident(tmp_path: Path) -> None:
    open_study(tmp_path / "journal", resume=False)
    with pytest.raises(StudyError, match=r"The study 'study' exists. Continue it with --resume"):
        open_study(tmp_path / "journal", resume=False)
    open_study(tmp_path / "journal", resume=False, name="another")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": Conditional(input_shape=(4,), num_classes=3)}, "space 'chain', not 'conditional'"),
        ({"space": Chain(input_shape=(5,))}, r"input_shape \[4\], not \[5\]"),
        ({"space": Chain(num_classes=2)}, "num_classes 3, not 2"),
        ({"objective": "val_loss"}, "objective 'val_accuracy', not 'val_loss'"),
        ({"data": "mnist"}, "data 'digits', not 'mnist'"),
        ({"seed": 1}, "seed 0, not 1"),
    ],
)
def test_a_study_is_not_continued_as_something_else(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    open_study(tmp_path / "journal", resume=False)
    with pytest.raises(StudyError, match=message):
        open_study(tmp_path / "journal", resume=True, **changed)  # type: ignore[arg-type]


def test_resuming_an_unknown_study_offers_the_known(tmp_path: Path) -> None:
    open_study(tmp_path / "journal", resume=False, name="first")
    with pytest.raises(UnknownNameError, match=r"No study named 'frist'. Close: 'first'"):
        open_study(tmp_path / "journal", resume=True, name="frist")


def test_resuming_in_an_empty_storage_starts(tmp_path: Path) -> None:
    assert open_study(tmp_path / "journal", resume=True).trials == []


def test_a_study_cut_off_at_birth_is_completed(tmp_path: Path) -> None:
    optuna.create_study(storage=open_storage(tmp_path / "journal"), study_name="study", direction="maximize")
    assert study_facts(open_study(tmp_path / "journal", resume=True))["space"] == "chain"


def test_a_foreign_study_is_refused(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "journal"), study_name="study")
    study.tell(study.ask(), 1.0)
    with pytest.raises(StudyError, match="was not made by nasgraph"):
        open_study(tmp_path / "journal", resume=True)


def test_a_search_refuses_the_study_of_another_space(tmp_path: Path) -> None:
    study = open_study("memory", resume=False)
    with pytest.raises(StudyError, match="space 'chain', not 'conditional'"):
        run_search(Conditional(input_shape=(4,), num_classes=3), instant, study, SearchConfig(num_trials=1))


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]])
def test_a_search_maximises_one_number(directions: list[Literal["minimize", "maximize"]]) -> None:
    study = optuna.create_study(directions=directions)
    with pytest.raises(StudyError, match="to maximise one number"):
        run_search(Chain(), instant, study, SearchConfig(num_trials=1))


def test_a_study_made_by_optuna_serves_too() -> None:
    study = optuna.create_study(direction="maximize")
    assert len(run_search(Chain(), instant, study, SearchConfig(num_trials=5)).trials) == 5


def test_a_space_that_changed_is_noticed() -> None:
    study = open_study("memory", resume=False)
    run_search(Chain(num_layers=3), instant, study, SearchConfig(num_trials=3))
    with pytest.raises(StudyError, match="no longer gives the graph of trial 0"):
        run_search(Chain(num_layers=4), instant, study, SearchConfig(num_trials=5))
