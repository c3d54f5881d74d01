"""Creating a study, and continuing the right one."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection

from nasgraph.errors import UnknownNameError
from nasgraph.search import owners
from nasgraph.search.objectives import HIGHER_IS_BETTER, Objective, parse_objectives
from nasgraph.search.owners import Heartbeats, Owner, heartbeat, is_dead, is_here, machine_lock, run_identity
from nasgraph.search.records import StudyError
from nasgraph.search.samplers import make_sampler
from nasgraph.search.storage import study_names
from nasgraph.spaces import Choice, SearchSpace
from nasgraph.spaces.grow import growth_of

FACTS = "nasgraph"
GROWTH = "nasgraph growth"
SCHEMA = "nasgraph/study/1"
FINISHER = "finisher"
IS_OVER = "is_over"
SETTLE_S = 0.2

Fact = str | int | list[int]


def create_or_resume(
    storage: BaseStorage,
    study_name: str,
    *,
    space: SearchSpace,
    objective: str,
    resume: bool,
    or_create: bool = False,
    seed: int,
    data: str = "",
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """A study that optimises one or several metrics over one space, new or continued.

    What identifies it (space, shape of the data, data set, objective, seed) is kept in the study, so that it cannot be
    continued as something else; a space that has grown since (`nasgraph.spaces.grow`) is the same. An interrupted creation is
    completed.

    Args:
        storage: From `open_storage`.
        study_name: Name, unique in the storage.
        space: What is searched.
        objective: Name of the metric that is maximised; or objectives as `parse_objectives` reads them.
        resume: Whether to continue an existing study. In a storage without any study this creates it, so that a search
            killed before it had a study can be resumed like any other.
        or_create: With `resume`: create it also if there are other studies.
        seed: Seed of the search.
        data: Name or hash of the data set.
        sampler: Proposes candidates; None: TPE with this seed, from `make_sampler`.
        pruner: Stops hopeless evaluations; None: none.

    Raises:
        StudyError: If the study exists and `resume` is False, or it searches something else, or was not made here.
        UnknownNameError: If `resume` is True and there are other studies, but none of that name.
    """

    names = study_names(storage)
    if study_name in names and not resume:
        raise _exists(study_name)
    if resume and not or_create and names and study_name not in names:
        raise UnknownNameError("study", study_name, names)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=study_name,
            directions=[
                StudyDirection.MAXIMIZE if each.maximise else StudyDirection.MINIMIZE
                for each in objectives_from(objective)
            ],
            sampler=sampler or make_sampler("tpe", seed=seed),
            pruner=pruner or NopPruner(),
            load_if_exists=resume,
        )
    except DuplicatedStudyError as error:
        raise _exists(study_name) from error
    facts: dict[str, Fact] = {
        "schema": SCHEMA,
        "space": space.name,
        "input_shape": list(space.input_shape),
        "num_classes": space.num_classes,
        "data": data,
        "objective": objective,
        "seed": seed,
    }
    _check_same(study, facts)
    _check_growth(study, space)
    return study


def load_study(storage: BaseStorage, study_name: str) -> optuna.Study:
    """A study that exists, to read. Raises `UnknownNameError` if there is none of that name."""
    names = study_names(storage)
    if study_name not in names:
        raise UnknownNameError("study", study_name, names)
    return optuna.load_study(storage=storage, study_name=study_name)


def objectives_from(text: str) -> tuple[Objective, ...]:
    """Objectives from what `create_or_resume` takes: a single word that says no direction is maximised."""
    if re.fullmatch(r"\w+", text) and text not in HIGHER_IS_BETTER:
        return (Objective(text, maximise=True),)
    return parse_objectives(text)


def objectives_of(study: optuna.Study) -> tuple[Objective, ...]:
    """What a study optimises; empty if it does not say."""
    text = str(study_facts(study).get("objective", ""))
    return objectives_from(text) if text else ()


@contextmanager
def finishing(study: optuna.Study) -> Iterator[bool]:
    """Whether this process should do what comes after the search, such as training the winner: one of all that took part.

    The first to ask does it; if it dies or fails, the next that asks.
    """
    if isinstance(study._storage, InMemoryStorage):
        yield True
        return
    with run_identity() as owner, heartbeat(study, owner):
        with machine_lock():
            claimed = study.user_attrs.get(FINISHER)
            if study.user_attrs.get(IS_OVER) or (
                claimed and not is_dead(claimed) and (is_here(claimed) or _still_beats(study, claimed))
            ):
                mine = False
            else:
                study.set_user_attr(FINISHER, dict(owner))
                mine = True
        if mine:
            time.sleep(
                SETTLE_S
            )  # a process of another machine may have claimed it at the same moment: the last one has it
            mine = study.user_attrs[FINISHER] == owner
        yield mine
        if mine:
            study.set_user_attr(IS_OVER, True)


def _still_beats(study: optuna.Study, owner: Owner) -> bool:
    beats, until = Heartbeats(), time.monotonic() + owners.GRACE_S + 1.0
    while not beats.has_stopped(study, owner):
        if beats.num_changes(owner) or time.monotonic() > until:
            return True
        time.sleep(1.0)
    return False


def study_facts(study: optuna.Study) -> dict[str, Fact]:
    """What `create_or_resume` wrote into a study: space, input_shape, num_classes, data, objective and seed. Empty for
    a study that was made otherwise."""
    return dict(study.user_attrs.get(FACTS, {}))


def check_study(study: optuna.Study, space: SearchSpace) -> None:
    """Refuse a study that belongs to another space, or was not made here and does not maximise a single number.

    Raises:
        StudyError: If so.
    """
    if not objectives_of(study) and study.directions != [StudyDirection.MAXIMIZE]:
        raise StudyError(
            f"Expected the study '{study.study_name}' to maximise one number: direction='maximize'"
        )
    facts = study_facts(study)
    mine: dict[str, Fact] = {
        "space": space.name,
        "input_shape": list(space.input_shape),
        "num_classes": space.num_classes,
    }
    _refuse_different(study.study_name, {key: facts.get(key, value) for key, value in mine.items()}, mine)


def _exists(study_name: str) -> StudyError:
    return StudyError(f"The study '{study_name}' exists. Continue it with --resume, or choose another name")


def _check_same(study: optuna.Study, facts: dict[str, Fact]) -> None:
    known = study_facts(study)
    if known:
        _refuse_different(study.study_name, known, facts)
    elif study.get_trials(deepcopy=False):
        raise StudyError(f"The study '{study.study_name}' was not made by nasgraph. Choose another name")
    else:
        study.set_user_attr(FACTS, facts)


def _check_growth(study: optuna.Study, space: SearchSpace) -> None:
    """Note how a space has grown. Refuse one that has grown less than the study, or otherwise."""
    known: dict[str, list[list[Choice]]] = study.user_attrs.get(GROWTH, {})
    mine = growth_of(space)
    for name, steps in known.items():
        if mine.get(name, [])[: len(steps)] != steps:
            raise StudyError(
                f"The choice '{name}' of the study '{study.study_name}' has grown by {steps}, and that of the space by "
                f"{mine.get(name, [])}. Grow the space in the same steps: nasgraph.spaces.grow"
            )
    if mine != known:
        study.set_user_attr(GROWTH, mine)


def _refuse_different(study_name: str, known: dict[str, Fact], wanted: dict[str, Fact]) -> None:
    different = [
        f"{key} {known.get(key)!r}, not {value!r}" for key, value in wanted.items() if known.get(key) != value
    ]
    if different:
        raise StudyError(
            f"The study '{study_name}' was started with {'; '.join(different)}. "
            "Repeat the command as it was, or choose another study name"
        )
