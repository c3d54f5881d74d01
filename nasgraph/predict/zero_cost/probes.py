"""The runs that proxies share: each is made when the first proxy asks for it, and at most once.

| run | passes | proxies |
| --- | --- | --- |
| `data` | a forward pass on the batch | `nwot`, `swap`, and all below to `curvature` |
| `input_gradients` | a backward pass of the summed outputs to the inputs and layers | `jacov`, `epe_nas`, `ntk` |
| `loss_gradients` | a backward pass of the loss to the weights and layers | `grad_norm`, `snip`, `plain`, `fisher` |
| `curvature` | a backward pass through the one before | `grasp` |
| `flow` | one example of ones, in double precision, forward and backward | `synflow` |
| `half_gradients` | the loss of each half of the batch, forward and backward | `zico` |
| `zen_runs` | two forward passes on noise, Gaussian weights | `zen` |
| `noise` | a forward pass on noise, Gaussian weights scaled by their fan-in | `meco`, `expressivity`, `progressivity`, `trainability` |
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.predict.zero_cost.network import Runnable, open_network
from nasgraph.predict.zero_cost.records import Examples, Loss, Network, UndefinedScoreError
from nasgraph.predict.zero_cost.watching import Layer, Watch, Watcher
from nasgraph.seeding import derive_seed

T = TypeVar("T")
ZEN_STEP = 0.01


def task_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy for class numbers, mean squared error for real targets.

    Classes lie along the last axis of `outputs` if the other axes are those of `targets`, as for tokens; else along axis 1,
    as for images.

    Raises:
        UndefinedScoreError: If the shapes do not fit, or there is one class, whose cross-entropy is zero for any network.
    """
    if targets.is_floating_point():
        if outputs.shape != targets.shape:
            raise UndefinedScoreError(
                f"the outputs have shape {tuple(outputs.shape)}, the targets {tuple(targets.shape)}"
            )
        return F.mse_loss(outputs, targets)
    if outputs.dim() == targets.dim() + 1 and outputs.shape[:-1] == targets.shape:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    if outputs.dim() < 2 or (outputs.shape[0], *outputs.shape[2:]) != tuple(targets.shape):
        raise UndefinedScoreError(
            f"outputs of shape {tuple(outputs.shape)} are no classes for targets of shape {tuple(targets.shape)}"
        )
    if outputs.shape[1] == 1:
        raise UndefinedScoreError("the network has one class, whose cross-entropy is zero for any weights")
    if int(targets.max()) >= outputs.shape[1]:
        raise UndefinedScoreError(
            f"there is a target {int(targets.max())}, but the network has {outputs.shape[1]} classes"
        )
    return F.cross_entropy(outputs, targets)


@dataclass(frozen=True, slots=True, eq=False)
class DataRun:
    """A forward pass on the batch whose gradients can be taken.

    Attributes:
        output: First output.
        inputs: Leaves.
        weights: Leaves, by name.
        seen: What the watcher kept.
    """

    output: Tensor
    inputs: tuple[Tensor, ...]
    weights: dict[str, Tensor]
    seen: Watcher


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """Gradients of one scalar.

    Attributes:
        leaves: By the leaves asked for, zeros where nothing flows.
        layers: By the output of each layer; None where nothing flows.
    """

    leaves: list[Tensor]
    layers: list[Tensor | None]


def once(method: Callable[["Probes"], T]) -> Callable[["Probes"], T]:
    """Keep the result of a method without arguments, or the reason why there is none."""
    name = method.__name__

    @wraps(method)
    def call(self: "Probes") -> T:
        if name in self.failures:
            raise UndefinedScoreError(self.failures[name])
        if name not in self.results:
            try:
                self.results[name] = method(self)
            except UndefinedScoreError as error:
                self.failures[name] = str(error)
                raise
        result: T = self.results[name]  # type: ignore[assignment]  # the name tells the type
        return result

    return call


class Probes:
    """The shared runs of one network, one batch and one seed.

    Args:
        network: Not changed.
        examples: On the device to compute on.
        seed: Draws the parameters of a graph, and all noise.
        watch: What the run on the data is to keep.
        loss: Of outputs and targets.
    """

    def __init__(
        self, network: Network, examples: Examples, *, seed: int, watch: Watch, loss: Loss = task_loss
    ) -> None:
        self.network = network
        self.examples = examples
        self.seed = seed
        self.results: dict[str, object] = {}
        self.failures: dict[str, str] = {}
        self._watch = watch
        self._loss = loss

    @once
    def runnable(self) -> Runnable:
        """The network, ready to run."""
        return open_network(self.network, self.examples, seed=self.seed)

    @once
    def weights(self) -> dict[str, Tensor]:
        """The weights by name.

        Raises:
            UndefinedScoreError: If there are none.
        """
        runnable = self.runnable()
        if not runnable.weights:
            raise UndefinedScoreError("the network has no weights")
        return {name: runnable.parameters[name] for name in runnable.weights}

    @once
    def data(self) -> DataRun:
        """The run on the batch, with gradients if any proxy needs them."""
        runnable = self.runnable()
        inputs, leaves = self.examples.inputs, {name: runnable.parameters[name] for name in runnable.weights}
        if not self._watch.layers:
            with torch.no_grad():
                output, seen = runnable.run(inputs, watch=self._watch)
            return DataRun(output, inputs, leaves, seen)
        inputs = tuple(_leaf(tensor, is_graph=runnable.is_graph) for tensor in inputs)
        leaves = {name: _leaf(tensor, is_graph=runnable.is_graph) for name, tensor in leaves.items()}
        output, seen = runnable.run(inputs, watch=self._watch, parameters=leaves)
        if not output.requires_grad:
            raise UndefinedScoreError("the output depends neither on the inputs nor on the weights")
        return DataRun(output, inputs, leaves, seen)

    @once
    def input_gradients(self) -> Gradients:
        """Of the sum of the outputs, by the inputs and by the outputs of the layers."""
        run = self.data()
        inputs = [tensor for tensor in run.inputs if tensor.requires_grad]
        return _gradients(run.output.sum(), inputs, run.seen.layers, keep=True)

    @once
    def loss_gradients(self) -> Gradients:
        """Of the loss of the batch, by the weights and by the outputs of the layers."""
        self.weights()
        run = self.data()
        return _gradients(
            self._loss_of(run.output, self.examples),
            list(run.weights.values()),
            run.seen.layers,
            keep=True,
            differentiable=self._watch.twice,
        )

    @once
    def curvature(self) -> list[Tensor]:
        """The Hessian of the loss by the weights, times the gradient: one tensor per weight."""
        gradients = self.loss_gradients().leaves
        weights = list(self.data().weights.values())
        product = torch.stack([(each.detach() * each).sum() for each in gradients]).sum()
        if not product.requires_grad:
            raise UndefinedScoreError("the gradient of the loss does not depend on the weights")
        return _gradients(product, weights, [], keep=True).leaves

    @once
    def half_gradients(self) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the loss by the weights, for each half of the batch by itself."""
        half = len(self.examples) // 2
        if half < 1:
            raise UndefinedScoreError("a batch of one example has no halves")
        return self._half(0, half), self._half(half, 2 * half)

    def _half(self, start: int, stop: int) -> list[Tensor]:
        part, runnable = self.examples.part(start, stop), self.runnable()
        leaves = {name: _leaf(tensor, is_graph=runnable.is_graph) for name, tensor in self.weights().items()}
        inputs = tuple(_arranged(tensor, is_graph=runnable.is_graph) for tensor in part.inputs)
        output, _ = runnable.run(inputs, watch=Watch(), parameters=leaves)
        return _gradients(self._loss_of(output, part), list(leaves.values()), [], keep=False).leaves

    def _loss_of(self, output: Tensor, examples: Examples) -> Tensor:
        if examples.targets is None:
            raise UndefinedScoreError("the batch has no targets")
        loss = self._loss(output, examples.targets)
        if not bool(loss.isfinite()):
            raise UndefinedScoreError("the loss is not finite")
        return loss

    @once
    def flow(self) -> list[Tensor]:
        """|weight| times the gradient of the summed outputs by it, all parameters by their absolute values, norms left out."""
        runnable = self.runnable()
        names = list(self.weights())
        own = {name: tensor.abs().double() for name, tensor in runnable.parameters.items()}
        leaves = {name: own[name].requires_grad_() for name in names}
        inputs = tuple(
            torch.ones_like(tensor[:1], dtype=torch.float64) if tensor.is_floating_point() else tensor[:1]
            for tensor in self.examples.inputs
        )
        output, _ = runnable.run(inputs, watch=Watch(norms="skip"), parameters=own)
        if not output.requires_grad:
            raise UndefinedScoreError("the output depends on no weight")
        gradients = _gradients(output.sum(), list(leaves.values()), [], keep=False).leaves
        return [(leaf.detach() * each) for leaf, each in zip(leaves.values(), gradients, strict=True)]

    @once
    def zen_runs(self) -> tuple[Tensor, Tensor, Watcher]:
        """The last feature map, or else the output, on noise and on noise moved a little; and what was seen."""
        drawn = self._drawn_weights("zen", scaled=False)
        noise, more = self._noise("zen"), self._noise("zen step")
        moved = tuple(
            a + ZEN_STEP * b if a.is_floating_point() else a for a, b in zip(noise, more, strict=True)
        )
        with torch.no_grad():
            output, first = self.runnable().run(noise, watch=Watch(spreads=True), parameters=drawn)
            other, second = self.runnable().run(moved, watch=Watch(), parameters=drawn)
        if first.last_map is not None and second.last_map is not None:
            return first.last_map, second.last_map, first
        return output, other, first

    @once
    def noise(self) -> Watcher:
        """What was seen on noise with scaled Gaussian weights; gradients can be taken between the steps of the flow."""
        inputs = tuple(
            tensor.requires_grad_() if tensor.is_floating_point() else tensor
            for tensor in self._noise("noise")
        )
        drawn = self._drawn_weights("noise", scaled=True)
        output, seen = self.runnable().run(inputs, watch=Watch(layers=True, flow=True), parameters=drawn)
        if len(output) > 1 and bool((output == output[:1]).all()):
            raise UndefinedScoreError("the output does not depend on the input")
        return seen

    def _noise(self, label: str) -> tuple[Tensor, ...]:
        if not any(tensor.is_floating_point() for tensor in self.examples.inputs):
            raise UndefinedScoreError("no input is real-valued, so there is no noise to feed")
        rng = torch.Generator().manual_seed(derive_seed(self.seed, "zero_cost", label))
        is_graph = self.runnable().is_graph
        return tuple(
            _arranged(torch.randn(tensor.shape, generator=rng).to(tensor), is_graph=is_graph)
            if tensor.is_floating_point()
            else tensor
            for tensor in self.examples.inputs
        )

    def _drawn_weights(self, label: str, *, scaled: bool) -> dict[str, Tensor]:
        """Standard normal weights, times sqrt(2 / fan-in) if scaled (He et al. 2015); biases zero."""
        rng = torch.Generator().manual_seed(derive_seed(self.seed, "zero_cost", label, "weights"))
        drawn: dict[str, Tensor] = {}
        for name, tensor in self.weights().items():
            scale = (2 / max(1, prod(tensor.shape[1:]))) ** 0.5 if scaled else 1.0
            drawn[name] = (torch.randn(tensor.shape, generator=rng) * scale).to(tensor)
        for name, tensor in self.runnable().parameters.items():
            if name not in drawn and name.rpartition(".")[2].startswith("bias"):
                drawn[name] = torch.zeros_like(tensor)
        is_graph = self.runnable().is_graph
        return {name: _arranged(tensor, is_graph=is_graph) for name, tensor in drawn.items()}


def _arranged(tensor: Tensor, *, is_graph: bool) -> Tensor:
    """On a CPU, images channels last: convolutions are about twice as fast. A user's own module may depend on the usual order."""
    if is_graph and tensor.dim() == 4 and not tensor.is_cuda:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _leaf(tensor: Tensor, *, is_graph: bool) -> Tensor:
    leaf = _arranged(tensor.detach(), is_graph=is_graph).detach()
    return leaf.requires_grad_() if leaf.is_floating_point() else leaf


def _gradients(
    scalar: Tensor, leaves: list[Tensor], layers: list[Layer], *, keep: bool, differentiable: bool = False
) -> Gradients:
    """Gradients by leaves and by the outputs of layers, in one pass."""
    edges = [layer.edge for layer in layers if layer.edge is not None]
    sources: Any = [*leaves, *edges]  # torch allows the mixture, its types do not
    if not scalar.requires_grad or not sources:
        return Gradients([torch.zeros_like(leaf) for leaf in leaves], [None] * len(layers))
    try:
        found = torch.autograd.grad(
            scalar, sources, retain_graph=keep, create_graph=differentiable, allow_unused=True
        )
    except RuntimeError as error:
        raise UndefinedScoreError(f"a gradient cannot be taken: {str(error).splitlines()[0]:.300}") from error
    own = [
        torch.zeros_like(leaf) if each is None else each
        for leaf, each in zip(leaves, found[: len(leaves)], strict=True)
    ]
    rest = iter(found[len(leaves) :])
    return Gradients(own, [None if layer.edge is None else next(rest) for layer in layers])
