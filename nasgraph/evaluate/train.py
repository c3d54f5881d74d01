"""Performance by short real training."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Augmentation, SearchData, augment, batches
from nasgraph.errors import CandidateError, ConfigError
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.evaluate.measure import measure
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import Program, RunContext, buffers_by_node, initial_buffers, initial_parameters
from nasgraph.seeding import derive_seed

Init = Literal["random", "predicted", "both"]


class DivergedError(CandidateError):
    """The loss of a training stopped being finite."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How candidates are trained: the same for all, so that they can be compared.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Examples per step.
        learning_rate: Peak of AdamW's learning rate: one tenth of all steps (at most 100) of linear warm-up, then a cosine to 0.
        weight_decay: AdamW's decoupled weight decay.
        patience: Epochs without a better validation accuracy after which training stops; None: never.
        init: Where training starts: "random" weights, weights "predicted" by a GHN, or "both": two trainings, of which
            the better by validation accuracy counts.
        shift_pixels, flip, noise_std: Augmentation, see `nasgraph.data.Augmentation`.
        label_smoothing: Share of the target spread over all classes.
        eval_batch: Examples per forward pass of a measurement.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    patience: int | None = None
    init: Init = "random"
    shift_pixels: int = 0
    flip: bool = False
    noise_std: float = 0.0
    label_smoothing: float = 0.0
    eval_batch: int = 256

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "eval_batch"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.init not in ("random", "predicted", "both"):
            raise ConfigError(f"Expected 'init' to be 'random', 'predicted' or 'both' (got {self.init!r})")
        if not 0 <= self.label_smoothing < 1 or self.weight_decay < 0:
            raise ConfigError("Expected 'label_smoothing' in [0, 1) and 'weight_decay' of at least 0")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"Expected 'patience' of at least 1 (got {self.patience})")

    @property
    def augmentation(self) -> Augmentation:
        """The image augmentation that the settings describe."""
        return Augmentation(shift_pixels=self.shift_pixels, flip=self.flip, noise_std=self.noise_std)


@dataclass(frozen=True)
class TrainEvaluator:
    """Trains each candidate for a few epochs and measures it on the validation data. An `Evaluator`.

    The objective is `val_accuracy`, that of the best epoch (the later of equals), whose parameters are returned. Further
    metrics: `val_loss`, `train_loss`, `epochs`, `train_seconds`, `num_parameters`, `multiply_adds`, and with a start
    from predicted weights `val_accuracy_random_init` and `val_accuracy_predicted_init`.

    Attributes:
        data: Training and validation data, on the device to train on.
        config: How to train.
        ghn: Predicts weights to start from; needed unless `config.init` is "random".
    """

    data: SearchData
    config: TrainConfig
    ghn: GraphHyperNetwork | None = None

    def __post_init__(self) -> None:
        if self.config.init != "random" and self.ghn is None:
            raise ConfigError(f"Expected a graph hypernetwork for 'init={self.config.init}'")

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        """Train and measure. See `train_graph` for what is raised."""
        starts: dict[str, Mapping[str, Tensor]] = {}
        if self.config.init in ("predicted", "both"):
            assert self.ghn is not None
            starts["predicted"] = self.ghn.predict([graph])[0]
        if self.config.init in ("random", "both"):
            starts["random"] = initial_parameters(graph, seed=derive_seed(seed, "init"))
        results: dict[str, Evaluation] = {}
        going, diverged = True, DivergedError("The training broke down")
        for offset, (name, start) in enumerate(starts.items()):
            before = [result.value for result in results.values()]

            def shifted(epoch: int, value: float, offset: int = offset, before: list[float] = before) -> bool:
                nonlocal going
                going = keep_going(offset * self.config.epochs + epoch, max([value, *before]))
                return going

            try:
                results[name] = train_graph(
                    graph, self.data, self.config, start=start, seed=seed, keep_going=shifted
                )
            except DivergedError as error:
                # One start that breaks down does not condemn the network, as long as the other one trains.
                diverged = error
            if not going:
                break
        if not results:
            raise diverged
        best = max(results.values(), key=lambda result: result.value)
        if self.config.init == "random":
            return best
        by_init = {f"val_accuracy_{name}_init": result.value for name, result in results.items()}
        seconds = sum(result.metrics["train_seconds"] for result in results.values())
        metrics = {**best.metrics, **by_init, "train_seconds": seconds}
        is_cut = len(results) < len(starts) or any(result.stopped_early for result in results.values())
        return replace(best, metrics=metrics, stopped_early=is_cut)


def train_graph(
    graph: ComputationalGraph,
    data: SearchData,
    config: TrainConfig,
    *,
    start: Mapping[str, Tensor],
    seed: int,
    keep_going: KeepGoing,
) -> Evaluation:
    """Train one network from given parameters, which are not changed.

    Args:
        graph: The network.
        data: Training and validation data, on the device to train on.
        config: How to train. `config.init` has no effect here.
        start: Every parameter by name.
        seed: Decides the order of examples, augmentation and dropout.
        keep_going: Asked after each epoch with its number (from 0) and the best validation accuracy so far.

    Returns:
        The evaluation of the best epoch.

    Raises:
        CandidateError: If the loss stops being finite.
    """
    started = time.perf_counter()
    device = data.train.inputs.device
    program = Program(graph)
    parameters = {
        name: tensor.detach().to(device, copy=True).requires_grad_() for name, tensor in start.items()
    }
    buffers = {name: tensor.to(device) for name, tensor in initial_buffers(graph).items()}
    context_buffers = buffers_by_node(buffers)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    rng = torch.Generator().manual_seed(derive_seed(seed, "augment"))
    # A last batch of one example is left out: norms have no statistics of it.
    drop_last = len(data.train) > config.batch_size and len(data.train) % config.batch_size == 1
    num_examples = len(data.train) - drop_last
    num_steps = config.epochs * math.ceil(num_examples / config.batch_size)
    step, curve, best, waited, stopped_early = 0, [], None, 0, False
    for epoch in range(config.epochs):
        total_loss = torch.zeros((), device=device)
        for images, targets in batches(
            data.train, batch_size=config.batch_size, seed=seed, epoch=epoch, drop_last=drop_last
        ):
            optimizer.param_groups[0]["lr"] = config.learning_rate * _factor(step, num_steps)
            seen = augment(images, config.augmentation, rng=rng) if images.ndim == 4 else images
            context = RunContext(batch_size=len(seen), training=True, generator=rng, buffers=context_buffers)
            (logits,) = program(parameters, [seen], context)
            loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            total_loss += loss.detach() * len(images)
            step += 1
        state = {**parameters, **buffers}
        val_loss, val_accuracy = measure(program, state, data.validation, batch_size=config.eval_batch)
        train_loss = float(total_loss) / num_examples
        for kind, value in (("training", train_loss), ("validation", val_loss)):
            if not math.isfinite(value):
                raise DivergedError(f"The {kind} loss became {value} in epoch {epoch + 1}")
        curve.append(val_accuracy)
        waited += 1
        if best is None or val_accuracy >= best["val_accuracy"]:
            waited = 0 if best is None or val_accuracy > best["val_accuracy"] else waited
            best = {
                "val_accuracy": val_accuracy,
                "val_loss": val_loss,
                "train_loss": train_loss,
                "epochs": epoch + 1.0,
            }
            best_state = {name: tensor.detach().clone() for name, tensor in state.items()}
        if config.patience is not None and waited >= config.patience:
            break
        if not keep_going(epoch, best["val_accuracy"]):
            stopped_early = epoch + 1 < config.epochs
            break
    assert best is not None
    cost = cost_of(graph)
    metrics = {
        **best,
        "train_seconds": time.perf_counter() - started,
        "num_parameters": float(cost.num_parameters),
        "multiply_adds": float(cost.multiply_adds),
    }
    return Evaluation("val_accuracy", metrics, tuple(curve), seed, stopped_early, best_state)


def _factor(step: int, num_steps: int) -> float:
    warmup = min(100, max(1, num_steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
