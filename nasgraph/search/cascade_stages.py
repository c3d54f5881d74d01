"""The stages that a cascade is usually made of, from free to dear."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from nasgraph.data import SearchData, Split
from nasgraph.errors import ConfigError
from nasgraph.evaluate.costs import GraphCosts
from nasgraph.evaluate.predicted import PredictedWeightsScorer
from nasgraph.ir import ComputationalGraph
from nasgraph.predict import EnsembleConfig, GraphPredictor, proxy_scores
from nasgraph.predict.zero_cost import load_proxy
from nasgraph.search.cascade import Cascade
from nasgraph.search.cascade_records import CascadeConfig, Labelled, LearntScreen, Scores, Stage
from nasgraph.search.records import Screen

Array = np.ndarray


def cost_stage(
    *,
    keep: float,
    rank_by: tuple[str, ...] = ("log_multiply_adds",),
    names: tuple[str, ...] = ("num_parameters", "multiply_adds", "depth"),
    costs: GraphCosts | None = None,
) -> Stage:
    """What a candidate costs, which is known at once. Larger networks rank higher unless another score is named.

    Args:
        keep: Share that passes.
        rank_by: Of the scores `NAME`, `log_NAME`, `minus_NAME` and `minus_log_NAME` for each of `names`.
        names: Costs that `costs` knows.
        costs: Knows costs.
    """
    known = costs or GraphCosts()
    known.check(names)

    def score(graphs: Sequence[ComputationalGraph]) -> list[Scores]:
        rows = known(graphs, names=names)
        return [
            {key: value for name in names for key, value in _cost_scores(name, row[name])} for row in rows
        ]

    return Stage(name="cost", keep=keep, rank_by=rank_by, score=score, batch=64)


def _cost_scores(name: str, value: float) -> list[tuple[str, float]]:
    log = math.log(value) if value > 0 else math.nan
    return [(name, value), (f"log_{name}", log), (f"minus_{name}", -value), (f"minus_log_{name}", -log)]


def proxy_stage(
    batch: Split,
    *,
    keep: float,
    names: tuple[str, ...] = ("nwot", "synflow"),
    rank_by: tuple[str, ...] = (),
    seed: int = 0,
) -> Stage:
    """Zero-cost proxies of one mini-batch.

    Args:
        batch: Training examples, on the device to compute on.
        keep: Share that passes.
        names: Proxies, all of which are recorded.
        rank_by: Those that decide; all if not given.
        seed: Of the random weights.

    Raises:
        UnknownNameError: If there is no proxy of a name.
    """
    for name in names:
        load_proxy(name)

    def score(graphs: Sequence[ComputationalGraph]) -> list[Scores]:
        return [dict(scores) for scores in proxy_scores(graphs, batch, names=names, seed=seed)]

    return Stage(name="proxies", keep=keep, rank_by=rank_by or names, score=score)


def ghn_stage(
    scorer: PredictedWeightsScorer,
    *,
    keep: float,
    rank_by: tuple[str, ...] = ("ghn_accuracy", "log_parameters"),
) -> Stage:
    """How candidates do with the weights that a graph hypernetwork predicts.

    Args:
        scorer: Predicts and tries them.
        keep: Share that passes.
        rank_by: Scores of the scorer that decide.
    """
    return Stage(name="ghn", keep=keep, rank_by=rank_by, score=scorer)


def screen_stage(screen: Screen, *, keep: float, rank_by: tuple[str, ...], name: str = "screen") -> Stage:
    """Any screen as a stage."""
    return Stage(name=name, keep=keep, rank_by=rank_by, score=screen)


@dataclass(frozen=True)
class LearnFromTrials:
    """Fits an ensemble to the graphs of finished trials and to what earlier stages said of them. A `Learn`.

    Scores: `mean`, `std`, and `optimistic`, the mean plus `optimism` spreads.

    Attributes:
        min_trials: Trials below which it is not ready.
        optimism: Spreads that are added: above zero unknown regions look better.
        with_scores: Whether it looks at the scores of earlier stages too.
        config: Settings of the ensemble.

    Raises:
        ConfigError: If `min_trials` is below eight, which a predictor needs.
    """

    min_trials: int = 16
    optimism: float = 0.0
    with_scores: bool = True
    config: EnsembleConfig = field(default_factory=EnsembleConfig)

    def __post_init__(self) -> None:
        if self.min_trials < 8:
            raise ConfigError(f"Expected 'min_trials' of at least 8 (got {self.min_trials})")

    def __call__(self, trials: Sequence[Labelled]) -> LearntScreen | None:
        """Fit. None with too few trials, or if all have one result."""
        if len(trials) < self.min_trials or len({trial.gain for trial in trials}) < 2:
            return None
        told = _Told(self._columns(trials), {trial.graph.fingerprint: trial.scores for trial in trials})
        further = [told] if told.columns else []
        predictor = GraphPredictor(further=further, config=self.config)
        gains = torch.tensor([trial.gain for trial in trials], dtype=torch.float64)
        predictor.fit([trial.graph for trial in trials], gains)

        def screen(
            graphs: Sequence[ComputationalGraph], scores: Sequence[Scores]
        ) -> list[Mapping[str, float]]:
            told.scores.update({graph.fingerprint: said for graph, said in zip(graphs, scores, strict=True)})
            prediction = predictor.predict(graphs)
            assert prediction.std is not None
            return [
                {"mean": mean, "std": std, "optimistic": mean + self.optimism * std}
                for mean, std in zip(prediction.mean.tolist(), prediction.std.tolist(), strict=True)
            ]

        return screen

    def _columns(self, trials: Sequence[Labelled]) -> tuple[str, ...]:
        """Scores that differ between trials of which all have them; ranks hang on the company and are left out."""
        if not self.with_scores:
            return ()
        shared = set.intersection(*(set(trial.scores) for trial in trials))
        own = [name for name in sorted(shared) if not name.endswith(".rank")]
        return tuple(name for name in own if len({trial.scores[name] for trial in trials}) > 1)


@dataclass
class _Told:
    """What stages said of graphs, as columns. `nasgraph.predict.Features`."""

    columns: tuple[str, ...]
    scores: dict[str, Scores]

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs columns"]:
        """One row per graph."""
        rows = [
            [self.scores[graph.fingerprint].get(name, math.nan) for name in self.columns] for graph in graphs
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.columns))


def predictor_stage(
    *, keep: float, learn: LearnFromTrials | None = None, rank_by: tuple[str, ...] = ("mean",)
) -> Stage:
    """What is predicted from the trials of this search. Not ready before there are some."""
    return Stage(name="predictor", keep=keep, rank_by=rank_by, learn=learn or LearnFromTrials(), batch=256)


def usual_cascade(
    data: SearchData,
    config: CascadeConfig,
    *,
    scorer: PredictedWeightsScorer | None = None,
    ghn_rank_by: tuple[str, ...] = ("ghn_accuracy", "log_parameters"),
    proxies: tuple[str, ...] = ("nwot",),
    proxy_examples: int = 32,
    learn: LearnFromTrials | None = None,
) -> Cascade:
    """The cascade for most searches: proxies let half pass, the GHN score three in ten, the predictor what the round keeps.

    Args:
        data: Training and validation data, on the device to compute on.
        config: Settings of the rounds.
        scorer: Scores with predicted weights; None: no such stage.
        ghn_rank_by: Its scores that decide.
        proxies: Zero-cost proxies whose ranks are summed; none: no such stage.
        proxy_examples: Training examples that they look at.
        learn: How the predictor learns from the trials; the last stage as soon as there are enough.
    """
    stages = []
    if proxies:
        train = data.train
        batch = Split(train.inputs[:proxy_examples], train.targets[:proxy_examples])
        stages.append(proxy_stage(batch, keep=0.5, names=proxies, seed=config.seed))
    if scorer is not None:
        stages.append(ghn_stage(scorer, keep=0.3, rank_by=ghn_rank_by))
    stages.append(predictor_stage(keep=0.3, learn=learn))
    return Cascade(stages, config)
