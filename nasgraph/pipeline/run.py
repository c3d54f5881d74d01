"""The main job: search, train the winner in earnest, measure it once on test data."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nasgraph.data import DataSet, load_dataset
from nasgraph.errors import NasGraphError
from nasgraph.evaluate import PredictedWeightsConfig, PredictedWeightsScorer, TrainConfig, TrainEvaluator
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.modelzoo.builtin import builtin_entries
from nasgraph.pipeline.device import pick_device
from nasgraph.pipeline.final import FinalModel, train_winner
from nasgraph.pipeline.hypernetworks import find_ghn, open_ghn
from nasgraph.pipeline.settings import SearchSettings, TrainingSettings
from nasgraph.pipeline.workspace import Workspace
from nasgraph.predict.curves import NetworkCurves, load_curve_network
from nasgraph.search import (
    Pruner,
    SearchConfig,
    SearchListener,
    SearchResult,
    Study,
    create_or_resume,
    make_pruner,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.seeding import derive_seed
from nasgraph.spaces import SearchSpace, load_space

OBJECTIVE = "val_accuracy"
CURVE_NETWORK = "lc-pfn"


@dataclass(frozen=True)
class Ingredients:
    """What a search needs, loaded.

    Attributes:
        settings: As given.
        data: The data set; its search part lies on the device.
        space: The search space, fitted to the data.
        ghn: Scores and initialises candidates; None: neither.
        ghn_name: Where it is from; empty without one.
        device: Where everything is computed.
    """

    settings: SearchSettings
    data: DataSet
    space: SearchSpace
    ghn: GraphHyperNetwork | None
    ghn_name: str
    device: torch.device


def load_ingredients(settings: SearchSettings) -> Ingredients:
    """Load data, search space and hypernetwork.

    Raises:
        NasGraphError: If something is missing, damaged or does not fit; the message says what to do.
    """
    device = pick_device(settings.device, threads=settings.threads)
    data = load_dataset(
        settings.data,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        num_train=settings.num_train,
    )
    data = data.to(device)
    space = load_space(settings.space, input_shape=data.input_shape, num_classes=data.num_classes)
    folder = find_ghn(settings.ghn, data.search, settings.space)
    ghn = open_ghn(folder, device=device) if folder is not None else None
    return Ingredients(settings, data, space, ghn, folder.name if folder is not None else "", device)


def train_config(settings: TrainingSettings, *, has_ghn: bool) -> TrainConfig:
    """The evaluator's settings; `init = "auto"` becomes "both" with a hypernetwork and "random" without."""
    fields = settings.model_dump()
    if fields["init"] == "auto":
        fields["init"] = "both" if has_ghn else "random"
    return TrainConfig(**fields)


def open_study(parts: Ingredients, workspace: Workspace, *, resume: bool) -> Study:
    """The study of a search in its journal file, new or continued. See `create_or_resume` for errors."""
    return create_or_resume(
        open_storage(workspace.journal),
        workspace.study,
        space=parts.space,
        objective=OBJECTIVE,
        resume=resume,
        seed=parts.settings.seed,
        data=f"{parts.data.name} {parts.data.sha256[:16]}",
        sampler=make_sampler(parts.settings.sampler, seed=parts.settings.seed),
        pruner=pruner_of(parts),
    )


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
    return make_pruner(
        settings.pruner,
        num_steps=starts * train.epochs,
        warmup_steps=train.epochs if starts == 2 else 1,
        predictor=predictor,
    )


def search(parts: Ingredients, study: Study, *, listeners: Sequence[SearchListener] = ()) -> SearchResult:
    """Screen candidates with the hypernetwork and train the best, then those that the sampler proposes.

    Test data is not touched. See `nasgraph.search.run_search` for guarantees and errors.
    """
    settings = parts.settings
    use_screen = parts.ghn is not None and settings.screened > 0 and settings.kept > 0
    config = SearchConfig(
        num_trials=settings.trials,
        num_screened=settings.screened if use_screen else 0,
        num_kept=settings.kept if use_screen else 0,
        rank_by=settings.rank_by,
        seed=settings.seed,
        time_limit_s=settings.time_limit_s,
        trial_time_limit_s=settings.trial_time_limit_s,
    )
    screen = None
    if parts.ghn is not None and use_screen:
        scoring = PredictedWeightsConfig(tune_steps=settings.tune_steps, seed=settings.seed)
        screen = PredictedWeightsScorer(parts.ghn, parts.data.search, scoring)
    evaluate = TrainEvaluator(
        parts.data.search, train_config(settings.train, has_ghn=parts.ghn is not None), parts.ghn
    )
    return run_search(
        parts.space, evaluate, study, config, screen=screen, listeners=listeners, tags=search_tags(parts)
    )


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


def finish(parts: Ingredients, result: SearchResult) -> FinalModel:
    """Train the best candidate of a search for long and measure it on test data: the only time they are touched.

    Raises:
        NasGraphError: If no trial was complete.
        CandidateError: If the training breaks down.
    """
    if result.best is None:
        raise NasGraphError(f"No trial of the study '{result.study}' is complete, so there is no winner")
    config = train_config(parts.settings.final, has_ghn=parts.ghn is not None)
    seed = derive_seed(parts.settings.seed, "final") % 2**31
    return train_winner(result.best.candidate, parts.data, config, ghn=parts.ghn, seed=seed)
