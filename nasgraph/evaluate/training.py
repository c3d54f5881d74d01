"""One training, epoch by epoch, in a form that can be put down and taken up again."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Augmentation, SearchData, augment, batches
from nasgraph.errors import CandidateError, ConfigError
from nasgraph.evaluate.checkpoints import Snapshot, digest_of
from nasgraph.evaluate.measure import measure
from nasgraph.files import Json
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext, buffers_by_node, initial_buffers
from nasgraph.seeding import derive_seed

Init = Literal["random", "predicted", "both"]
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""


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


class Training:
    """A network while it is trained from given parameters, which are not changed.

    Args:
        graph: The network.
        data: Training and validation data, on the device to train on.
        config: How to train. `config.init` has no effect here.
        start: Every parameter by name.
        seed: Decides the order of examples, augmentation and dropout.

    Attributes:
        epoch: Epochs that are done.
        curve: Validation accuracy after each of them.
        best: Metrics of the best epoch, the later of equals; empty before the first.
        best_state: Parameters and buffers of that epoch.
    """

    def __init__(
        self,
        graph: ComputationalGraph,
        data: SearchData,
        config: TrainConfig,
        *,
        start: Mapping[str, Tensor],
        seed: int,
    ) -> None:
        device = data.train.inputs.device
        self._data, self._config, self._seed = data, config, seed
        self._program = Program(graph)
        self._fingerprint, self._start = graph.fingerprint, start
        self._parameters = {
            name: tensor.detach().to(device, copy=True).requires_grad_() for name, tensor in start.items()
        }
        self._buffers = {name: tensor.to(device) for name, tensor in initial_buffers(graph).items()}
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._rng = torch.Generator().manual_seed(derive_seed(seed, "augment"))
        # A last batch of one example is left out: norms have no statistics of it.
        self._drop_last = len(data.train) > config.batch_size and len(data.train) % config.batch_size == 1
        self.num_examples = len(data.train) - self._drop_last
        self._steps_per_epoch = math.ceil(self.num_examples / config.batch_size)
        self.epoch = 0
        self.curve: list[float] = []
        self.best: dict[str, float] = {}
        self.best_state: dict[str, Tensor] = {}
        self._waited = 0
        self._seconds = 0.0
        self._since = time.perf_counter()

    @property
    def is_out_of_patience(self) -> bool:
        """Whether `config.patience` epochs brought nothing better."""
        return self._config.patience is not None and self._waited >= self._config.patience

    @property
    def seconds(self) -> float:
        """Wall time of the training, that of earlier processes included."""
        return self._seconds + time.perf_counter() - self._since

    def run_epoch(self) -> None:
        """Train for one epoch and measure.

        Raises:
            DivergedError: If a loss is not finite.
        """
        train_loss = self._pass()
        state = {**self._parameters, **self._buffers}
        val_loss, val_accuracy = measure(
            self._program, state, self._data.validation, batch_size=self._config.eval_batch
        )
        self.epoch += 1
        for kind, value in (("training", train_loss), ("validation", val_loss)):
            if not math.isfinite(value):
                raise DivergedError(f"The {kind} loss became {value} in epoch {self.epoch}")
        self.curve.append(val_accuracy)
        self._waited += 1
        if not self.best or val_accuracy >= self.best["val_accuracy"]:
            is_better = not self.best or val_accuracy > self.best["val_accuracy"]
            self._waited = 0 if is_better else self._waited
            self.best = {
                "val_accuracy": val_accuracy,
                "val_loss": val_loss,
                "train_loss": train_loss,
                "epochs": float(self.epoch),
            }
            self.best_state = {name: tensor.detach().clone() for name, tensor in state.items()}

    def _pass(self) -> float:
        """One pass over the training data. Returns the mean loss."""
        config, context_buffers = self._config, buffers_by_node(self._buffers)
        total_loss = torch.zeros((), device=self._data.train.inputs.device)
        num_steps = config.epochs * self._steps_per_epoch
        for place, (images, targets) in enumerate(self._batches()):
            step = self.epoch * self._steps_per_epoch + place
            self._optimizer.param_groups[0]["lr"] = config.learning_rate * _factor(step, num_steps)
            seen = augment(images, config.augmentation, rng=self._rng) if images.ndim == 4 else images
            context = RunContext(
                batch_size=len(seen),
                training=True,
                generator=self._rng,
                buffers=context_buffers,
                progress=step / num_steps,
            )
            (logits,) = self._program(self._parameters, [seen], context)
            loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._optimizer.step()
            total_loss += loss.detach() * len(images)
        return float(total_loss) / self.num_examples

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return batches(
            self._data.train,
            batch_size=self._config.batch_size,
            seed=self._seed,
            epoch=self.epoch,
            drop_last=self._drop_last,
        )

    # ---- put down and taken up

    def facts(self) -> dict[str, Json]:
        """What decides the course of the training. Equal facts, equal training."""
        split = self._data.train
        return {
            "fingerprint": self._fingerprint,
            "seed": self._seed,
            "start": digest_of(self._start),
            "config": asdict(self._config),
            "data": [self._data.name, len(split), len(self._data.validation), *split.inputs.shape[1:]],
            "device": split.inputs.device.type,
            "torch": torch.__version__,
        }

    def snapshot(self) -> Snapshot:
        """All that is carried from one epoch to the next."""
        tensors = {f"now.{name}": tensor for name, tensor in {**self._parameters, **self._buffers}.items()}
        if self.best["epochs"] != self.epoch:
            tensors |= {f"best.{name}": tensor for name, tensor in self.best_state.items()}
        for name, parameter in self._parameters.items():
            moments = self._optimizer.state.get(parameter, {})
            tensors |= {f"{moment}.{name}": moments[moment] for moment in MOMENTS if moment in moments}
        tensors["generator"] = self._rng.get_state()
        progress: dict[str, Json] = {
            "epoch": self.epoch,
            "curve": list(self.curve),
            "best": dict(self.best),
            "waited": self._waited,
            "seconds": self.seconds,
        }
        return Snapshot(tensors, progress)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on where `snapshot` was taken, by a training of equal `facts`: bit by bit as if it had not been put down."""
        device = self._data.train.inputs.device
        tensors = {
            name: tensor if name == "generator" or name.startswith("step.") else tensor.to(device)
            for name, tensor in snapshot.tensors.items()
        }
        with torch.no_grad():
            for name, tensor in {**self._parameters, **self._buffers}.items():
                tensor.copy_(tensors[f"now.{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for place, name in enumerate(self._parameters):
            kept = {each: tensors[f"{each}.{name}"] for each in MOMENTS if f"{each}.{name}" in tensors}
            if kept:
                moments[place] = kept
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._rng.set_state(tensors["generator"])
        progress: Any = snapshot.progress
        self.epoch, self.curve = int(progress["epoch"]), [float(value) for value in progress["curve"]]
        self.best = {name: float(value) for name, value in progress["best"].items()}
        self._waited, self._seconds = int(progress["waited"]), float(progress["seconds"])
        self._since = time.perf_counter()
        prefix = "now." if self.best["epochs"] == self.epoch else "best."
        self.best_state = {
            name: tensors[f"{prefix}{name}"].clone() for name in (*self._parameters, *self._buffers)
        }


def _factor(step: int, num_steps: int) -> float:
    warmup = min(100, max(1, num_steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
