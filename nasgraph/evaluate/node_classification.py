"""Performance by training on the nodes of one graph: every step sees the whole graph and the labels of the training nodes."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import SearchData
from nasgraph.data.records import Nodes, Split
from nasgraph.errors import ConfigError
from nasgraph.evaluate.costs import training_flops
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.evaluate.train import DivergedError, TrainConfig, TrainEvaluator
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import Program, RunContext, buffers_by_node, initial_buffers, initial_parameters
from nasgraph.modules.kernels.norms import BATCH_NORM_MOMENTUM
from nasgraph.seeding import derive_seed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NodeTrainConfig:
    """How candidates are trained: the same for all, so that they can be compared.

    Attributes:
        epochs: Steps at most, each with the gradient of all training nodes.
        learning_rate: Adam's learning rate.
        weight_decay: L2 penalty of all parameters, as Adam adds it to the gradient.
        patience: Epochs with neither a better validation accuracy nor a lower validation loss than any before, after
            which training stops (the rule of Velickovic et al. 2018); None: never.

    Raises:
        ConfigError: If a value is out of its range.
    """

    epochs: int = 100
    learning_rate: float = 0.02
    weight_decay: float = 5e-4
    patience: int | None = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.weight_decay < 0:
            raise ConfigError(f"Expected 'weight_decay' of at least 0 (got {self.weight_decay})")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"Expected 'patience' of at least 1 (got {self.patience})")


@dataclass(frozen=True)
class NodeClassificationEvaluator:
    """Trains each candidate on the nodes of a graph and measures it on the validation nodes. An `Evaluator`.

    The objective is `val_accuracy`, that of the best epoch (of equals the one with the lowest validation loss), whose
    parameters are returned. Further metrics: `val_loss`, `train_loss`, `epochs` (the best one), `train_seconds`,
    `train_flops` (of all epochs that were trained; messages do not count), `num_parameters` and `multiply_adds`, those of
    one node. Test labels are not part of the data, and test nodes are seen as neighbours only.
    Graphs without message passing can be trained too: each node then stands alone.

    Attributes:
        data: Training and validation nodes of one graph, on the device to train on.
        config: How to train.

    Raises:
        ConfigError: If the examples of the data are not nodes of a graph.
    """

    data: SearchData
    config: NodeTrainConfig = NodeTrainConfig()

    def __post_init__(self) -> None:
        if self.data.train.nodes is None or self.data.validation.nodes is None:
            raise ConfigError(
                f"Expected data whose examples are nodes of a graph, such as 'cora' (got '{self.data.name}')"
            )

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        """Train and measure.

        Args:
            graph: The network; reads one vector of features per node.
            seed: Decides the first weights and dropout.
            keep_going: Asked after each epoch with its number (from 0) and the best validation accuracy so far.

        Raises:
            CandidateError: If a loss stops being finite.
        """
        return _train(graph, self.data, self.config, seed=seed, keep_going=keep_going)


def trainer_for(
    data: SearchData,
    config: TrainConfig,
    ghn: GraphHyperNetwork | None = None,
    checkpoints: Path | None = None,
    *,
    nodes: NodeTrainConfig = NodeTrainConfig(),
    weights: Path | None = None,
) -> TrainEvaluator | NodeClassificationEvaluator:
    """The evaluator that fits the data.

    Args:
        data: Training and validation data, on the device to train on.
        config, ghn, checkpoints: For `TrainEvaluator`, where examples stand alone.
        nodes: For `NodeClassificationEvaluator`, where they are nodes of a graph.
        weights: For `TrainEvaluator`: where trained weights are kept for children. Ignored, with a warning, for nodes of a graph.
    """
    if data.graph is None:
        return TrainEvaluator(data, config, ghn, checkpoints, weights)
    if weights is not None:
        logger.warning("Networks for nodes of a graph inherit no weights: every candidate starts at random")
    return NodeClassificationEvaluator(data, nodes)


def glorot_parameters(graph: ComputationalGraph, *, seed: int) -> dict[str, Tensor]:
    """Random parameters as Kipf and Welling (2017) and Velickovic et al. (2018) draw them.

    Weights are uniform in +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010), biases zero, all else as
    `nasgraph.modules.initial_parameters` has it. Torch's global generator is not touched.
    """
    parameters = initial_parameters(graph, seed=seed)
    generator = torch.Generator().manual_seed(derive_seed(seed, "glorot"))
    for name, spec in graph.parameters.items():
        if spec.role == "bias":
            parameters[name].zero_()
        elif spec.role == "weight" and len(spec.shape) == 2:
            bound = math.sqrt(6 / sum(spec.shape))
            parameters[name].uniform_(-bound, bound, generator=generator)
    return parameters


class _Network:
    """Parameters and buffers of one network on one data graph.

    Running statistics of batch norms start at zero, and what is used of them is divided by the weight that they have
    gathered, as Adam does with its averages. Torch's start, a variance of one, would rule for a hundred steps where the
    values are as small as those of sparse features are.
    """

    def __init__(self, graph: ComputationalGraph, nodes: Nodes, *, seed: int) -> None:
        self._program = Program(graph)
        self._data = nodes.graph
        device = nodes.index.device
        start = glorot_parameters(graph, seed=derive_seed(seed, "init"))
        self.parameters = {name: tensor.to(device).requires_grad_() for name, tensor in start.items()}
        self._sums = {
            name: torch.zeros_like(tensor, device=device) for name, tensor in initial_buffers(graph).items()
        }
        self._weight = 0.0
        self._rng = torch.Generator().manual_seed(derive_seed(seed, "dropout"))

    def logits(self, *, training: bool, progress: float = 1.0) -> Tensor:
        """For all nodes. Training takes a step of the running statistics."""
        if training:
            self._weight += BATCH_NORM_MOMENTUM * (1 - self._weight)
        context = RunContext(
            batch_size=len(self._data.features),
            training=training,
            generator=self._rng,
            buffers=buffers_by_node(self._sums if training else self._buffers()),
            progress=progress,
            edges=self._data.edges,
        )
        (logits,) = self._program(self.parameters, [self._data.features], context)
        return logits

    def measure(self, split: Split) -> tuple[float, float]:
        """Loss and accuracy on some nodes."""
        assert split.nodes is not None
        with torch.inference_mode():
            logits = self.logits(training=False)[split.nodes.index]
            accuracy = int((logits.argmax(1) == split.targets).sum()) / len(split)
            return float(F.cross_entropy(logits, split.targets)), accuracy

    def _buffers(self) -> dict[str, Tensor]:
        return {name: total / self._weight for name, total in self._sums.items()}

    def copy(self) -> dict[str, Tensor]:
        """Everything learnt so far."""
        state = {**self.parameters, **self._buffers()}
        return {name: tensor.detach().clone() for name, tensor in state.items()}


class _Course:
    """What a training has reached: its curve, its best epoch, and how long it has waited for a better one."""

    def __init__(self) -> None:
        self.curve: list[float] = []
        self.best: dict[str, float] = {}
        self.state: dict[str, Tensor] = {}
        self.waited = 0
        self._lowest = math.inf

    def record(self, network: _Network, *, train_loss: float, val_loss: float, val_accuracy: float) -> None:
        """Note an epoch. Raises `DivergedError` if a loss is not finite."""
        for kind, value in (("training", train_loss), ("validation", val_loss)):
            if not math.isfinite(value):
                raise DivergedError(f"The {kind} loss became {value} in epoch {len(self.curve) + 1}")
        self.curve.append(val_accuracy)
        is_best = not self.best or val_accuracy > self.best["val_accuracy"]
        self.waited = 0 if is_best or val_loss < self._lowest else self.waited + 1
        self._lowest = min(self._lowest, val_loss)
        if is_best or (val_accuracy == self.best["val_accuracy"] and val_loss < self.best["val_loss"]):
            self.best = {
                "val_accuracy": val_accuracy,
                "val_loss": val_loss,
                "train_loss": train_loss,
                "epochs": float(len(self.curve)),
            }
            self.state = network.copy()


def _train(
    graph: ComputationalGraph,
    data: SearchData,
    config: NodeTrainConfig,
    *,
    seed: int,
    keep_going: KeepGoing,
) -> Evaluation:
    started = time.perf_counter()
    nodes, targets = data.train.nodes, data.train.targets
    assert nodes is not None
    network, course, stopped_early = _Network(graph, nodes, seed=seed), _Course(), False
    optimizer = torch.optim.Adam(
        network.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    for epoch in range(config.epochs):
        logits = network.logits(training=True, progress=epoch / config.epochs)
        loss = F.cross_entropy(logits[nodes.index], targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        val_loss, val_accuracy = network.measure(data.validation)
        course.record(network, train_loss=float(loss.detach()), val_loss=val_loss, val_accuracy=val_accuracy)
        if config.patience is not None and course.waited >= config.patience:
            break
        if not keep_going(epoch, course.best["val_accuracy"]):
            stopped_early = epoch + 1 < config.epochs
            break
    cost = cost_of(graph)
    num_nodes = len(nodes.graph.features)
    metrics = {
        **course.best,
        "train_seconds": time.perf_counter() - started,
        "train_flops": training_flops(cost.multiply_adds, num_examples=num_nodes, epochs=len(course.curve)),
        "num_parameters": float(cost.num_parameters),
        "multiply_adds": float(cost.multiply_adds),
    }
    return Evaluation("val_accuracy", metrics, tuple(course.curve), seed, stopped_early, course.state)
