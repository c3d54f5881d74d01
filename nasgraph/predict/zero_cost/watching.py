"""Seeing and steering what a module computes, at the level of torch's functions: any module, hooks or not.

A `Watcher` is active during one forward pass. It replaces the norms' behaviour and keeps what the proxies look at. What stands inside
one call of a fused function, such as `multi_head_attention_forward`, is one step to it; compiled and scripted code is not seen.

Shape letters: B = examples in the batch, U = units of one activation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from nasgraph.predict.zero_cost import functions, twice
from nasgraph.predict.zero_cost.functions import (
    CONVOLUTIONS,
    DATA_FIRST,
    LAYERS,
    MIXERS,
    NORMS,
    first_argument,
    tensors_among,
)
from nasgraph.predict.zero_cost.records import UndefinedScoreError

PATTERN_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class Watch:
    """What a forward pass is to keep, and how norms behave in it.

    Attributes:
        norms: "batch": by the statistics of the batch, running ones neither read nor written; "skip": as identities.
        layers: Keep the calls of convolutions and linear maps.
        codes: Compare how examples switch rectifiers.
        patterns: Collect the distinct patterns of switches.
        flow: Keep every tensor that depends on the input, and what it was made of.
        spreads: Keep the standard deviation that enters each batch norm.
        twice: Second derivatives will be asked for: use forms whose gradients are cheap to differentiate.
    """

    norms: Literal["batch", "skip"] = "batch"
    layers: bool = False
    codes: bool = False
    patterns: bool = False
    flow: bool = False
    spreads: bool = False
    twice: bool = False


@dataclass(slots=True, eq=False)
class Layer:
    """One call of a convolution or a linear map.

    Attributes:
        op: Name of the function.
        weight: Name of its weight, a parameter.
        x: What it read.
        y: What it gave, before anything changed it in place.
        edge: Where gradients by `y` are taken; None if none flow.
        again: The same function of other data and another weight.
        settings: Those of a two-dimensional convolution of images, if its padding is given in numbers.
    """

    op: str
    weight: str
    x: Tensor
    y: Tensor
    edge: GradientEdge | None
    again: Callable[[Tensor, Tensor], Tensor]
    settings: twice.Settings | None

    @property
    def channel_axis(self) -> int:
        """The axis of `y` that numbers the channels."""
        return 1 if self.op in CONVOLUTIONS else self.y.dim() - 1


@dataclass(slots=True, eq=False)
class Step:
    """One tensor that depends on the input.

    Attributes:
        value: The tensor.
        sources: Places of the steps that it was computed from.
        is_weighted: Whether data was multiplied with a weight to compute it.
        op: Name of the function.
    """

    value: Tensor
    sources: tuple[int, ...]
    is_weighted: bool
    op: str


class Watcher(TorchFunctionMode):
    """Keeps what a `Watch` asks for during one forward pass of `batch_size` examples.

    Attributes:
        weights: Names of parameters that data was multiplied with, in order of first use, each once.
        layers: Calls of convolutions and linear maps.
        alike_BB: For each pair of examples, the units that are switched alike.
        num_switches: Rectified units seen, over all rectifiers.
        patterns: One array of distinct patterns of switches per rectifier, eight bytes each.
        steps: The flow, the inputs first.
        log_spreads: Log of the root of the mean variance that enters each batch norm.
        last_map: The last output of a convolution, norm or rectifier with three axes or more.
    """

    def __init__(self, watch: Watch, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._watch = watch
        self._names = {id(tensor): name for name, tensor in parameters.items()}
        self._outputs: dict[int, Layer] = {}
        self._places: dict[int, int] = {}
        self._batch_size = len(inputs[0])
        self.weights: dict[str, None] = {}
        self.layers: list[Layer] = []
        self.alike_BB: Tensor | None = None
        self.num_switches = 0
        self.patterns: list[np.ndarray] = []
        self.steps: list[Step] = []
        self.log_spreads: list[Tensor] = []
        self.last_map: Tensor | None = None
        for tensor in inputs if watch.flow else ():
            self._add_step(tensor, (), is_weighted=False, op="input")

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        op = getattr(func, "__name__", "")
        if self._outputs and (op.endswith("_") or op.startswith("__i") or kwargs.get("inplace")):
            self._save_before_change(args)
        own = self._weights_among(args[DATA_FIRST.get(op, 0) :], kwargs) if op in MIXERS else ()
        is_rectifier = functions.is_rectifier(op, args, kwargs)
        if is_rectifier:
            self._see_switches(first_argument(args, kwargs))
        result = self._call(op, func, args, kwargs)
        if isinstance(result, Tensor):
            if result.dim() >= 3 and (op in CONVOLUTIONS or op in NORMS or is_rectifier):
                self.last_map = result
            if own and op in LAYERS and self._watch.layers:
                self._see_layer(op, own[0], func, args, kwargs, result)
        if self._watch.flow:
            self._see_flow(op, args, kwargs, result, is_weighted=bool(own))
        return result

    def _call(self, op: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op in NORMS and self._watch.norms == "skip":
            return first_argument(args, kwargs)
        if op == "batch_norm":
            if self._watch.spreads:
                x, eps = functions.norm_input_and_eps(args, kwargs)
                variance = x.detach().var([0, *range(2, x.dim())], correction=0)
                self.log_spreads.append((variance.mean() + eps).log() / 2)
            return functions.batch_norm(args, kwargs, is_twice=self._watch.twice)
        if op == "instance_norm":
            return functions.instance_norm(args, kwargs)
        if op == "conv2d" and self._watch.twice:
            return functions.convolution(func, args, kwargs)
        if op == "hardsigmoid" and self._watch.twice:
            return functions.hardsigmoid(args, kwargs)
        return func(*args, **kwargs)

    def _weights_among(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        found = []
        for tensor in tensors_among((*args, *kwargs.values())):
            base = tensor if id(tensor) in self._names else tensor._base
            if base is not None and base.dim() >= 2 and id(base) in self._names:
                found.append(self._names[id(base)])
        self.weights.update(dict.fromkeys(found))
        return tuple(found)

    def _see_layer(
        self,
        op: str,
        weight: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        y: Tensor,
    ) -> None:
        layer = Layer(
            op=op,
            weight=weight,
            x=functions.layer_data(args, kwargs),
            y=y,
            edge=get_gradient_edge(y) if y.requires_grad else None,
            again=functions.repeated(func, args, kwargs),
            settings=functions.convolution_settings(args, kwargs)
            if op == "conv2d" and y.dim() == 4
            else None,
        )
        self.layers.append(layer)
        self._outputs[id(y)] = layer

    def _save_before_change(self, args: Sequence[Any]) -> None:
        layer = self._outputs.pop(id(args[0]), None) if args else None
        if layer is not None:
            layer.y = layer.y.detach().clone()

    def _see_switches(self, x: Tensor) -> None:
        if not (self._watch.codes or self._watch.patterns):
            return
        x = x.detach()
        if x.dim() == 0 or len(x) not in (1, self._batch_size):
            raise UndefinedScoreError(
                f"a rectifier reads a tensor of shape {tuple(x.shape)}, whose first axis is not the batch of "
                f"{self._batch_size}"
            )
        is_on_BU = (x > 0).flatten(1).expand(self._batch_size, -1)
        self.num_switches += is_on_BU.shape[1]
        if self._watch.codes:
            sign_BU = is_on_BU.float() * 2 - 1
            alike_BB = ((sign_BU @ sign_BU.T + sign_BU.shape[1]) / 2).double()  # exact: counts below 2**24
            self.alike_BB = alike_BB if self.alike_BB is None else self.alike_BB + alike_BB
        if self._watch.patterns:
            self.patterns.append(_distinct_patterns(is_on_BU[:PATTERN_EXAMPLES].cpu().numpy()))

    def _see_flow(
        self, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: object, *, is_weighted: bool
    ) -> None:
        places = (self._places.get(id(tensor)) for tensor in tensors_among((*args, *kwargs.values())))
        sources = tuple(sorted({place for place in places if place is not None}))
        if sources:
            for tensor in tensors_among((result,)):
                if tensor.is_floating_point():
                    self._add_step(tensor, sources, is_weighted=is_weighted, op=op)

    def _add_step(self, value: Tensor, sources: tuple[int, ...], *, is_weighted: bool, op: str) -> None:
        self._places[id(value)] = len(self.steps)  # a tensor that changes in place becomes a new step
        self.steps.append(Step(value, sources, is_weighted, op))

    def place_of(self, tensor: Tensor) -> int | None:
        """The step whose value a tensor is."""
        return self._places.get(id(tensor))


def _distinct_patterns(is_on_BU: np.ndarray) -> np.ndarray:
    """The distinct columns, as numbers of 64 bits. For at most 64 examples."""
    packed = np.packbits(is_on_BU, axis=0)
    words = np.zeros((is_on_BU.shape[1], 8), np.uint8)
    words[:, : len(packed)] = packed.T
    return np.unique(words.view(np.uint64))
