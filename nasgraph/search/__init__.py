"""The search: Optuna proposes, an evaluator measures, a study remembers. The only package that imports optuna."""

from optuna import Study
from optuna.pruners import BasePruner as Pruner

from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.budget import Budget, parse_budget
from nasgraph.search.cascade import Cascade
from nasgraph.search.cascade_finals import Finals, train_finalists
from nasgraph.search.cascade_records import CascadeConfig, CascadeRound, Stage
from nasgraph.search.cascade_rounds import rounds_of
from nasgraph.search.cascade_stages import usual_cascade
from nasgraph.search.checkpoint_cleaner import CheckpointCleaner
from nasgraph.search.constraints import (
    Constraint,
    Constraints,
    UnsatisfiableError,
    parse_constraint,
    parse_constraints,
)
from nasgraph.search.curve_pruner import CurvePruner
from nasgraph.search.executors import Executor, SerialExecutor, Task
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.journal import FileJournal
from nasgraph.search.loop import run_search
from nasgraph.search.objectives import Objective, parse_objective, parse_objectives
from nasgraph.search.pareto import hypervolume, hypervolume_so_far, pareto_front, reference_point
from nasgraph.search.processes import Constant, ProcessExecutor
from nasgraph.search.pruners import PRUNERS, make_pruner
from nasgraph.search.ray_executor import RayConfig, RayExecutor
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
from nasgraph.search.snapshot import StudyView, open_read_only, view_of, view_study
from nasgraph.search.storage import open_storage, study_names
from nasgraph.search.study import create_or_resume, finishing, load_study, objectives_of, study_facts
from nasgraph.search.study_report import StudyGroup, study_report
from nasgraph.search.trial_chooser import TrialChooser, choices_of, parameter_name
from nasgraph.search.weights_cleaner import WeightsCleaner

__all__ = [
    "PRUNERS",
    "ArchitectureSampler",
    "Budget",
    "Cascade",
    "CascadeConfig",
    "CascadeRound",
    "CheckpointCleaner",
    "Constant",
    "Constraint",
    "Constraints",
    "CurvePruner",
    "Executor",
    "Experience",
    "FileJournal",
    "Finals",
    "Objective",
    "Observation",
    "ProcessExecutor",
    "Pruner",
    "RayConfig",
    "RayExecutor",
    "ReproducibleSampler",
    "Screen",
    "ScreenedCandidate",
    "SearchConfig",
    "SearchInfo",
    "SearchListener",
    "SearchResult",
    "SerialExecutor",
    "Stage",
    "Study",
    "StudyError",
    "StudyGroup",
    "StudyView",
    "Task",
    "TrialChooser",
    "TrialResult",
    "TrialState",
    "UnsatisfiableError",
    "WeightsCleaner",
    "choices_of",
    "create_or_resume",
    "finishing",
    "hypervolume",
    "hypervolume_so_far",
    "load_study",
    "make_pruner",
    "make_sampler",
    "objectives_of",
    "open_read_only",
    "open_storage",
    "parameter_name",
    "pareto_front",
    "parse_budget",
    "parse_constraint",
    "parse_constraints",
    "parse_objective",
    "parse_objectives",
    "reference_point",
    "rounds_of",
    "run_search",
    "sampler_names",
    "study_facts",
    "study_names",
    "study_report",
    "train_finalists",
    "usual_cascade",
    "view_of",
    "view_study",
]
