"""Generators without a network: the bar for all others."""

from typing import ClassVar

import torch
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.generate.generator import (
    Generator,
    GeneratorConfig,
    TrainingSet,
    check_support,
    repeated,
)
from nasgraph.meta.generate.space import WeightSpace, unflatten
from nasgraph.meta.generate.support import GenerateError, Support
from nasgraph.meta.population import Stack
from nasgraph.seeding import derive_seed, generator

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0, 1e4)
_DRAWS = 4  # supports of each training network that ridge regression sees


def support_matrix(training: TrainingSet, *, per_class: int, seed: int) -> Tensor:
    """Features of a support of each training network, one row each."""
    return torch.stack([each.features() for each in training.supports(per_class=per_class, seed=seed)])


class MeanGenerator(Generator):
    """The mean of all training networks, whatever the data set."""

    kind: ClassVar[str] = "mean"

    def __init__(self, space: WeightSpace, input_size: int) -> None:
        self.space, self.input_size = space, input_size

    @staticmethod
    def fit(training: TrainingSet, config: GeneratorConfig) -> "MeanGenerator":
        """Take the mean, of aligned networks if the configuration says so."""
        space = WeightSpace.fit(training.graph, training.stack, dim=1, alignment=config.alignment)
        return MeanGenerator(space, _input_size(training))

    @property
    def graph(self) -> ComputationalGraph:
        return self.space.graph

    def generate(self, support: Support, *, count: int, seed: int) -> Stack:  # noqa: ARG002  without chance
        check_support(support, num_classes=_outputs(self.graph), input_size=self.input_size, count=count)
        return repeated(unflatten(self.space.mean[None], self.space.shapes), count)

    def tensors(self) -> dict[str, Tensor]:
        return {}


class NearestGenerator(Generator):
    """The training networks whose data sets look most like the support; with noise if the configuration says so.

    The distance between data sets is that between the features of their supports. With noise it is the baseline that shows
    whether a generator does more than to copy: as far from the training networks, yet made without learning anything.
    """

    kind: ClassVar[str] = "nearest"

    def __init__(
        self, space: WeightSpace, rows_BP: Tensor, features_BF: Tensor, *, noise: float, input_size: int
    ) -> None:
        self.space, self.rows_BP, self.features_BF = space, rows_BP, features_BF
        self.noise, self.input_size = noise, input_size

    @staticmethod
    def fit(training: TrainingSet, config: GeneratorConfig) -> "NearestGenerator":
        """Keep all training networks."""
        space = WeightSpace.fit(training.graph, training.stack, dim=1, alignment=config.alignment)
        rows = space.rows(training.stack)
        features = support_matrix(training, per_class=config.per_class, seed=config.seed)
        distance = _to_other_sets(rows, training)
        noise = config.noise * distance / rows.shape[1] ** 0.5
        return NearestGenerator(space, rows, features, noise=noise, input_size=_input_size(training))

    @property
    def graph(self) -> ComputationalGraph:
        return self.space.graph

    def generate(self, support: Support, *, count: int, seed: int) -> Stack:
        check_support(support, num_classes=_outputs(self.graph), input_size=self.input_size, count=count)
        distance = (self.features_BF - support.features()).square().sum(1)
        order = torch.argsort(distance, stable=True)
        rows = self.rows_BP[order[torch.arange(count) % len(order)]]
        if self.noise:
            rng = torch.Generator().manual_seed(derive_seed(seed, "noise"))
            rows = rows + self.noise * torch.randn(rows.shape, generator=rng)
        return unflatten(rows, self.space.shapes)

    def tensors(self) -> dict[str, Tensor]:
        return {
            "rows": self.rows_BP,
            "features": self.features_BF,
            "noise": torch.tensor(self.noise, dtype=torch.float64),
        }


class RidgeGenerator(Generator):
    """Ridge regression from the features of the support to the latent of the network.

    Where all training networks share their initial weights this is hard to beat: weight generation is then linear regression.
    """

    kind: ClassVar[str] = "ridge"

    def __init__(self, space: WeightSpace, weight_FK: Tensor, *, input_size: int) -> None:
        self.space, self.weight_FK, self.input_size = space, weight_FK, input_size

    @staticmethod
    def fit(training: TrainingSet, config: GeneratorConfig) -> "RidgeGenerator":
        """Solve for the weights; the penalty is chosen on a tenth of the class sets unless it is given."""
        space = WeightSpace.fit(
            training.graph, training.stack, dim=config.latent_dim, alignment=config.alignment
        )
        latents = space.encode(training.stack).double()
        weight = fit_ridge(training, latents, config)
        return RidgeGenerator(space, weight.float().contiguous(), input_size=_input_size(training))

    @property
    def graph(self) -> ComputationalGraph:
        return self.space.graph

    def predict(self, support: Support) -> Tensor:
        """The latent `[K]` of the network for a support."""
        return support.features() @ self.weight_FK

    def generate(self, support: Support, *, count: int, seed: int) -> Stack:  # noqa: ARG002  without chance
        check_support(support, num_classes=_outputs(self.graph), input_size=self.input_size, count=count)
        return repeated(self.space.decode(self.predict(support)[None]), count)

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight_FK}


def fit_ridge(training: TrainingSet, latents_BK: Tensor, config: GeneratorConfig) -> Tensor:
    """Weights `[F, K]` from features of supports to latents, in double precision."""
    draws = [
        support_matrix(
            training, per_class=config.per_class, seed=derive_seed(config.seed, "ridge", draw)
        ).double()
        for draw in range(_DRAWS)
    ]
    x, y = torch.cat(draws), latents_BK.repeat(_DRAWS, 1)
    penalty = config.penalty
    if not penalty:
        sets = sorted(set(training.classes))
        held = {
            sets[place]
            for place in generator(config.seed, "held").permutation(len(sets))[: max(1, len(sets) // 10)]
        }
        out = torch.tensor([classes in held for classes in training.classes]).repeat(_DRAWS)
        if bool(out.all()) or not bool(out.any()):  # one class set: nothing to choose on
            penalty = 1.0
        else:
            errors = {
                each: float((x[out] @ _ridge(x[~out], y[~out], each) - y[out]).square().mean())
                for each in _PENALTIES
            }
            penalty = min(errors, key=errors.__getitem__)
    return _ridge(x, y, penalty)


def _ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    found: Tensor = torch.linalg.solve(gram, x.T @ y)
    return found


def _input_size(training: TrainingSet) -> int:
    return training.data.inputs[0].numel()


def _outputs(graph: ComputationalGraph) -> int:
    return graph.shapes[graph.outputs[0]][0]


def _to_other_sets(rows_BP: Tensor, training: TrainingSet) -> float:
    """Median distance of a training network to the nearest one of another class set; of any other where there is one set only."""
    numbers = {classes: place for place, classes in enumerate(dict.fromkeys(training.classes))}
    own = torch.tensor([numbers[classes] for classes in training.classes])
    same = own[:, None] == own[None] if len(numbers) > 1 else torch.eye(len(own), dtype=torch.bool)
    distance = torch.cdist(rows_BP, rows_BP).masked_fill(same, torch.inf)
    return float(distance.min(1).values.median())


def check_training(training: TrainingSet) -> None:
    """Check that a generator can learn from a training set.

    Raises:
        GenerateError: If it has fewer than two networks, or its parts have different lengths.
    """
    sizes = {len(tensor) for tensor in training.stack.values()}
    if sizes != {len(training)} or len(training) < 2:
        raise GenerateError(f"Expected at least two networks and classes for each (got {sorted(sizes)})")
