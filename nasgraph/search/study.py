"""Creating a study, and continuing the right one."""

import re

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from nasgraph.errors import UnknownNameError
from nasgraph.search.objectives import HIGHER_IS_BETTER, Objective, parse_objectives
from nasgraph.search.records import StudyError
from nasgraph.search.samplers import make_sampler
from nasgraph.search.storage import study_names
from nasgraph.spaces import SearchSpace

FACTS = "nasgraph"
SCHEMA = "nasgraph/study/1"

Fact = str | int | list[int]


def create_or_resume(
    storage: BaseStorage,
    study_name: str,
    *,
    space: SearchSpace,
    objective: str,
    resume: bool,
    seed: int,
    data: str = "",
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """A study that optimises one or several metrics over one space, new or continued.

    What identifies it (space, shape of the data, data set, objective, seed) is kept in the study, so that it cannot be
    continued as something else. An interrupted creation is completed.

    Args:
        storage: From `open_storage`.
        study_name: Name, unique in the storage.
        space: What is searched.
        objective: Name of the metric that is maximised; or objectives as `parse_objectives` reads them.
        resume: Whether to continue an existing study. In a storage without any study this creates it, so that a search
            killed before it had a study can be resumed like any other.
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
    if resume and names and study_name not in names:
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
    return study


def objectives_from(text: str) -> tuple[Objective, ...]:
    """Objectives from what `create_or_resume` takes: a single word that says no direction is maximised."""
    if re.fullmatch(r"\w+", text) and text not in HIGHER_IS_BETTER:
        return (Objective(text, maximise=True),)
    return parse_objectives(text)


def objectives_of(study: optuna.Study) -> tuple[Objective, ...]:
    """What a study optimises; empty if it does not say."""
    text = str(study_facts(study).get("objective", ""))
    return objectives_from(text) if text else ()


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


def _refuse_different(study_name: str, known: dict[str, Fact], wanted: dict[str, Fact]) -> None:
    different = [
        f"{key} {known.get(key)!r}, not {value!r}" for key, value in wanted.items() if known.get(key) != value
    ]
    if different:
        raise StudyError(
            f"The study '{study_name}' was started with {'; '.join(different)}. "
            "Repeat the command as it was, or choose another study name"
        )
