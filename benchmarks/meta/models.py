"""Traced networks that the checks of symmetries, parameter graphs and pruning share: small ones of many families, and ResNet-18.

Every network is made on demand, with random parameters and running statistics no two units of which are alike, so that a mistake
in the order of units shows. The modules are ordinary torch code; nothing in them knows of nasgraph.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.meta.modules_attention import ATTENTION
from benchmarks.meta.modules_images import IMAGES
from benchmarks.meta.modules_vectors import VECTORS
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import is_statistic, trace
from nasgraph.seeding import derive_seed

Make = Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]


@dataclass(frozen=True)
class TracedModel:
    """A network as nasgraph knows it.

    Attributes:
        graph: The traced architecture.
        state: Parameters, running statistics and constants, in single precision.
        inputs: Example inputs `[batch, *shape]`, one per input node.
    """

    graph: ComputationalGraph
    state: dict[str, Tensor]
    inputs: tuple[Tensor, ...]

    def double(self) -> "TracedModel":
        """The same network and inputs in double precision."""
        state = {name: _double(tensor) for name, tensor in self.state.items()}
        return TracedModel(self.graph, state, tuple(_double(tensor) for tensor in self.inputs))


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


class TracedModels(Mapping[str, TracedModel]):
    """Networks by name, each built and traced when it is first asked for."""

    def __init__(self, makers: Mapping[str, Make]) -> None:
        self._makers = dict(makers)
        self._known: dict[str, TracedModel] = {}

    def __getitem__(self, name: str) -> TracedModel:
        if name not in self._known:
            self._known[name] = _traced(self._makers[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def traced_models(*, transformers: bool = False) -> TracedModels:
    """All networks. `transformers`: with some of that library too, from small configurations; it must be installed."""
    makers: dict[str, Make] = {**VECTORS, **IMAGES, **ATTENTION}
    if transformers:
        from benchmarks.meta.modules_transformers import TRANSFORMERS  # slow to import

        makers |= TRANSFORMERS
    return TracedModels(makers)


def _traced(make: Make) -> TracedModel:
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        torch.manual_seed(derive_seed(0, "traced models") % 2**32)
        module, inputs = make()
    traced = trace(module.eval(), inputs)
    rng = torch.Generator().manual_seed(derive_seed(1, "traced models"))
    state: dict[str, Tensor] = {}
    for name, tensor in {**traced.from_module(module), **traced.statistics, **traced.constants}.items():
        state[name] = tensor.detach().clone()
        if name.endswith(".value") or not tensor.is_floating_point():
            continue
        if name.endswith(".running_var"):
            state[name] = 0.5 + torch.rand(tensor.shape, generator=rng)
        elif is_statistic(name):
            state[name] = 0.2 * torch.randn(tensor.shape, generator=rng)
        else:
            scale = float(tensor.std()) if tensor.numel() > 1 and float(tensor.std()) > 0 else 0.2
            state[name] += 0.5 * scale * torch.randn(tensor.shape, generator=rng)
    return TracedModel(traced.graph, state, tuple(traced.inputs_of(inputs)))
