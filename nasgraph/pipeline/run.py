"""The main job: search, train the winner in earnest, measure it once on test data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from nasgraph.data import DataSet, load_dataset
from nasgraph.errors import NasGraphError
from nasgraph.evaluate import (
    Evaluator,
    NodeTrainConfig,
    PredictedWeightsConfig,
    PredictedWeightsScorer,
    TrainConfig,
    trainer_for,
)
from nasgraph.evaluate.checkpoints import remove_checkpoints
from nasgraph.evaluate.costs import GRAPH_COSTS, CostedEvaluator
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.modelzoo.builtin import builtin_entries
from nasgraph.pipeline.device import pick_device
from nasgraph.pipeline.final import FinalModel, test_winner, train_winner
from nasgraph.pipeline.hypernetworks import find_ghn, open_ghn
from nasgraph.pipeline.settings import SearchSettings, TrainingSettings, settings_from_json
from nasgraph.pipeline.workspace import Workspace
from nasgraph.predict.curves import NetworkCurves, load_curve_network
from nasgraph.search import (
    Cascade,
    CascadeConfig,
    CheckpointCleaner,
    Executor,
    Observation,
    ProcessExecutor,
    Pruner,
    RayConfig,
    RayExecutor,
    SearchConfig,
    SearchListener,
    SearchResult,
    SerialExecutor,
    Study,
    TrialResult,
    WeightsCleaner,
    create_or_resume,
    load_study,
    make_pruner,
    make_sampler,
    open_storage,
    parse_constraints,
    run_search,
    study_names,
    train_finalists,
    usual_cascade,
)
from nasgraph.seeding import derive_seed
from nasgraph.spaces import SearchSpace, load_space
from nasgraph.spaces.around import AroundGraph

OBJECTIVE = "val_accuracy"
CURVE_NETWORK = "lc-pfn"
SETTINGS = "settings"


@dataclass(frozen=True)
class Ingredients:
    """What a search needs, loaded.

    Attributes:
        settings: As given.
        data: The data set; its search part lies on the device.
        space: The search space, fitted to the data.
        ghn: Scores and initialises candidates; None: neither.
        ghn_folder: Where it is from; None without one.
        device: Where everything is computed.
    """

    settings: SearchSettings
    data: DataSet
    space: SearchSpace
    ghn: GraphHyperNetwork | None
    ghn_folder: Path | None
    device: torch.device

    @property
    def ghn_name(self) -> str:
        """Name of the GHN's folder; empty without one."""
        return self.ghn_folder.name if self.ghn_folder is not None else ""


def load_ingredients(
    settings: SearchSettings, *, make_space: Callable[[tuple[int, ...], int], SearchSpace] | None = None
) -> Ingredients:
    """Load data, search space and hypernetwork.

    Args:
        settings: What to load.
        make_space: Makes the space from the shape of one example and the number of classes; None: the one that the settings name.

    Raises:
        NasGraphError: If something is missing, damaged or does not fit; the message says what to do.
    """
    device = pick_device(settings.device, threads=settings.threads)
    data = _load_data(settings, device)
    if make_space is None:
        space = load_space(settings.space, input_shape=data.input_shape, num_classes=data.num_classes)
    else:
        space = make_space(data.input_shape, data.num_classes)
    folder = find_ghn(settings.ghn, data.search, space.name)
    ghn = open_ghn(folder, device=device) if folder is not None else None
    return Ingredients(settings, data, space, ghn, folder, device)


def _load_data(settings: SearchSettings, device: torch.device) -> DataSet:
    data = load_dataset(
        settings.data,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        num_train=settings.num_train,
    )
    return data.to(device)


def train_config(settings: TrainingSettings, *, has_ghn: bool) -> TrainConfig:
    """The evaluator's settings; `init = "auto"` becomes "both" with a hypernetwork and "random" without."""
    fields = settings.model_dump()
    if fields["init"] == "auto":
        fields["init"] = "both" if has_ghn else "random"
    return TrainConfig(**fields)


def node_config(settings: SearchSettings) -> NodeTrainConfig:
    """The evaluator's settings where the data are nodes of a graph."""
    return NodeTrainConfig(**settings.nodes.model_dump())


def open_study(
    parts: Ingredients,
    workspace: Workspace,
    *,
    resume: bool,
    storage: str | None = None,
    or_create: bool = False,
) -> Study:
    """The study of a search, new or continued. See `create_or_resume` for arguments and errors.

    Args:
        parts: What is searched.
        workspace: Names the study and its journal file.
        resume: Continue.
        storage: URL of a storage that several machines share; None: the journal file.
        or_create: With `resume`: create it if it is not there.
    """
    settings = parts.settings
    study = create_or_resume(
        open_storage(storage or workspace.journal),
        workspace.study,
        space=parts.space,
        objective=",".join(settings.objectives),
        resume=resume,
        or_create=or_create,
        seed=settings.seed,
        data=f"{parts.data.name} {parts.data.sha256[:16]}",
        sampler=make_sampler(settings.sampler, seed=settings.seed, space=parts.space),
        pruner=pruner_of(parts),
    )
    if storage is not None and SETTINGS not in study.user_attrs:
        study.set_user_attr(SETTINGS, settings.model_dump(mode="json"))
    if isinstance(parts.space, AroundGraph) and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(parts.space.original.choices))  # the user's own model is the first candidate
    return study


def settings_in_storage(storage: str, study: str) -> SearchSettings | None:
    """The settings of a study that another machine began; None if there is no such study yet.

    Raises:
        StudyError: If the storage cannot be opened.
        NasGraphError: If the study was not begun by a search over a shared storage.
    """
    opened = open_storage(storage)
    if study not in study_names(opened):
        return None
    settings = load_study(opened, study).user_attrs.get(SETTINGS)
    if settings is None:
        raise NasGraphError(f"The study '{study}' holds no settings of a search. Choose another name")
    return settings_from_json(settings, source=f"the study '{study}'")


def pruner_of(parts: Ingredients) -> Pruner:
    """The pruner that the settings name. The curve network is the shipped one.

    A trial that starts from both kinds of weights reports its running best over two trainings. Where the second begins the
    curve says nothing of its end, so nothing is stopped during the first.

    Raises:
        NasGraphError: If the curve network is missing or damaged.
    """
    settings = parts.settings
    train = train_config(settings.train, has_ghn=parts.ghn is not None)
    starts = 2 if train.init == "both" else 1
    predictor = None
    if settings.pruner == "curve":
        shipped = builtin_entries()
        if CURVE_NETWORK not in shipped:
            raise NasGraphError(f"No installed package ships the curve network '{CURVE_NETWORK}'")
        predictor = NetworkCurves(load_curve_network(shipped[CURVE_NETWORK].path))
    epochs = settings.nodes.epochs if parts.data.search.graph is not None else train.epochs
    return make_pruner(
        settings.pruner,
        num_steps=starts * epochs,
        warmup_steps=train.epochs if starts == 2 else 1,
        predictor=predictor,
    )


def search(
    parts: Ingredients,
    study: Study,
    *,
    listeners: Sequence[SearchListener] = (),
    checkpoints: Path | None = None,
    ray: str | None = None,
) -> SearchResult:
    """Screen candidates with the hypernetwork and train the best, then those that the sampler proposes.

    Test data is not touched. See `nasgraph.search.run_search` for guarantees and errors.

    Args:
        parts: What is searched.
        study: From `open_study`.
        listeners: Hear of the progress.
        checkpoints: Folder for trainings that are not over, so that a resumed search goes on in the middle of one; None: nowhere.
        ray: Evaluate on the Ray cluster at this address ("local" starts one here), `settings.workers` at a time; None: here.
    """
    settings = parts.settings
    use_screen = (
        parts.ghn is not None and settings.screened > 0 and settings.kept > 0 and not settings.cascade
    )
    config = SearchConfig(
        num_trials=settings.trials,
        num_screened=settings.screened if use_screen else 0,
        num_kept=settings.kept if use_screen else 0,
        rank_by=settings.rank_by,
        seed=settings.seed,
        time_limit_s=settings.time_limit_s,
        max_flops=settings.max_flops,
        trial_time_limit_s=settings.trial_time_limit_s,
        ahead=settings.ahead,
    )
    screen = None
    if parts.ghn is not None and use_screen:
        scoring = PredictedWeightsConfig(tune_steps=settings.tune_steps, seed=settings.seed)
        screen = PredictedWeightsScorer(parts.ghn, parts.data.search, scoring)
    executor = _executor(parts, checkpoints, ray)
    if checkpoints is not None:
        listeners = [CheckpointCleaner(checkpoints), *listeners]
    weights = weights_folder(settings, checkpoints)
    if weights is not None:
        listeners = [WeightsCleaner(weights), *listeners]
    try:
        return run_search(
            parts.space,
            executor,
            study,
            config,
            screen=screen,
            constraints=parse_constraints(settings.constraints),
            cascade=_cascade(parts) if settings.cascade else None,
            listeners=listeners,
            tags=search_tags(parts),
        )
    finally:
        executor.close()


def _executor(parts: Ingredients, checkpoints: Path | None, ray: str | None) -> Executor:
    settings = parts.settings
    make = partial(_worker_evaluator, settings, parts.ghn_folder, checkpoints)
    if ray is not None:
        config = RayConfig(
            address="" if ray == "local" else ray,
            num_workers=settings.workers,
            num_cpus=settings.threads,
            num_gpus=1.0 if settings.device.startswith("cuda") else 0.0,
        )
        return RayExecutor(make, config)
    if settings.workers > 1:
        return ProcessExecutor(make, settings.workers)
    return SerialExecutor(evaluator_of(parts, checkpoints))


def _cascade(parts: Ingredients) -> Cascade:
    settings = parts.settings
    scoring = PredictedWeightsConfig(tune_steps=settings.tune_steps, seed=settings.seed)
    return usual_cascade(
        parts.data.search,
        CascadeConfig(
            num_candidates=max(1, settings.screened), num_kept=max(1, settings.kept), seed=settings.seed
        ),
        scorer=PredictedWeightsScorer(parts.ghn, parts.data.search, scoring) if parts.ghn else None,
        ghn_rank_by=settings.rank_by,
    )


def evaluator_of(parts: Ingredients, checkpoints: Path | None = None) -> Evaluator:
    """Trains a candidate, and adds the costs of its graph that the search optimises."""
    return _evaluator(parts.settings, parts.data, parts.ghn, checkpoints)


def weights_folder(settings: SearchSettings, checkpoints: Path | None) -> Path | None:
    """Where trained weights are kept for the children of an evolution: beside the checkpoints; None: nowhere."""
    if not settings.inherit or checkpoints is None:
        return None
    return checkpoints.with_name(f"{checkpoints.name.removesuffix('.checkpoints')}.weights")


def _evaluator(
    settings: SearchSettings, data: DataSet, ghn: GraphHyperNetwork | None, checkpoints: Path | None
) -> Evaluator:
    config = train_config(settings.train, has_ghn=ghn is not None)
    costs = tuple(name for name in settings.objectives_by_name if name in GRAPH_COSTS)
    return CostedEvaluator(
        trainer_for(
            data.search,
            config,
            ghn,
            checkpoints,
            nodes=node_config(settings),
            weights=weights_folder(settings, checkpoints),
        ),
        costs,
    )


def _worker_evaluator(
    settings: SearchSettings, ghn_folder: Path | None, checkpoints: Path | None, worker: int
) -> Evaluator:
    """The evaluator of a worker process: it loads data and GHN itself. CUDA devices are shared out in turn."""
    if settings.device in ("auto", "cuda") and torch.cuda.is_available():
        settings = settings.model_copy(update={"device": f"cuda:{worker % torch.cuda.device_count()}"})
    device = pick_device(settings.device, threads=settings.threads)
    ghn = open_ghn(ghn_folder, device=device) if ghn_folder is not None else None
    return _evaluator(settings, _load_data(settings, device), ghn, checkpoints)


def search_tags(parts: Ingredients) -> dict[str, str]:
    """Facts of a search for the record."""
    return {
        "data": parts.data.name,
        "data_sha256": parts.data.sha256,
        "split_seed": str(parts.data.split_seed),
        "ghn": parts.ghn_name,
        "device": str(parts.device),
        "settings": parts.settings.model_dump_json(),
    }


def finish(
    parts: Ingredients, result: SearchResult, study: Study | None = None, *, checkpoints: Path | None = None
) -> FinalModel:
    """Train the best candidate of a search for long and measure it on test data: the only time they are touched.

    With `settings.finalists` above 1, so many of the best trials are trained, and the best of them by validation accuracy
    is the winner.

    Args:
        parts: What was searched.
        result: The search.
        study: Keeps what each finalist reached, so that a finish that was killed goes on; needed for several finalists.
        checkpoints: As in `search`.

    Raises:
        NasGraphError: If no trial was complete, or every finalist failed.
        CandidateError: If the training of the only one breaks down.
    """
    if result.best is None:
        raise NasGraphError(f"No trial of the study '{result.study}' is complete, so there is no winner")
    config = train_config(parts.settings.final, has_ghn=parts.ghn is not None)
    if parts.settings.finalists == 1 or study is None:
        seed = derive_seed(parts.settings.seed, "final") % 2**31
        nodes = node_config(parts.settings)
        return train_winner(result.best.candidate, parts.data, config, ghn=parts.ghn, seed=seed, nodes=nodes)
    evaluate = trainer_for(
        parts.data.search, config, parts.ghn, checkpoints, nodes=node_config(parts.settings)
    )
    finals = train_finalists(
        study,
        [observation_of(trial) for trial in result.trials],
        evaluate,
        count=parts.settings.finalists,
        seed=parts.settings.seed,
    )
    winner = finals.finalists[0].candidate
    if checkpoints is not None:
        for finalist in finals.finalists:
            remove_checkpoints(checkpoints, finalist.candidate.graph.fingerprint)
    return test_winner(winner, finals.evaluation, parts.data, config)


def observation_of(trial: TrialResult) -> Observation:
    """A trial as an observation of its validation accuracy, the first objective."""
    return Observation(trial.number, trial.candidate, trial.state, trial.values)
