"""Performance by short real training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from nasgraph.data import SearchData
from nasgraph.errors import ConfigError
from nasgraph.evaluate.checkpoints import TrainingCheckpoint, checkpoint_folder, remove_checkpoints
from nasgraph.evaluate.costs import training_flops
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.evaluate.heirs import INHERITED_SHARE, inherited_start, keep_weights
from nasgraph.evaluate.training import DivergedError, Init, TrainConfig, Training
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import initial_parameters
from nasgraph.seeding import derive_seed

__all__ = ["DivergedError", "Init", "TrainConfig", "TrainEvaluator", "train_graph"]


@dataclass(frozen=True)
class TrainEvaluator:
    """Trains each candidate for a few epochs and measures it on the validation data. An `Evaluator`.

    The objective is `val_accuracy`, that of the best epoch (the later of equals), whose parameters are returned. Further
    metrics: `val_loss`, `train_loss`, `epochs` (the best one), `train_seconds`, `train_flops` (of all epochs that were trained, see
    `training_flops`), `num_parameters`, `multiply_adds`, and with a start from predicted weights
    `val_accuracy_random_init` and `val_accuracy_predicted_init`.

    With `weights`, what a candidate learnt is kept there, and a child of it (`from_parent`) starts from that (`nasgraph.edits.inherit`)
    in place of random or predicted weights. Its metric `inherited_share` tells how much of its parameters came from the parent:
    0 if the parent's weights are gone, which is a warning and not an error.

    With checkpoints, a training whose process was killed goes on after its last finished epoch, and ends with the same
    result bit by bit. It asks `keep_going` again about that epoch. Call `forget` when the result is durable.

    Attributes:
        data: Training and validation data, on the device to train on.
        config: How to train.
        ghn: Predicts weights to start from; needed unless `config.init` is "random".
        checkpoints: Folder where trainings are kept while they last; None: nowhere.
        weights: Folder where trained weights are kept for children; None: nowhere. Workers on several machines must share it.
        parent: Fingerprint of the graph from whose weights to start; empty: none.
    """

    data: SearchData
    config: TrainConfig
    ghn: GraphHyperNetwork | None = None
    checkpoints: Path | None = None
    weights: Path | None = None
    parent: str = ""

    def __post_init__(self) -> None:
        if self.config.init != "random" and self.ghn is None:
            raise ConfigError(f"Expected a graph hypernetwork for 'init={self.config.init}'")

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        """Train and measure. See `train_graph` for what is raised."""
        results: dict[str, Evaluation] = {}
        going, diverged = True, DivergedError("The training broke down")
        starts, share = self._starts(graph, seed)
        for offset, (name, start) in enumerate(starts.items()):
            before = [result.value for result in results.values()]

            def shifted(epoch: int, value: float, offset: int = offset, before: list[float] = before) -> bool:
                nonlocal going
                going = keep_going(offset * self.config.epochs + epoch, max([value, *before]))
                return going

            try:
                results[name] = train_graph(
                    graph,
                    self.data,
                    self.config,
                    start=start,
                    seed=seed,
                    keep_going=shifted,
                    checkpoint=self._checkpoint(graph, seed, name),
                )
            except DivergedError as error:
                # One start that breaks down does not condemn the network, as long as the other one trains.
                diverged = error
            if not going:
                break
        if not results:
            raise diverged
        best = self._better(results, is_cut=len(results) < len(starts))
        if self.weights is not None:
            keep_weights(self.weights, graph, best.state)
        return best if share is None else replace(best, metrics={**best.metrics, INHERITED_SHARE: share})

    def from_parent(self, parent: str) -> "TrainEvaluator":
        """The evaluator that starts from the weights of the graph with this fingerprint; this one if no weights are kept."""
        return self if self.weights is None else replace(self, parent=parent)

    def forget(self, graph: ComputationalGraph, *, seed: int) -> None:
        """Remove what is kept of a candidate's trainings, if anything is."""
        if self.checkpoints is not None:
            remove_checkpoints(self.checkpoints, graph.fingerprint, seed)

    def _starts(
        self, graph: ComputationalGraph, seed: int
    ) -> tuple[dict[str, Mapping[str, Tensor]], float | None]:
        """Where trainings start, by name; and which share of the parameters is the parent's, None without a parent."""
        share: float | None = None
        if self.parent:
            inherited = inherited_start(self.weights, self.parent, graph, seed=derive_seed(seed, "inherit"))
            if inherited is not None:
                return {"inherited": inherited[0]}, inherited[1]
            share = 0.0
        starts: dict[str, Mapping[str, Tensor]] = {}
        if self.config.init in ("predicted", "both"):
            assert self.ghn is not None
            starts["predicted"] = self.ghn.predict([graph])[0]
        if self.config.init in ("random", "both"):
            starts["random"] = initial_parameters(graph, seed=derive_seed(seed, "init"))
        return starts, share

    def _checkpoint(self, graph: ComputationalGraph, seed: int, start: str) -> TrainingCheckpoint | None:
        if self.checkpoints is None:
            return None
        return TrainingCheckpoint(checkpoint_folder(self.checkpoints, graph.fingerprint, seed) / start)

    def _better(self, results: Mapping[str, Evaluation], *, is_cut: bool) -> Evaluation:
        """The better of two trainings, with what both cost."""
        best = max(results.values(), key=lambda result: result.value)
        if self.config.init == "random" or "inherited" in results:
            return best
        by_init = {f"val_accuracy_{name}_init": result.value for name, result in results.items()}
        spent = {
            name: sum(result.metrics[name] for result in results.values())
            for name in ("train_seconds", "train_flops")
        }
        is_cut = is_cut or any(result.stopped_early for result in results.values())
        return replace(best, metrics={**best.metrics, **by_init, **spent}, stopped_early=is_cut)


def train_graph(
    graph: ComputationalGraph,
    data: SearchData,
    config: TrainConfig,
    *,
    start: Mapping[str, Tensor],
    seed: int,
    keep_going: KeepGoing,
    checkpoint: TrainingCheckpoint | None = None,
) -> Evaluation:
    """Train one network from given parameters, which are not changed.

    Args:
        graph: The network.
        data: Training and validation data, on the device to train on.
        config: How to train. `config.init` has no effect here.
        start: Every parameter by name.
        seed: Decides the order of examples, augmentation and dropout.
        keep_going: Asked after each epoch with its number (from 0) and the best validation accuracy so far.
        checkpoint: Where the training is kept after each epoch, and goes on from if something is there; None: nowhere.

    Returns:
        The evaluation of the best epoch.

    Raises:
        CandidateError: If the loss stops being finite.
    """
    training = Training(graph, data, config, start=start, seed=seed)
    facts = training.facts() if checkpoint is not None else {}
    known = checkpoint.load(facts) if checkpoint is not None else None
    if known is not None:
        training.restore(known)
    is_known, stopped_early = known is not None, False
    while is_known or training.epoch < config.epochs:
        if not is_known:
            training.run_epoch()
            if checkpoint is not None:
                checkpoint.save(training.snapshot(), facts, epoch=training.epoch)
        is_known = False
        if training.is_out_of_patience:
            break
        if not keep_going(training.epoch - 1, training.best["val_accuracy"]):
            stopped_early = training.epoch < config.epochs
            break
    cost, epochs = cost_of(graph), len(training.curve)
    metrics = {
        **training.best,
        "train_seconds": training.seconds,
        "train_flops": training_flops(cost.multiply_adds, num_examples=training.num_examples, epochs=epochs),
        "num_parameters": float(cost.num_parameters),
        "multiply_adds": float(cost.multiply_adds),
    }
    return Evaluation(
        "val_accuracy", metrics, tuple(training.curve), seed, stopped_early, training.best_state
    )
