"""Measured facts of a card: accuracy, calibration, robustness and latency, each of which can be measured again.

The name of a metric says how it was measured, so that `find_measure(name)` measures it again: `accuracy`, `ece`, `adaptive_ece`, `nll`
or `brier`, and after an `@` how the inputs were changed: `accuracy@noise=0.1`, `nll@blur=1`, `ece@noise=0.5,seed=3`.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast, get_args

import torch
from torch import Tensor, nn

from nasgraph.data import Split
from nasgraph.errors import ZooError
from nasgraph.evaluate.calibration import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)
from nasgraph.evaluate.latency import Latency, LatencyConfig, measure_latency
from nasgraph.evaluate.robustness import Corruption, Kind, measure_logits
from nasgraph.ir import OPS, ComputationalGraph
from nasgraph.modelzoo.card import LatencyFact, Measurement, ModelCard, SplitName
from nasgraph.modules import build

BATCH_SIZE = 256
NOISE_LEVELS = (0.1, 0.2, 0.5)
DEFAULT_LATENCY = LatencyConfig()
_NAME = re.compile(r"(\w{1,40})(?:@(noise|blur)=(\d{1,4}(?:\.\d{1,6})?)(?:,seed=(\d{1,18}))?)?", re.ASCII)

Score = Callable[[Tensor, Tensor], float]


def _accuracy(logits: Tensor, targets: Tensor) -> float:
    return int((logits.argmax(1) == targets).sum()) / len(targets)


@dataclass(frozen=True, slots=True)
class _Scoring:
    """What is made of logits: a number, how it is described, and which way is better."""

    score: Score
    text: str
    higher_is_better: bool = False


_SCORINGS: Mapping[str, _Scoring] = {
    "accuracy": _Scoring(_accuracy, "share of right answers", higher_is_better=True),
    "ece": _Scoring(
        expected_calibration_error,
        "expected calibration error, 15 bins of equal width (Guo et al. 2017)",
    ),
    "adaptive_ece": _Scoring(
        adaptive_calibration_error, "calibration error, 15 bins of equal size (Nguyen and O'Connor 2015)"
    ),
    "nll": _Scoring(negative_log_likelihood, "mean negative log likelihood, in nats"),
    "brier": _Scoring(brier_score, "Brier score, summed over classes"),
}


@dataclass(frozen=True, slots=True)
class Measure:
    """One way to measure a network on a split. Made by `find_measure`.

    Attributes:
        metric: Its name in a card.
        protocol: How it is measured, in words.
        higher_is_better: Whether a larger value is a better one.
        corruption: How the inputs are changed.
        score: The value from logits and targets.
    """

    metric: str
    protocol: str
    higher_is_better: bool
    corruption: Corruption
    score: Score

    def __call__(
        self,
        graph: ComputationalGraph,
        state: Mapping[str, Tensor],
        split: Split,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> float:
        """Measure. Same arguments, same value, bit by bit, on one machine with the same versions.

        Computes in one thread, a global setting of torch that is restored: call from one thread at a time.

        Args:
            graph: The architecture.
            state: Parameters and buffers by name, on the CPU.
            split: Prepared examples, on the CPU.
            batch_size: Examples per forward pass.

        Raises:
            ZooError: If the inputs are to be changed in a way that does not fit them, or a logit is not finite.
        """
        return _scores([self], graph, state, split, batch_size=batch_size)[0]


def find_measure(metric: str) -> Measure:
    """How a metric is measured, from its name in a card.

    Raises:
        ZooError: If it is no name of a metric.
    """
    found = _NAME.fullmatch(metric)
    scoring = _SCORINGS.get(found[1]) if found else None
    if found is None or scoring is None:
        raise ZooError(
            f"Expected a metric such as 'accuracy' or 'accuracy@noise=0.1', beginning with one of "
            f"{', '.join(_SCORINGS)} (got {metric!r:.80})"
        )
    try:
        corruption = Corruption(cast(Kind, found[2] or "none"), float(found[3] or 0), int(found[4] or 0))
    except ValueError as error:
        raise ZooError(f"There is no metric {metric!r:.80}: {error}") from error
    return Measure(
        metric, _protocol(scoring, corruption), scoring.higher_is_better, corruption, scoring.score
    )


def _protocol(scoring: _Scoring, corruption: Corruption) -> str:
    changes: Mapping[Kind, str] = {
        "none": "no augmentation",
        "noise": f"Gaussian noise of standard deviation {corruption.level:g} on the normalised inputs, seed "
        f"{corruption.seed} and number of each example",
        "blur": f"Gaussian blur of standard deviation {corruption.level:g} pixels",
    }
    return f"{scoring.text}; one pass, inference mode, one thread; {changes[corruption.kind]}"


def default_measures(*, seed: int = 0, noise_levels: Sequence[float] = NOISE_LEVELS) -> tuple[Measure, ...]:
    """What a card records: accuracy, calibration and proper scores, and the accuracy under noise.

    Args:
        seed: Seed of the noise. Part of the name, unless 0.
        noise_levels: Standard deviations in units of the normalised input.
    """
    suffix = f",seed={seed}" if seed else ""
    noisy = [f"accuracy@noise={level:.10g}{suffix}" for level in noise_levels]
    return tuple(map(find_measure, ("accuracy", "ece", "nll", "brier", *noisy)))


MEASURES: Mapping[str, Measure] = {measure.metric: measure for measure in default_measures()}
"""The measures of `default_measures()` by name. `find_measure` knows further ones."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured of a network.

    Attributes:
        measurements: By split, in the order of the splits.
        latencies: Measured durations; empty if none were asked for.
    """

    measurements: tuple[Measurement, ...]
    latencies: tuple[LatencyFact, ...]


def measure_facts(
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    splits: Mapping[str, Split],
    *,
    batch_size: int = BATCH_SIZE,
    measures: Sequence[Measure] | None = None,
    latency: LatencyConfig | None = DEFAULT_LATENCY,
) -> Facts:
    """Measure everything that a card says about a network. `with_facts` puts it into one.

    Nodes of a data graph are measured too, but for robustness: those measures are left out for them.

    Args:
        graph: The architecture.
        state: Parameters, running statistics and constants by name, on the CPU.
        splits: Prepared examples by name: "train", "validation", "test".
        batch_size: Examples per forward pass; recorded.
        measures: What to measure; None: `default_measures()`.
        latency: How the latency is measured; None: not at all.

    Raises:
        ZooError: If a split has another name, or a logit is not finite.
    """
    measurements: list[Measurement] = []
    for name, split in splits.items():
        if name not in get_args(SplitName):
            raise ZooError(f"Expected splits called {', '.join(get_args(SplitName))} (got {name!r:.80})")
        wanted = default_measures() if measures is None else tuple(measures)
        if split.nodes is not None:
            wanted = tuple(measure for measure in wanted if measure.corruption.kind == "none")
        values = _scores(wanted, graph, state, split, batch_size=batch_size)
        measurements += [
            Measurement(
                split=cast(SplitName, name),
                metric=measure.metric,
                value=value,
                num_examples=len(split),
                batch_size=batch_size,
                protocol=measure.protocol,
            )
            for measure, value in zip(wanted, values, strict=True)
        ]
    found: tuple[LatencyFact, ...] = ()
    if latency is not None:
        found = (latency_fact(graph, latency, state=state, split=next(iter(splits.values()), None)),)
    return Facts(tuple(measurements), found)


def with_facts(card: ModelCard, facts: Facts) -> ModelCard:
    """A card with further facts: each takes the place of an older one of the same split and metric, or the same machine.

    Weights, and with them their hash, stay as they are: write the entry anew to keep the card.
    """
    known = {(m.split, m.metric) for m in facts.measurements}
    kept = tuple(m for m in card.measurements if (m.split, m.metric) not in known)
    machines = {_machine(latency) for latency in facts.latencies}
    others = tuple(latency for latency in card.latencies if _machine(latency) not in machines)
    return replace(card, measurements=kept + facts.measurements, latencies=others + facts.latencies)


def _machine(fact: LatencyFact) -> tuple[str, str, int, int, str]:
    return fact.device, fact.hardware, fact.threads, fact.batch_size, fact.dtype


def latency_fact(
    graph: ComputationalGraph,
    config: LatencyConfig | None = None,
    *,
    state: Mapping[str, Tensor] | None = None,
    split: Split | None = None,
) -> LatencyFact:
    """Measure the latency of a network as a card records it.

    Args:
        graph: The architecture. Its latency does not depend on the weights.
        config: How to measure.
        state, split: Weights and examples, needed if the graph passes messages between nodes of a data graph: a pass then is one
            over all nodes of it.

    Raises:
        ZooError: If the graph passes messages, and there is no data graph.
    """
    config = config or LatencyConfig()
    if not any(OPS[node.op].reads_edges for node in graph.nodes):
        found = measure_latency(graph, config=config)
        return _fact(found, config, "one forward pass of random inputs")
    if split is None or split.nodes is None or state is None:
        raise ZooError(
            "Expected the data graph that the network passes messages on, to measure its latency (got none)"
        )
    data = split.nodes.graph.to(config.device)
    module = _OnDataGraph(graph, state, data.edges).to(config.device)
    found = measure_latency(module, example_inputs=[data.features], config=config)
    return _fact(found, config, f"one forward pass of all {len(data.features):,} nodes of the data graph")


class _OnDataGraph(nn.Module):
    """A network that passes messages, with the edges it passes them along."""

    def __init__(self, graph: ComputationalGraph, state: Mapping[str, Tensor], edges: Tensor) -> None:
        super().__init__()
        self.network = build(graph, device="meta").to_empty(device="cpu")
        self.network.load_state_dict(dict(state))
        self.register_buffer("edges", edges)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.network(features, edges=self.edges)
        return result


def _fact(latency: Latency, config: LatencyConfig, what: str) -> LatencyFact:
    settled = "" if latency.is_settled else ", not settled"
    return LatencyFact(
        device=torch.device(config.device).type,
        hardware=latency.device,
        threads=latency.num_threads,
        batch_size=latency.batch_size,
        dtype=latency.dtype,
        median_s=latency.median_ms / 1e3,
        low_s=latency.low_ms / 1e3,
        high_s=latency.high_ms / 1e3,
        protocol=f"{what}, inference mode; median of {latency.repeats} after {latency.warmup}, 95 % interval by order "
        f"statistics{settled}; torch {torch.__version__}",
    )


def _scores(
    measures: Sequence[Measure],
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    split: Split,
    *,
    batch_size: int,
) -> list[float]:
    """The values of some measures; examples pass through the network once for each way in which they are changed."""
    logits: dict[Corruption, Tensor] = {}
    values = []
    for measure in measures:
        how = measure.corruption
        try:
            if how not in logits:
                with _one_thread():
                    logits[how] = measure_logits(graph, state, split, batch_size=batch_size, corruption=how)
            value = measure.score(logits[how], split.targets)
        except ValueError as error:
            raise ZooError(f"Cannot measure '{measure.metric}': {error}") from error
        if not math.isfinite(value):
            raise ZooError(f"The '{measure.metric}' of the network is {value}: it is no fact for a card")
        values.append(value)
    return values


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums may be taken in another order by another number of threads, and then differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = [
    "MEASURES",
    "Facts",
    "Measure",
    "default_measures",
    "find_measure",
    "latency_fact",
    "measure_facts",
    "with_facts",
]
