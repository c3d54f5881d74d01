"""Any torch module as a computational graph, with the parameter that each node owns."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nasgraph.errors import TraceError
from nasgraph.ir import ComputationalGraph
from nasgraph.modules.build import GraphModule, build
from nasgraph.modules.tracing.composite import RULES as COMPOSITE
from nasgraph.modules.tracing.elementwise import RULES as ELEMENTWISE
from nasgraph.modules.tracing.images import RULES as IMAGES
from nasgraph.modules.tracing.indexing import RULES as INDEXING
from nasgraph.modules.tracing.layers import RULES as LAYERS
from nasgraph.modules.tracing.lowering import Batch, Lowering, Owner, Rule, split_axis
from nasgraph.modules.tracing.recorder import (
    BufferChangedError,
    ContentNeededError,
    HistoryLostError,
    Recorder,
)
from nasgraph.modules.tracing.recording import Recording, Value
from nasgraph.modules.tracing.structure import RULES as STRUCTURE

logger = logging.getLogger(__name__)

RULES: Mapping[str, Rule] = {**STRUCTURE, **INDEXING, **ELEMENTWISE, **IMAGES, **LAYERS, **COMPOSITE}
"""How each known torch function is written in the graph language."""

ExampleInputs = Tensor | Sequence[object] | Mapping[str, object]
Route = Literal["meta", "export", "real"]

META_PRIMES = (107, 109, 113, 131, 137, 139, 149, 151, 163, 167, 173, 179, 181, 191, 193, 199, 211, 223)
REAL_PRIMES = (11, 13, 19, 23, 29, 31, 41, 43, 47)
"""Batch sizes, without those that are one more than a square or a power of two: an image has that many tokens."""


@dataclass(frozen=True)
class Output:
    """Where one output of a graph is found in what the module returns.

    Attributes:
        path: Where it stands, as in `['logits']` or `[0]`; empty if the module returns one tensor.
        batch: Where its examples lie; None if it is the same for all examples.
    """

    path: str
    batch: Batch | None

    def per_example(self, tensor: Tensor, *, shape: tuple[int, ...]) -> Tensor:
        """What the module returned, in the form `[batch, *shape]` that the graph gives."""
        if self.batch is None:
            return tensor.reshape(1, *shape)
        size = tensor.shape[self.batch.axis] // self.batch.rest
        return split_axis(tensor, self.batch, size).reshape(size, *shape)


@dataclass(frozen=True)
class TracedGraph:
    """A module written as a graph.

    Attributes:
        graph: The graph. Input nodes are the module's tensor inputs that have a batch axis, in their order.
        owners: For every parameter of the graph, which parameter of the module it is. Each parameter of the module
            stands here once or is listed in `unused`.
        constants: Content of the graph's constants by the name `n<node>.value`, as `build` takes them.
        statistics: Running statistics of the batch norms by name, the module's own tensors.
        unused: Parameters of the module that no output depends on.
        specialised: What the graph holds for only: questions that the forward pass asked about the content of tensors that follow
            from its inputs, such as "is any token masked", and random numbers that it drew. For inputs with other answers the
            module may compute something else.
        opaque: Operators that the graph language cannot express, with their number. Without any, the graph can be built and
            computes what the module computes.
        reasons: For each opaque operator, why it is.
        outputs: Where each output stands in what the module returns.
        route: How the forward pass was recorded: "meta", "export" or "real".
    """

    graph: ComputationalGraph
    owners: dict[str, Owner]
    constants: dict[str, Tensor]
    statistics: dict[str, Tensor]
    unused: tuple[str, ...]
    specialised: tuple[str, ...]
    opaque: dict[str, int]
    reasons: dict[str, str]
    outputs: tuple[Output, ...]
    route: Route

    def to_module(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters by the module's names and in its shapes, from parameters by the graph's. Views where possible."""
        return {
            owner.name: parameters[name].permute(owner.order).reshape(owner.shape)
            for name, owner in self.owners.items()
        }

    def from_module(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's parameters by the graph's names and in its shapes. Views where possible."""
        own = dict(module.named_parameters())
        result = {}
        for name, owner in self.owners.items():
            spec = self.graph.parameters[name]
            tensor = own[owner.name].detach()
            if len(owner.shape) == len(owner.order):
                tensor = tensor.permute(tuple(owner.order.index(axis) for axis in range(len(owner.order))))
            result[name] = tensor.reshape(spec.shape)
        return result

    def build(self, module: nn.Module) -> GraphModule:
        """The graph as a module of its own, in evaluation mode, with copies of the traced module's parameters.

        Raises:
            UnsupportedOpError: If the graph has opaque nodes.
        """
        built = build(self.graph, constants=self.constants)
        state = {name: tensor.detach().clone() for name, tensor in self.from_module(module).items()}
        state.update({name: tensor.clone() for name, tensor in {**self.constants, **self.statistics}.items()})
        built.load_state_dict(state)
        return built.eval()

    def inputs_of(self, example_inputs: ExampleInputs) -> list[Tensor]:
        """The graph's inputs `[batch, *shape]` from the module's."""
        tensors, size = _batched(_leaves(example_inputs)[0])
        return [
            tensor.reshape(size, *self.graph.shapes[i])
            for i, tensor in zip(self.graph.inputs, tensors, strict=True)
        ]

    def outputs_of(self, returned: object) -> list[Tensor]:
        """The module's outputs in the form and order in which the graph gives them."""
        found = dict(_named_tensors(returned))
        return [
            output.per_example(found[output.path], shape=self.graph.shapes[node])
            for output, node in zip(self.outputs, self.graph.outputs, strict=True)
        ]


def trace(
    module: nn.Module,
    example_inputs: ExampleInputs,
    *,
    route: Route | None = None,
    allow_unknown: bool = False,
) -> TracedGraph:
    """Write a module as a computational graph, by one forward pass in evaluation mode.

    The pass runs on the meta device: it takes no memory for activations and does not touch the weights. Python control
    flow may depend on shapes, on constants and on integer inputs. Where it depends on real numbers, the pass is repeated
    on real tensors (copies of the given examples, eleven or more); where meta tensors fail for another reason, through
    `torch.export` first.

    Guaranteed: the module is left as it was: parameters, buffers, gradients, mode and attributes (an object that an
    attribute refers to may change, if the forward pass changes it). No random state is touched. Every parameter on which an output
    depends is owned by exactly one node, with its exact shape.

    Args:
        module: Any module, in any mode, on any device, the meta device too.
        example_inputs: A tensor, positional arguments or keyword arguments of the forward pass. Axis 0 of the first
            tensor is the batch; tensors without that axis count as constants.
        route: Use this way of recording only.
        allow_unknown: Make an unknown operator that reads a parameter opaque instead of refusing it.

    Raises:
        UnsupportedOpError: If an operator that nasgraph does not know reads a parameter. The message names both.
        TraceError: If the forward pass fails, the module has parameters that are no real numbers or are not initialised
            yet, or no output depends on the inputs.
    """
    parts = _parts(module)
    _refuse(module, parts)
    leaves, call = _leaves(example_inputs)
    if not _batched(leaves)[0]:
        raise TraceError("Expected at least one tensor with a batch axis among the example inputs")
    ways: list[Route] = ["meta"] if route is None else [route]
    failures: list[tuple[Route, Exception]] = []
    while ways:
        way = ways.pop(0)
        try:
            recording = _record(module, parts, leaves, call, way)
        except TraceError:
            raise
        except Exception as error:
            logger.debug("Tracing by %s failed", way, exc_info=True)
            failures.append((way, error))
            if route is None and way == "meta":
                ways = _other_ways(error)
            continue
        return _write(parts, recording, way, allow_unknown=allow_unknown)
    raise _explain(module, failures) from failures[-1][1]


def _other_ways(error: Exception) -> list[Route]:
    """What to try where the pass on the meta device fails."""
    if isinstance(error, HistoryLostError):
        return []  # on real tensors the loss would not show
    return ["real", "export"] if isinstance(error, ContentNeededError) else ["export", "real"]


def _explain(module: nn.Module, failures: Sequence[tuple[Route, Exception]]) -> TraceError:
    """The error that helps most: that of real tensors, where one of them ran, since it is what the user would see."""
    way, error = next((f for f in failures if f[0] == "real"), failures[-1])
    if isinstance(error, HistoryLostError):
        return TraceError(f"{type(module).__name__} cannot be traced: {error}")
    return TraceError(
        f"The forward pass of {type(module).__name__} fails on the example inputs ({way}){_place(module, error)}: "
        f"{type(error).__name__}: {error}"
    )


def _place(module: nn.Module, error: BaseException) -> str:
    """Which child the error comes from, in words: the innermost whose forward pass was running."""
    names = {id(child): name for name, child in module.named_modules() if name}
    found, frame = "", error.__traceback__
    while frame is not None:
        running = frame.tb_frame.f_locals.get("self")
        if id(running) in names and isinstance(running, nn.Module):
            found = f" in '{names[id(running)]}' ({type(running).__name__})"
        frame = frame.tb_next
    return found


@dataclass(frozen=True)
class _Parts:
    """What a module consists of, collected once: torch walks the whole tree for each question."""

    modules: dict[str, nn.Module]
    parameters: dict[str, Tensor]
    buffers: tuple[Tensor, ...]


def _parts(module: nn.Module) -> _Parts:
    modules = dict(module.named_modules())
    parameters: dict[str, Tensor] = {}
    buffers: dict[int, Tensor] = {}
    seen = set[int]()
    for prefix, holder in modules.items():
        for name, parameter in holder._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                parameters[f"{prefix}.{name}" if prefix else name] = parameter
        for buffer in holder._buffers.values():
            if buffer is not None:
                buffers[id(buffer)] = buffer
    return _Parts(modules, parameters, tuple(buffers.values()))


def _refuse(module: nn.Module, parts: _Parts) -> None:
    for name, parameter in parts.parameters.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise TraceError(
                f"The parameter '{name}' is not initialised yet: run the module once before tracing it"
            )
        if not parameter.is_floating_point():
            raise TraceError(f"Expected real-valued parameters (got '{name}' of type {parameter.dtype})")
    for name, child in parts.modules.items():
        if isinstance(child, torch.jit.ScriptModule):
            raise TraceError(
                f"'{name or type(module).__name__}' is a TorchScript module, whose inside cannot be seen. Trace its source"
            )
        if ".quantized." in f"{type(child).__module__}.":
            raise TraceError(
                f"'{name or type(child).__name__}' is a quantised module ({type(child).__name__}): its weights are no parameters. "
                "Trace the module that it was made from"
            )


def _leaves(
    example_inputs: ExampleInputs,
) -> tuple[list[object], Callable[[nn.Module, Sequence[object]], object]]:
    """Everything given, flat, and how to call the module with it."""
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    leaves, form = pytree.tree_flatten(
        dict(example_inputs) if isinstance(example_inputs, Mapping) else tuple(example_inputs)
    )

    def call(module: nn.Module, given: Sequence[object]) -> object:
        arguments = pytree.tree_unflatten(list(given), form)
        return module(**arguments) if isinstance(arguments, dict) else module(*arguments)

    return leaves, call


def _batched(leaves: Sequence[object]) -> tuple[list[Tensor], int]:
    """The tensors with a batch axis, and the batch size."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.numel() > 0]
    if not tensors:
        return [], 0
    size = tensors[0].shape[0]
    return [tensor for tensor in tensors if tensor.shape[0] == size], size


def _prime(parts: _Parts, leaves: Sequence[object], primes: Sequence[int]) -> int:
    """A batch size that divides no other size at hand, so that the batch axis shows in every shape."""
    sizes = {size for tensor in (*parts.parameters.values(), *parts.buffers) for size in tensor.shape}
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            sizes.update(leaf.shape[1:])
    return next((p for p in primes if all(size % p for size in sizes if size)), primes[-1])


def _record(
    module: nn.Module,
    parts: _Parts,
    leaves: Sequence[object],
    call: Callable[[nn.Module, Sequence[object]], object],
    way: Route,
) -> Recording:
    """One forward pass, recorded.

    Raises:
        Exception: Whatever the forward pass raises.
    """
    tensors, _ = _batched(leaves)
    given_ids = frozenset(id(tensor) for tensor in tensors)
    size = _prime(parts, leaves, REAL_PRIMES if way == "real" else META_PRIMES)
    runner = module
    if way == "export":
        runner = _exported(module, parts, leaves, call, size, given_ids)
        parts = _parts(runner)

    def run(*, own_buffers: bool) -> tuple[Recorder, object]:
        with _untouched(parts), torch.no_grad(), torch.random.fork_rng(devices=[]):
            if own_buffers:
                _copy_buffers(runner)
            buffers = _parts(runner).buffers if own_buffers else parts.buffers
            recorder = Recorder(
                parts.parameters, buffers, batch_size=size, real=way == "real", has_own_buffers=own_buffers
            )
            repeated = [
                recorder.give(_repeat(leaf, size, content=way == "real" or not leaf.is_floating_point()))
                if isinstance(leaf, Tensor) and id(leaf) in given_ids
                else leaf
                for leaf in leaves
            ]
            with recorder:
                return recorder, call(runner, repeated)

    try:
        recorder, returned = run(own_buffers=False)
    except BufferChangedError:
        recorder, returned = run(own_buffers=True)
    _note_outputs(module, recorder, returned)
    return recorder.recording


def _copy_buffers(module: nn.Module) -> None:
    """Give a module buffers of its own, which it may change; one that stands in two places stays one."""
    copies: dict[int, Tensor] = {}
    for holder in module.modules():
        for name, buffer in holder._buffers.items():
            if buffer is not None:
                holder._buffers[name] = copies.setdefault(id(buffer), buffer.clone())


def _note_outputs(module: nn.Module, recorder: Recorder, returned: object) -> None:
    """Note every tensor returned that depends on inputs or parameters.

    Raises:
        TraceError: If there is none.
    """
    named = list(_named_tensors(returned))
    seen = set()
    for path, tensor in named:
        value = recorder.value_of(tensor)
        if value.tensor is None and not value.parameter and value not in seen and 0 not in value.shape:
            seen.add(value)
            recorder.recording.outputs.append((path, value))
    if recorder.recording.outputs:
        return
    name = type(module).__name__
    if not named:
        raise TraceError(f"{name} returns no tensor (got {type(returned).__name__})")
    if any(tensor.numel() == 0 for _, tensor in named):
        raise TraceError(
            f"{name} returns nothing but empty tensors for the example inputs; try other examples"
        )
    raise TraceError(f"{name} returns no tensor that depends on its inputs or parameters")


def _exported(
    module: nn.Module,
    parts: _Parts,
    leaves: Sequence[object],
    call: Callable[[nn.Module, Sequence[object]], object],
    size: int,
    batched: frozenset[int],
) -> nn.Module:
    """The module as `torch.export` sees it: straight-line code over the same parameters.

    Raises:
        Exception: Whatever `torch.export` raises.
    """
    form = call(_Echo(), leaves)
    given = pytree.tree_map(
        lambda leaf: (
            _repeat(leaf, size, content=False).contiguous()
            if isinstance(leaf, Tensor) and id(leaf) in batched
            else leaf
        ),
        form,
    )
    positional, named = given
    with _untouched(parts), torch.no_grad(), torch.random.fork_rng(devices=[]), _quiet("torch"):
        program = torch.export.export(module, tuple(positional), dict(named), strict=False)
    return program.module(check_guards=False)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library from printing its failures, which are raised as well."""
    loggers = [
        logging.getLogger(name),
        *(logging.getLogger(n) for n in logging.root.manager.loggerDict if n.startswith(f"{name}.")),
    ]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        with ExitStack() as stack:
            sink = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123  the null device is no path
            stack.enter_context(redirect_stdout(sink))
            stack.enter_context(redirect_stderr(sink))
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


class _Echo(nn.Module):
    """Gives back what it is called with."""

    def forward(self, *args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
        return args, kwargs


def _repeat(tensor: Tensor, size: int, *, content: bool) -> Tensor:
    """A batch of `size` examples: the given ones over and over where their content counts."""
    if not content:
        return tensor[:1].expand(size, *tensor.shape[1:])
    return tensor[torch.arange(size, device=tensor.device) % len(tensor)]


def _named_tensors(returned: object) -> Iterator[tuple[str, Tensor]]:
    for path, leaf in pytree.tree_flatten_with_path(returned)[0]:
        if isinstance(leaf, Tensor):
            yield pytree.keystr(path), leaf
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            for field in fields(leaf):
                for inner, tensor in _named_tensors(getattr(leaf, field.name)):
                    yield f"{pytree.keystr(path)}.{field.name}{inner}", tensor


@contextmanager
def _untouched(parts: _Parts) -> Iterator[None]:
    """Run a module in evaluation mode, then put back every attribute of it and its children.

    Dictionaries and lists among the attributes get their content back too: libraries install hooks and fill caches
    at the first forward pass.
    """
    holders = list(parts.modules.values())
    wanted = [(parameter, parameter.requires_grad) for parameter in parts.parameters.values()]
    kept = [(holder.__dict__, dict(holder.__dict__)) for holder in holders]
    contents = [
        (part, part.copy() if part else None)
        for attributes, _ in kept
        for part in attributes.values()
        if isinstance(part, dict | list)
    ]
    try:
        for holder in holders:
            holder.__dict__["training"] = False
        yield
    finally:
        for current, before in kept:
            _put_back(current, before)
        for part, content in contents:
            if not part and not content:
                continue  # most of the hooks of a module
            if isinstance(part, dict):
                _put_back(part, content if isinstance(content, dict) else {})
            elif len(content or ()) != len(part):
                part[:] = content or []
        for parameter, requires_grad in wanted:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


def _put_back(current: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    if len(current) != len(before):
        for name in [name for name in current if name not in before]:
            del current[name]
    for name, value in before.items():
        if name not in current or current[name] is not value:
            current[name] = value


def _write(parts: _Parts, recording: Recording, way: Route, *, allow_unknown: bool) -> TracedGraph:
    lowering = Lowering(recording, RULES, allow_unknown=allow_unknown)
    nodes = lowering.run()
    graph, place = lowering.finish(nodes)
    owners = {
        f"n{place[int(name[1:].split('.')[0])]}.{name.split('.')[1]}": owner
        for name, owner in lowering.owners.items()
        if int(name[1:].split(".")[0]) in place
    }
    owners = {name: owners[name] for name in graph.parameters}
    statistics = {}
    for old, (mean, variance) in lowering.statistics.items():
        if old in place:
            statistics[f"n{place[old]}.running_mean"] = mean
            statistics[f"n{place[old]}.running_var"] = variance
    used = {owner.name for owner in owners.values()}
    assert len(used) == len(owners), "a parameter is owned twice"
    return TracedGraph(
        graph=graph,
        owners=owners,
        constants={
            f"n{place[old]}.value": tensor for old, tensor in lowering.constants.items() if old in place
        },
        statistics=statistics,
        unused=tuple(name for name in parts.parameters if name not in used),
        specialised=tuple(recording.questions),
        opaque=dict(Counter(str(node.attr("name")) for node in graph.nodes if node.op == "opaque")),
        reasons=lowering.reasons,
        outputs=tuple(Output(path, lowering.layout(value)) for path, value in recording.outputs),
        route=way,
    )


__all__ = ["Batch", "Output", "Owner", "Route", "TracedGraph", "Value", "trace"]
