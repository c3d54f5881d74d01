"""Measuring how long a forward pass takes. Clocks are noisy: claims are about order and bookkeeping, not about numbers."""

import gc
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nasgraph.errors import CandidateError, ConfigError, UnsupportedOpError
from nasgraph.evaluate import (
    Evaluation,
    KeepGoing,
    LatencyConfig,
    LatencyEvaluator,
    measure_latency,
    never_stop,
)
from nasgraph.evaluate.latency import _interval
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import build
from nasgraph.seeding import generator

QUICK = LatencyConfig(warmup=1, min_repeats=5, max_repeats=5)


def perceptron(width: int) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("relu", g("linear", g("input", shape=(64,)), out_features=width))
    return g.finish(g("linear", x, out_features=10))


def test_a_network_with_a_thousand_times_the_work_takes_longer() -> None:
    small, large = (measure_latency(perceptron(width), config=QUICK) for width in (16, 16_000))
    assert small.median_ms < large.median_ms


def test_a_graph_and_the_module_built_from_it_are_both_measured() -> None:
    graph = perceptron(32)
    of_graph = measure_latency(graph, config=QUICK)
    of_module = measure_latency(build(graph), input_shape=(64,), config=QUICK)
    assert of_graph.median_ms > 0
    assert of_module.median_ms > 0
    assert of_graph.dtype == of_module.dtype == "float32"


def test_the_spread_encloses_the_median() -> None:
    latency = measure_latency(perceptron(32), config=replace(QUICK, min_repeats=40, max_repeats=40))
    assert latency.low_ms <= latency.median_ms <= latency.high_ms
    assert latency.p10_ms <= latency.median_ms <= latency.p90_ms
    assert latency.deviation_ms >= 0


def test_the_circumstances_are_told() -> None:
    config = LatencyConfig(warmup=2, min_repeats=3, max_repeats=3, batch_size=4, num_threads=1)
    latency = measure_latency(perceptron(8), config=config)
    assert (latency.repeats, latency.warmup, latency.batch_size, latency.num_threads) == (3, 2, 4, 1)
    assert latency.device


def test_equal_fewest_and_most_repeats_fix_their_number() -> None:
    assert measure_latency(perceptron(8), config=QUICK).repeats == 5


def test_repeats_end_when_the_interval_is_narrow_enough() -> None:
    config = LatencyConfig(min_repeats=10, max_repeats=5000, tolerance=1e6, max_seconds=20.0)
    latency = measure_latency(perceptron(8), config=config)
    assert latency.repeats == 10
    assert latency.is_settled


def test_repeats_end_when_the_time_is_spent() -> None:
    config = LatencyConfig(min_repeats=2, max_repeats=10**9, tolerance=1e-12, max_seconds=0.05)
    latency = measure_latency(perceptron(8), config=config)
    assert not latency.is_settled
    assert latency.repeats >= 2


class Watched(nn.Module):
    """Notes in which mode and with how many threads it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4))
        self.inner[1].eval()
        self.seen: list[tuple[bool, bool, int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(
            (self.training, torch.is_inference_mode_enabled(), torch.get_num_threads(), gc.isenabled())
        )
        out: Tensor = self.inner(x)
        return out


def test_modules_run_in_evaluation_and_inference_mode_and_get_their_modes_back() -> None:
    module, before = Watched(), torch.get_num_threads()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    measure_latency(module, input_shape=(4,), config=replace(QUICK, num_threads=1))
    assert {seen[:3] for seen in module.seen} == {(False, True, 1)}
    assert not module.seen[-1][3]
    assert module.training
    assert module.inner.training
    assert not module.inner[1].training
    assert torch.get_num_threads() == before
    assert gc.isenabled()
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_threads_and_modes_come_back_after_a_failure() -> None:
    module, before = Watched(), torch.get_num_threads()
    with pytest.raises(CandidateError, match=r"inputs of shape \(1, 5\)"):
        measure_latency(module, input_shape=(5,), config=replace(QUICK, num_threads=before + 1))
    assert torch.get_num_threads() == before
    assert module.training


def test_example_inputs_decide_shape_type_and_batch_size() -> None:
    inputs = [torch.zeros(3, 7, dtype=torch.int64)]
    latency = measure_latency(nn.Embedding(5, 2), example_inputs=inputs, config=QUICK)
    assert latency.batch_size == 3


def test_modules_of_another_type_get_inputs_of_their_type() -> None:
    latency = measure_latency(nn.Linear(4, 4).double(), input_shape=(4,), config=QUICK)
    assert latency.dtype == "float64"


def test_graphs_with_integer_inputs_and_constants_run() -> None:
    g = GraphBuilder()
    x = g("embedding", g("input", shape=(6,), dtype="int"), num_embeddings=9, dim=4)
    graph = g.finish(g("add", x, g("constant", shape=(6, 4))))
    assert measure_latency(graph, config=QUICK).median_ms > 0


def test_opaque_graphs_are_refused_by_name() -> None:
    g = GraphBuilder()
    graph = g.finish(g("opaque", g("input", shape=(4,)), name="fft", shape=(4,)))
    with pytest.raises(UnsupportedOpError, match="fft"):
        measure_latency(graph, config=QUICK)


def test_what_does_not_fit_is_refused() -> None:
    graph = perceptron(8)
    with pytest.raises(ValueError, match="that of the graph"):
        measure_latency(graph, input_shape=(3,), config=QUICK)
    with pytest.raises(ValueError, match="behind the batch axis"):
        measure_latency(graph, example_inputs=[torch.zeros(2, 3)], config=QUICK)
    with pytest.raises(ValueError, match="only graphs know their shapes"):
        measure_latency(nn.Linear(2, 2), config=QUICK)
    with pytest.raises(ValueError, match="sides of at least 1"):
        measure_latency(nn.Linear(2, 2), input_shape=(0,), config=QUICK)
    with pytest.raises(ValueError, match="Move it"):
        measure_latency(nn.Linear(2, 2, device="meta"), input_shape=(2,), config=QUICK)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("num_threads", 0),
        ("min_repeats", 0),
        ("max_repeats", 3),
        ("warmup", -1),
        ("tolerance", 0.0),
        ("max_seconds", 0.0),
        ("device", "meta"),
    ],
)
def test_settings_out_of_bounds_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError):
        replace(LatencyConfig(), **{field: value})  # type: ignore[arg-type]  # the point of the test


def test_the_interval_holds_the_true_median_nineteen_times_of_twenty() -> None:
    rng, inside = generator(0, "interval"), 0
    for _ in range(2000):
        low, high = _interval(rng.exponential(size=40).tolist())
        inside += low <= 0.6931471805599453 <= high
    assert 0.93 <= inside / 2000 <= 0.98


def test_alone_the_evaluator_prefers_the_faster_network() -> None:
    evaluate = LatencyEvaluator(QUICK)
    small, large = (evaluate(perceptron(width), seed=0, keep_going=never_stop) for width in (16, 16_000))
    assert small.objective == "minus_latency_ms"
    assert small.value == -small.metrics["latency_ms"]
    assert small.value > large.value


def constant_accuracy(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
    return Evaluation("val_accuracy", {"val_accuracy": 0.5}, (0.4, 0.5), seed)


def test_with_another_evaluator_latency_is_a_further_metric() -> None:
    evaluate = LatencyEvaluator(QUICK, constant_accuracy, max_latency_ms=1e6)
    found = evaluate(perceptron(8), seed=3, keep_going=never_stop)
    assert (found.objective, found.value, found.curve, found.seed) == ("val_accuracy", 0.5, (0.4, 0.5), 3)
    assert found.metrics["latency_ms"] > 0


def test_networks_above_the_limit_never_reach_the_other_evaluator() -> None:
    def refuse(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        raise AssertionError

    evaluate = LatencyEvaluator(QUICK, refuse, max_latency_ms=1e-9)
    with pytest.raises(CandidateError, match="above the limit"):
        evaluate(perceptron(8), seed=0, keep_going=never_stop)
    with pytest.raises(ConfigError, match="max_latency_ms"):
        LatencyEvaluator(QUICK, max_latency_ms=0.0)
