"""Small search spaces and evaluators for tests of the search: quick, and without torch operations."""

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.search import ScreenedCandidate, SearchInfo, SearchResult, TrialResult
from nasgraph.spaces import Chooser, SearchSpace

OBJECTIVE = "val_accuracy"
ACTIVATIONS = ("identity", "relu", "gelu", "sigmoid")


class Chain(SearchSpace):
    """Linear layers of chosen width, each followed by a chosen activation. The identity leaves no node, so that
    some architectures share a graph. `num_layers` layers make twice as many choices."""

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...] = (4,),
        num_classes: int = 3,
        num_layers: int = 3,
        widths: int = 4,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        self._num_layers = num_layers
        self._widths = widths

    @property
    def name(self) -> str:
        return "chain"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        node = graph("input", shape=self.input_shape)
        for layer in range(self._num_layers):
            width = choose.integer(f"width{layer}", 1, self._widths)
            activation = choose.categorical(f"activation{layer}", ACTIVATIONS)
            if width > 1:
                node = graph("linear", node, out_features=width)
            if activation != "identity":
                node = graph(activation, node)
        return graph.finish(graph("linear", node, out_features=self.num_classes))


class Conditional(SearchSpace):
    """Later choices exist only in deeper networks."""

    @property
    def name(self) -> str:
        return "conditional"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        node = graph("input", shape=self.input_shape)
        for layer in range(choose.integer("depth", 1, 4)):
            node = graph("linear", node, out_features=choose.categorical(f"width{layer}", (2, 4, 8)))
            node = graph(choose.categorical(f"activation{layer}", ("relu", "gelu")), node)
        return graph.finish(graph("linear", node, out_features=self.num_classes))


def quality(graph: ComputationalGraph) -> float:
    """A made-up accuracy in [0, 1): the share of ReLUs, with ties broken by the graph's name."""
    ops = [node.op for node in graph.nodes]
    noise = int(sha256(graph.fingerprint.encode()).hexdigest()[:8], 16) / 2**32
    return 0.9 * ops.count("relu") / len(ops) + 0.1 * noise


def evaluation(value: float, *, seed: int = 0, **metrics: float) -> Evaluation:
    return Evaluation(OBJECTIVE, {OBJECTIVE: value, **metrics}, (), seed)


def instant(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
    """Measures at once."""
    return evaluation(quality(graph), seed=seed)


def slow(log: Path, seconds: float) -> Callable[..., Evaluation]:
    """An evaluator that takes its time in steps that it reports, and notes in a file what it finished."""

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        for step in range(3):
            time.sleep(seconds / 3)
            keep_going(step, quality(graph) * step)
        with log.open("a") as file:
            file.write(f"{graph.fingerprint}\n")
        return evaluation(quality(graph), seed=seed)

    return evaluate


def screen(graphs: Sequence[ComputationalGraph]) -> list[Mapping[str, float]]:
    """Knows the answer."""
    return [{"screen_score": quality(graph), "num_nodes": float(len(graph))} for graph in graphs]


class Diary:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.infos: list[SearchInfo] = []
        self.screened: list[ScreenedCandidate] = []
        self.kept: list[ScreenedCandidate] = []
        self.trials: list[TrialResult] = []
        self.ends: list[SearchResult] = []

    def on_start(self, info: SearchInfo) -> None:
        self.events.append("start")
        self.infos.append(info)

    def on_screened(self, screened: Sequence[ScreenedCandidate], *, total: int) -> None:
        self.events.append(f"screened {len(screened)} of {total}")
        self.screened += screened

    def on_kept(self, screened: Sequence[ScreenedCandidate]) -> None:
        self.events.append("kept")
        self.kept += [item for item in screened if item.kept]

    def on_trial(self, result: TrialResult) -> None:
        self.events.append(f"trial {result.number}")
        self.trials.append(result)

    def on_end(self, result: SearchResult) -> None:
        self.events.append("end")
        self.ends.append(result)
