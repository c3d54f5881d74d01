"""The search: Optuna proposes, an evaluator measures, a study remembers. The only package that imports optuna."""

from optuna import Study
from optuna.pruners import BasePruner as Pruner

from nasgraph.search.curve_pruner import CurvePruner
from nasgraph.search.journal import FileJournal
from nasgraph.search.loop import run_search
from nasgraph.search.pruners import PRUNERS, make_pruner
from nasgraph.search.records import (
    Screen,
    ScreenedCandidate,
    SearchConfig,
    SearchInfo,
    SearchListener,
    SearchResult,
    StudyError,
    TrialResult,
    TrialState,
)
from nasgraph.search.samplers import ReproducibleSampler, make_sampler, sampler_names
from nasgraph.search.storage import open_storage, study_names
from nasgraph.search.study import create_or_resume, study_facts
from nasgraph.search.trial_chooser import TrialChooser

__all__ = [
    "PRUNERS",
    "CurvePruner",
    "FileJournal",
    "Pruner",
    "ReproducibleSampler",
    "Screen",
    "ScreenedCandidate",
    "SearchConfig",
    "SearchInfo",
    "SearchListener",
    "SearchResult",
    "Study",
    "StudyError",
    "TrialChooser",
    "TrialResult",
    "TrialState",
    "create_or_resume",
    "make_pruner",
    "make_sampler",
    "open_storage",
    "run_search",
    "sampler_names",
    "study_facts",
    "study_names",
]
