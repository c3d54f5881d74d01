"""Latency by measurement: how long one forward pass takes on this machine."""

import gc
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor, nn

from nasgraph.errors import CandidateError, ConfigError
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext, buffers_by_node, initial_buffers, initial_parameters

Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """How forward passes are timed: the same for all networks, so that they can be compared.

    Timing goes on from `min_repeats` until the 95 % interval of the median is within `tolerance` of it, the time is spent, or
    `max_repeats` are made. Equal fewest and most repeats fix their number.

    Attributes:
        batch_size: Examples per forward pass.
        num_threads: Threads of torch while measuring; restored afterwards.
        warmup: Forward passes before the first that counts: caches fill, kernels are chosen.
        min_repeats, max_repeats: Fewest and most forward passes that count.
        tolerance: Half width of the interval as a share of the median.
        max_seconds: Time after which no further pass is begun.
        device: Where to run.
    """

    batch_size: int = 1
    num_threads: int = 1
    warmup: int = 5
    min_repeats: int = 10
    max_repeats: int = 1000
    tolerance: float = 0.02
    max_seconds: float = 2.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_threads", "min_repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")
        if self.max_repeats < self.min_repeats:
            raise ConfigError(
                f"Expected 'max_repeats' of at least 'min_repeats' (got {self.max_repeats} and {self.min_repeats})"
            )
        if self.warmup < 0 or self.tolerance <= 0 or self.max_seconds <= 0:
            raise ConfigError("Expected 'warmup' of at least 0, 'tolerance' and 'max_seconds' above 0")
        if torch.device(self.device).type == "meta":
            raise ConfigError("Expected a device that computes (got 'meta')")


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one forward pass in inference mode, in milliseconds.

    Attributes:
        median_ms: The number: the median over repeats.
        low_ms, high_ms: Its 95 % interval by order statistics. Assumes that repeats are independent; on a machine with
            other work slow spells last, and the truth may lie outside.
        p10_ms, p90_ms: Ten and ninety per cent of the passes were faster.
        deviation_ms: Mean absolute deviation from the median.
        repeats, warmup: Passes that count, and passes before.
        is_settled: Whether the interval got as narrow as asked for.
        batch_size, num_threads, device, dtype: What was run, where: `device` is the processor's name, `dtype` that of
            the parameters.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    p10_ms: float
    p90_ms: float
    deviation_ms: float
    repeats: int
    warmup: int
    is_settled: bool
    batch_size: int
    num_threads: int
    device: str
    dtype: str


def measure_latency(
    network: ComputationalGraph | nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    example_inputs: Sequence[Tensor] | None = None,
    config: LatencyConfig | None = None,
) -> Latency:
    """Measure the latency of a graph or of any module.

    A graph gets random weights, zeros for its constants and integer inputs, and random real inputs: what they are does not
    change how long dense operators take. It is run as nasgraph runs it, node by node; the interpreter's few microseconds per
    node are part of the number. A module is run as it is, in evaluation mode, and its mode is restored. Neither is changed.
    The number of threads is a global setting of torch, and is restored: call from one thread at a time.

    Args:
        network: A graph, or a module that lives on `config.device`.
        input_shape: Shape of the one input per example, for a module; a graph knows its own.
        example_inputs: Inputs of one forward pass with their batch axis, in place of a shape. `config.batch_size` is then
            ignored: the first axis of the first input counts.
        config: How to measure.

    Returns:
        The latency with its spread and the circumstances.

    Raises:
        UnsupportedOpError: If a node of the graph is `opaque`; the message names it.
        ValueError: If a module comes without shape or inputs, or what is given does not fit the graph or the device.
        CandidateError: If the forward pass fails; with its message.
    """
    config = config or LatencyConfig()
    device = torch.device(config.device)
    if example_inputs is not None:
        if not example_inputs or example_inputs[0].ndim < 1:
            raise ValueError("Expected at least one example input, with a batch axis")
        config = replace(config, batch_size=example_inputs[0].shape[0])
    with _eval_mode(network), _threads(config.num_threads), torch.inference_mode():
        if isinstance(network, ComputationalGraph):
            inputs = _graph_inputs(network, input_shape, example_inputs, config)
            run, dtype = _graph_runner(network, inputs, device), torch.float32
        else:
            inputs = _module_inputs(network, input_shape, example_inputs, config)
            run, dtype = _module_runner(network, inputs), _dtype_of(network)
        times_ms = _times(_synchronised(run, device), inputs, config)
    return _summary(times_ms, config, dtype)


@dataclass(frozen=True)
class LatencyEvaluator:
    """Measures the latency of each candidate, and refuses the slow ones before anything dear is done. An `Evaluator`.

    Alone, the objective is `minus_latency_ms`. With a further evaluator the objective is that one's, and it sees only candidates within
    the limit. Metrics: `latency_ms`, `latency_deviation_ms`, `latency_repeats`. Unlike other evaluators, equal
    arguments give results that are equal only up to the noise of the machine.

    Attributes:
        config: How to measure.
        evaluate: Measures what the search is for; an `Evaluator`.
        max_latency_ms: The limit; None: no limit.
    """

    config: LatencyConfig = field(default_factory=LatencyConfig)
    evaluate: Callable[..., Evaluation] | None = None  # an `Evaluator`, which runtime type checks cannot test
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        if self.max_latency_ms is not None and not self.max_latency_ms > 0:
            raise ConfigError(f"Expected 'max_latency_ms' above 0 (got {self.max_latency_ms})")

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        """Measure. Raises `CandidateError` if the graph cannot run or is slower than the limit."""
        latency = measure_latency(graph, config=self.config)
        if self.max_latency_ms is not None and latency.median_ms > self.max_latency_ms:
            raise CandidateError(
                f"Latency {latency.median_ms:.3g} ms is above the limit of {self.max_latency_ms:.3g} ms"
            )
        metrics = {
            "latency_ms": latency.median_ms,
            "latency_deviation_ms": latency.deviation_ms,
            "latency_repeats": float(latency.repeats),
        }
        if self.evaluate is None:
            return Evaluation(
                "minus_latency_ms", {**metrics, "minus_latency_ms": -latency.median_ms}, (), seed
            )
        found = self.evaluate(graph, seed=seed, keep_going=keep_going)
        return replace(found, metrics={**found.metrics, **metrics})


@contextmanager
def _eval_mode(network: ComputationalGraph | nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode, and back as it was."""
    if isinstance(network, ComputationalGraph):
        yield
        return
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _graph_inputs(
    graph: ComputationalGraph,
    input_shape: Sequence[int] | None,
    example_inputs: Sequence[Tensor] | None,
    config: LatencyConfig,
) -> list[Tensor]:
    own = [graph.shapes[index] for index in graph.inputs]
    if input_shape is not None and [tuple(input_shape)] != own:
        raise ValueError(f"Expected 'input_shape' to be that of the graph, {own} (got {tuple(input_shape)})")
    if example_inputs is not None:
        got = [tuple(tensor.shape[1:]) for tensor in example_inputs]
        if got != own:
            raise ValueError(f"Expected inputs of shapes {own} behind the batch axis (got {got})")
        return [tensor.to(config.device) for tensor in example_inputs]
    rng = torch.Generator().manual_seed(0)
    return [
        torch.zeros(config.batch_size, *shape, dtype=torch.int64, device=config.device)
        if graph.dtypes[index] == "int"
        else torch.randn(config.batch_size, *shape, generator=rng).to(config.device)
        for index, shape in zip(graph.inputs, own, strict=True)
    ]


def _graph_runner(
    graph: ComputationalGraph, inputs: Sequence[Tensor], device: torch.device
) -> Callable[[Sequence[Tensor]], object]:
    program = Program(graph)
    parameters = {name: tensor.to(device) for name, tensor in initial_parameters(graph, seed=0).items()}
    buffers = {name: tensor.to(device) for name, tensor in initial_buffers(graph).items()}
    constants = {
        index: torch.zeros(
            graph.shapes[index],
            dtype=torch.int64 if graph.dtypes[index] == "int" else torch.float32,
            device=device,
        )
        for index, node in enumerate(graph.nodes)
        if node.op == "constant"
    }
    context = RunContext(
        batch_size=inputs[0].shape[0],
        buffers=buffers_by_node(buffers),
        constants=constants,
        real=torch.float32,
    )
    return lambda values: program(parameters, values, context)


def _module_inputs(
    module: nn.Module,
    input_shape: Sequence[int] | None,
    example_inputs: Sequence[Tensor] | None,
    config: LatencyConfig,
) -> list[Tensor]:
    device = torch.device(config.device)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != device.type or device.index not in (None, tensor.device.index):
            raise ValueError(
                f"Expected the module on '{config.device}' (got '{name}' on '{tensor.device}'). "
                "Move it, or name its device in the 'config'"
            )
    if example_inputs is not None:
        return [tensor.to(device) for tensor in example_inputs]
    if input_shape is None:
        raise ValueError(
            "Expected 'input_shape' or 'example_inputs' for a module: only graphs know their shapes"
        )
    if any(side < 1 for side in input_shape):
        raise ValueError(f"Expected sides of at least 1 in 'input_shape' (got {tuple(input_shape)})")
    rng = torch.Generator().manual_seed(0)
    shape = (config.batch_size, *input_shape)
    return [torch.randn(shape, generator=rng).to(device, dtype=_dtype_of(module))]


def _module_runner(module: nn.Module, inputs: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], object]:
    del inputs
    return lambda values: module(*values)


def _dtype_of(module: nn.Module) -> torch.dtype:
    found = (tensor.dtype for tensor in module.parameters() if tensor.is_floating_point())
    return next(found, torch.get_default_dtype())


def _synchronised(
    run: Callable[[Sequence[Tensor]], object], device: torch.device
) -> Callable[[Sequence[Tensor]], None]:
    """The runner, which returns when the device is done."""

    def finish(values: Sequence[Tensor]) -> None:
        run(values)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finish


def _times(
    run: Callable[[Sequence[Tensor]], None], inputs: Sequence[Tensor], config: LatencyConfig
) -> list[float]:
    """Milliseconds of each repeat."""
    try:
        for _ in range(max(1, config.warmup)):  # one at least, so that a failure is not taken for a time
            run(inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise CandidateError(f"Cannot run the network on inputs of shape {shapes}: {error}") from error
    times: list[float] = []
    was_enabled = gc.isenabled()
    gc.disable()  # a collection in the middle of a pass is not the network's doing
    try:
        deadline = time.perf_counter() + config.max_seconds
        while len(times) < config.max_repeats:
            started = time.perf_counter()
            run(inputs)
            ended = time.perf_counter()
            times.append(1e3 * (ended - started))
            if len(times) >= config.min_repeats and (
                ended > deadline or (_asks(len(times)) and _half_width(times) <= config.tolerance)
            ):
                break
    finally:
        if was_enabled:
            gc.enable()
    return times


def _asks(count: int) -> bool:
    """Whether to look at the interval now: after each repeat at first, more rarely later, since sorting takes time too."""
    return count < 32 or count % 16 == 0


def _interval(times: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median: two order statistics, whose ranks are binomial (Conover 1999, section 3.2)."""
    rising, n = sorted(times), len(times)
    spread = Z95 * math.sqrt(n) / 2
    low, high = math.ceil(n / 2 - spread), math.ceil(n / 2 + spread)  # ranks, from 1
    return rising[max(1, low) - 1], rising[min(n, high) - 1]


def _half_width(times: Sequence[float]) -> float:
    low, high = _interval(times)
    return (high - low) / 2 / median(times)


def _summary(times: Sequence[float], config: LatencyConfig, dtype: torch.dtype) -> Latency:
    middle, rising = median(times), sorted(times)
    low, high = _interval(times)
    return Latency(
        median_ms=middle,
        low_ms=low,
        high_ms=high,
        p10_ms=rising[int(0.1 * (len(rising) - 1))],
        p90_ms=rising[math.ceil(0.9 * (len(rising) - 1))],
        deviation_ms=fmean(abs(value - middle) for value in times),
        repeats=len(times),
        warmup=max(1, config.warmup),
        is_settled=_half_width(times) <= config.tolerance,
        batch_size=config.batch_size,
        num_threads=config.num_threads,
        device=device_name(config.device),
        dtype=str(dtype).removeprefix("torch."),
    )


def device_name(device: str) -> str:
    """The name that the maker gave to a device, such as the processor's model."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
