"""One way to run what is scored: a private copy of a module, called with parameters of our own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import GraphModule, build
from nasgraph.predict.zero_cost.records import Examples, Network, UndefinedScoreError
from nasgraph.predict.zero_cost.watching import Watch, Watcher
from nasgraph.seeding import derive_seed


@dataclass(frozen=True, slots=True, eq=False)
class Runnable:
    """A network made ready to run.

    Attributes:
        module: In evaluation mode. Nobody else holds it; its tensors may be shared with the user's module.
        parameters: Its parameters by name, detached.
        weights: Names of the parameters that data is multiplied with, biases, norms, embeddings and positions apart.
        is_graph: Whether it was built from a graph.
    """

    module: nn.Module
    parameters: dict[str, Tensor]
    weights: tuple[str, ...]
    is_graph: bool

    def run(
        self,
        inputs: Sequence[Tensor],
        *,
        watch: Watch,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Watcher]:
        """One forward pass. Nothing is mutated, and the global generators are as they were afterwards.

        A forward pass that draws random numbers sees the same ones each time.

        Args:
            inputs: One tensor per argument.
            watch: What to keep.
            parameters: By name; the network's own for those left out.

        Returns:
            The first output with one row per example, and what was seen.

        Raises:
            UndefinedScoreError: If the forward pass fails, or gives no such output or not a number.
        """
        output, watcher = _run(self.module, {**self.parameters, **(parameters or {})}, inputs, watch)
        if not bool(output.isfinite().all()):
            raise UndefinedScoreError("the output is not finite")
        return output, watcher

    def run_plainly(self, inputs: Sequence[Tensor]) -> None:
        """One forward pass as the module is in evaluation mode, unwatched; for counters of operations.

        Raises:
            UndefinedScoreError: If it fails.
        """
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}

        def call() -> object:
            with sdpa_kernel(SDPBackend.MATH):  # counters do not know the fused forms on a CPU
                return functional_call(self.module, {**self.parameters, **buffers}, tuple(inputs))

        _guarded(call, inputs)


def open_network(network: Network, examples: Examples, *, seed: int) -> Runnable:
    """Make a network ready to run on the device of the examples.

    Args:
        network: A module is copied but for its tensors; a graph is built with initial parameters.
        examples: A few of them find out which parameters of a module are weights.
        seed: Draws the parameters of a graph.

    Raises:
        UndefinedScoreError: If it cannot be built, copied or run.
    """
    if isinstance(network, ComputationalGraph):
        try:
            built = build(network, device=examples.inputs[0].device, seed=seed)
        except NasGraphError as error:
            raise UndefinedScoreError(f"the graph cannot be run: {error}") from error
        except ValueError as error:  # a constant that has no content
            raise UndefinedScoreError(f"the graph cannot be run: {error}") from error
        roles = {name: spec.role for name, spec in network.parameters.items()}
        weights = tuple(name for name, role in roles.items() if role == "weight")
        return Runnable(built.eval(), _detached(built), weights, is_graph=True)
    module = _private_copy(network)
    parameters = _detached(module)
    few = tuple(tensor[:2] for tensor in examples.inputs)
    with torch.no_grad():
        _, watcher = _run(module, parameters, few, Watch())
    return Runnable(module, parameters, tuple(name for name in parameters if name in watcher.weights), False)


def _private_copy(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, as a copy that shares all parameters and buffers."""
    shared: list[object] = [*module.parameters(), *module.buffers()]
    shared += [part.graph for part in module.modules() if isinstance(part, GraphModule)]
    try:
        return deepcopy(module, {id(each): each for each in shared}).eval()
    except Exception as error:  # the user's own code may do anything
        raise UndefinedScoreError(f"the module cannot be copied: {_line(error)}") from error


def _detached(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _run(
    module: nn.Module, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor], watch: Watch
) -> tuple[Tensor, Watcher]:
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    real = next((tensor.dtype for tensor in parameters.values() if tensor.is_floating_point()), None)
    if real == torch.float64:
        buffers = {name: _doubled(buffer) for name, buffer in buffers.items()}
    watcher = Watcher(watch, parameters, inputs)

    def call() -> object:
        with (
            watcher,
            sdpa_kernel(SDPBackend.MATH) if watch.twice else nullcontext(),
        ):  # fused attention has one derivative
            return functional_call(module, {**parameters, **buffers}, tuple(inputs))

    return _output(_guarded(call, inputs), len(inputs[0])), watcher


def _guarded(call: Callable[[], object], inputs: Sequence[Tensor]) -> object:
    """The result of a user's forward pass: the same random numbers each time, the global generators restored."""
    devices = [inputs[0].device] if inputs[0].is_cuda else []
    try:
        with torch.random.fork_rng(devices):
            torch.random.manual_seed(derive_seed(0, "zero_cost") % 2**32)
            return call()
    except UndefinedScoreError:
        raise
    except Exception as error:  # the user's own code may do anything
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise UndefinedScoreError(
            f"the forward pass fails on inputs of shape {shapes}: {_line(error)}"
        ) from error


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _output(result: object, batch_size: int) -> Tensor:
    for value in pytree.tree_leaves(result):
        if (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.dim()
            and len(value) == batch_size
        ):
            return value
    raise UndefinedScoreError(f"the forward pass gives no tensor of real numbers with {batch_size} rows")


def _line(error: Exception) -> str:
    """The first line of what an exception says, with its type."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]:.300}" if text else type(error).__name__
