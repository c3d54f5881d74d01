"""Networks that tune their own dropout, weight decay and input noise while they train.

Follows MacKay et al. 2019, "Self-tuning networks: bilevel optimization of hyperparameters using structured best-response functions". Every linear map and
convolution gets a second set of weights, scaled unit by unit by a linear function of the hyper-parameters (equation 13):
`y = W x + b + (V l) * (W' x) + U l`. With the bias `b'` of the paper the last term is `(V' l) * b'`, which is a linear map of `l` as well. So the response of
all weights costs twice the layer. Each example of a batch has a perturbation of its own, whose size is learnt too, against an entropy term (equation 12).

The conditional network is an ordinary graph with more inputs, so it can be drawn, saved and run like any other.

Letters: B = examples, D = hyper-parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder, Node, make_node
from nasgraph.modules import Program, RunContext, initial_parameters
from nasgraph.seeding import derive_seed

MAX_DROPOUT = 0.95
MAPS = ("linear", "conv2d", "conv1d", "conv3d")


@dataclass(frozen=True, kw_only=True)
class SelfTuningConfig:
    """What is tuned, and how.

    Attributes:
        tune_weight_decay: Whether a decay of all weights of linear maps and convolutions is tuned beside the dropout rates.
        tune_input_noise: Whether the standard deviation of normal noise on the inputs is tuned.
        steps: Training steps of the weights.
        batch_size: Examples per step.
        learning_rate: Of Adam over the weights.
        train_steps: Training steps between two steps of the hyper-parameters.
        value_rate: Learning rate of Adam over the unconstrained hyper-parameters and the sizes of their perturbations.
        warm_up: Training steps before the first step of the hyper-parameters.
        perturbation: First standard deviation of the perturbations, in unconstrained units.
        entropy: Weight of the entropy of the perturbations.

    Raises:
        ConfigError: If a value is out of its range.
    """

    tune_weight_decay: bool = False
    tune_input_noise: bool = False
    steps: int = 3000
    batch_size: int = 64
    learning_rate: float = 1e-3
    train_steps: int = 2
    value_rate: float = 1e-2
    warm_up: int = 200
    perturbation: float = 0.5
    entropy: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "train_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")
        for name in ("learning_rate", "value_rate", "perturbation"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.warm_up < 0 or self.entropy < 0:
            raise ConfigError(
                f"Expected 'warm_up' and 'entropy' of at least 0 (got {self.warm_up} and {self.entropy})"
            )


@dataclass(frozen=True)
class ConditionalGraph:
    """A network whose linear maps and convolutions respond to hyper-parameters.

    Attributes:
        graph: Its inputs are those of the plain network, then the hyper-parameters `[D]`, then one mask per dropout. In place of a dropout it
            multiplies by the mask.
        plain: The network that it was made from.
        dropouts: Nodes of the plain graph that a mask stands for, in order.
        counterpart: For each node of the plain graph the node of `graph` that gives its value.
        responses: For each linear map or convolution of the plain graph the nodes that hold `W'`, `V` and `U`.
    """

    graph: ComputationalGraph
    plain: ComputationalGraph
    dropouts: tuple[int, ...]
    counterpart: tuple[int, ...]
    responses: Mapping[int, tuple[int, int, int]]

    def plain_parameters(self, parameters: Mapping[str, Tensor], condition_D: Tensor) -> dict[str, Tensor]:
        """Ordinary parameters of the plain network at one setting: `W + diag(V l) W'` and `b + U l`. Differentiable."""
        found = {}
        for name in self.plain.parameters:
            node, own = name[1:].split(".")
            tensor = parameters[f"n{self._base(int(node))}.{own}"]
            if int(node) in self.responses:
                second, scale, shift = self.responses[int(node)]
                if own == "weight":
                    gain = parameters[f"n{scale}.weight"] @ condition_D
                    tensor = (
                        tensor + gain.reshape(-1, *[1] * (tensor.ndim - 1)) * parameters[f"n{second}.weight"]
                    )
                else:
                    tensor = tensor + parameters[f"n{shift}.weight"] @ condition_D
            found[name] = tensor
        return found

    def _base(self, node: int) -> int:
        """The node of `graph` that holds the plain network's own parameters of a node."""
        return self.responses[node][0] - 1 if node in self.responses else self.counterpart[node]


def conditional_graph(plain: ComputationalGraph, dim: int) -> ConditionalGraph:
    """Make every linear map and convolution of a network respond to `dim` hyper-parameters, and every dropout a mask.

    Maps without a bias get no shift. Other operators with parameters, such as norms, do not respond.

    Raises:
        NasGraphError: If the graph has batch norms, constants or opaque nodes, or nothing that could respond.
    """
    for index, node in enumerate(plain.nodes):
        if node.op in ("batch_norm", "constant", "opaque", "drop_path"):
            raise NasGraphError(
                f"Cannot tune a network with '{node.op}' (node {index}) while it trains: use one without"
                f"{'; layer and group norm work' if node.op == 'batch_norm' else ''}"
            )
    if not any(node.op in MAPS for node in plain.nodes):
        raise NasGraphError("Expected a network with a linear map or a convolution: nothing else can respond")
    g = GraphBuilder()
    place: dict[int, int] = {}
    for index in plain.inputs:
        node = plain.nodes[index]
        place[index] = g("input", **dict(node.attrs))
    condition = g("input", shape=(dim,))
    dropouts = tuple(index for index, node in enumerate(plain.nodes) if node.op == "dropout")
    masks = {index: g("input", shape=plain.shapes[index]) for index in dropouts}
    responses = {}
    for index, node in enumerate(plain.nodes):
        if node.op == "input":
            continue
        sources = [place[source] for source in node.inputs]
        if index in masks:
            place[index] = g("mul", sources[0], masks[index])
        elif node.op in MAPS:
            place[index], responses[index] = _responding(g, node, sources[0], condition)
        else:
            place[index] = g(node.op, *sources, **dict(node.attrs))
    graph = g.finish(*[place[index] for index in plain.outputs])
    if len(graph) != len(g):
        raise NasGraphError("Expected every node of the network to reach an output")
    counterpart = tuple(place[index] for index in range(len(plain)))
    return ConditionalGraph(graph, plain, dropouts, counterpart, responses)


def _responding(g: GraphBuilder, node: Node, x: int, condition: int) -> tuple[int, tuple[int, int, int]]:
    """One map with its response; the node of its value, and the nodes of `W'`, `V` and `U` (-1 without a bias)."""
    attrs = dict(node.attrs)
    units = attrs["out_features"] if node.op == "linear" else attrs["out_channels"]
    base = g(node.op, x, **attrs)
    second = g(node.op, x, **{**attrs, "bias": False})
    rank = len(g.shape(base))
    form = (1,) * (rank - 1) + (units,) if node.op == "linear" else (units,) + (1,) * (rank - 1)

    def of_condition() -> tuple[int, int]:
        linear = g("linear", condition, out_features=units, bias=False)
        return linear, linear if rank == 1 else g("reshape", linear, shape=form)

    scale, scale_value = of_condition()
    value = g("add", base, g("mul", second, scale_value))
    shift = -1
    if attrs["bias"]:
        shift, shift_value = of_condition()
        value = g("add", value, shift_value)
    return value, (second, scale, shift)


@dataclass(frozen=True, eq=False)
class SelfTuned:
    """A network that was trained while its hyper-parameters were tuned.

    Attributes:
        graph: The plain network with the found dropout rates.
        parameters: Its parameters at the found settings.
        values: The found settings: "dropout n<node>", "weight_decay", "input_noise".
        trace: The settings every hundred steps, with the step.
    """

    graph: ComputationalGraph
    parameters: dict[str, Tensor]
    values: dict[str, float]
    trace: tuple[tuple[int, dict[str, float]], ...]


class _Settings:
    """Unconstrained hyper-parameters with their perturbations.

    Dropout rates are `MAX_DROPOUT * sigmoid`, others `exp`. The response reads the distance from the first settings, so that it is zero there.
    """

    def __init__(
        self, plain: ComputationalGraph, dropouts: tuple[int, ...], config: SelfTuningConfig
    ) -> None:
        self.names = [f"dropout n{index}" for index in dropouts]
        rates = [
            min(max(float(str(plain.nodes[index].attr("p"))), 0.02), 0.9) / MAX_DROPOUT for index in dropouts
        ]
        first = [float(torch.logit(torch.tensor(rate))) for rate in rates]
        low, high = [-5.0] * len(first), [3.5] * len(first)
        for is_tuned, name, start, least, most in (
            (config.tune_weight_decay, "weight_decay", -9.0, -14.0, -2.0),
            (config.tune_input_noise, "input_noise", -3.0, -7.0, 1.0),
        ):
            if is_tuned:
                self.names.append(name)
                first, low, high = [*first, start], [*low, least], [*high, most]
        if not first:
            raise NasGraphError(
                "Expected a network with dropout, or 'tune_weight_decay' or 'tune_input_noise': there is nothing to tune"
            )
        self.first_D, self._low_D, self._high_D = torch.tensor(first), torch.tensor(low), torch.tensor(high)
        self.values_D = nn.Parameter(self.first_D.clone())
        self.sizes_D = nn.Parameter(torch.full((len(first),), config.perturbation).expm1().log())
        self.num_dropouts = len(dropouts)

    def drawn(self, count: int, rng: torch.Generator) -> Tensor:
        """Perturbed settings `[B, D]`, one row per example."""
        noise_BD = torch.randn(count, len(self.names), generator=rng)
        drawn_BD = self.values_D + F.softplus(self.sizes_D) * noise_BD
        return torch.minimum(torch.maximum(drawn_BD, self._low_D), self._high_D)

    def clamp(self) -> None:
        """Keep settings and perturbations within their bounds, in place."""
        with torch.no_grad():
            self.values_D.copy_(torch.minimum(torch.maximum(self.values_D, self._low_D), self._high_D))
            self.sizes_D.clamp_(-3.0, 1.0)

    def constrained(self, values: Tensor) -> dict[str, Tensor]:
        """Rates, decays and noises by name, one number per row."""
        return {
            name: MAX_DROPOUT * values[..., place].sigmoid()
            if place < self.num_dropouts
            else values[..., place].exp()
            for place, name in enumerate(self.names)
        }

    def now(self) -> dict[str, float]:
        """The present settings."""
        return {name: float(value) for name, value in self.constrained(self.values_D.detach()).items()}


class _Training:
    """The two losses of a self-tuning network."""

    def __init__(
        self, plain: ComputationalGraph, config: SelfTuningConfig, *, seed: int, rng: torch.Generator
    ) -> None:
        dropouts = tuple(index for index, node in enumerate(plain.nodes) if node.op == "dropout")
        self.settings = _Settings(plain, dropouts, config)
        self.conditional = conditional_graph(plain, len(self.settings.names))
        self._program = Program(self.conditional.graph)
        self._rng = rng
        parameters = initial_parameters(self.conditional.graph, seed=seed)
        for _, scale, shift in self.conditional.responses.values():
            parameters[f"n{scale}.weight"].mul_(0.1)
            if shift >= 0:
                parameters[f"n{shift}.weight"].zero_()
        self.parameters = {name: nn.Parameter(tensor) for name, tensor in parameters.items()}

    def _logits(self, inputs: Tensor, drawn_BD: Tensor, masks: list[Tensor]) -> Tensor:
        condition_BD = drawn_BD - self.settings.first_D
        return self._program(
            self.parameters, [inputs, condition_BD, *masks], RunContext(batch_size=len(inputs))
        )[0]

    def train_loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of a batch under perturbed dropout, noise and decay, one perturbation per example."""
        drawn_BD = self.settings.drawn(len(inputs), self._rng).detach()
        values = self.settings.constrained(drawn_BD)
        masks = []
        for index in self.conditional.dropouts:
            shape = (len(inputs), *self.conditional.plain.shapes[index])
            rate = values[f"dropout n{index}"].reshape(-1, *[1] * (len(shape) - 1))
            masks.append((torch.rand(shape, generator=self._rng) >= rate) / (1 - rate))
        if "input_noise" in values:
            size = values["input_noise"].reshape(-1, *[1] * (inputs.ndim - 1))
            inputs = inputs + size * torch.randn(inputs.shape, generator=self._rng)
        loss = F.cross_entropy(self._logits(inputs, drawn_BD, masks), targets)
        if "weight_decay" in values:
            loss = loss + (values["weight_decay"] * self._squares(drawn_BD)).mean()
        return loss

    def _squares(self, drawn_BD: Tensor) -> Tensor:
        """Half the sum of squares `[B]` of the weights that each example's settings give, without making these weights."""
        total = torch.zeros(len(drawn_BD))
        for node, (second, scale, _) in self.conditional.responses.items():
            base = self.parameters[f"n{self.conditional._base(node)}.weight"].flatten(1)
            other = self.parameters[f"n{second}.weight"].flatten(1)
            gain = (drawn_BD - self.settings.first_D) @ self.parameters[f"n{scale}.weight"].t()
            rows = gain.square() @ other.square().sum(1) + 2 * gain @ (base * other).sum(1)
            total = total + (rows + base.square().sum()) / 2
        return total

    def validation_loss(self, inputs: Tensor, targets: Tensor, entropy: float) -> Tensor:
        """Loss of a batch without dropout and noise, less the weighted entropy of the perturbations."""
        drawn_BD = self.settings.drawn(len(inputs), self._rng)
        masks = [torch.ones(1, *self.conditional.plain.shapes[index]) for index in self.conditional.dropouts]
        loss = F.cross_entropy(self._logits(inputs, drawn_BD, masks), targets)
        return loss - entropy * F.softplus(self.settings.sizes_D).log().sum()

    def plain(self) -> tuple[ComputationalGraph, dict[str, Tensor]]:
        """The plain network at the present settings."""
        values = self.settings.now()
        nodes = tuple(
            make_node(node.op, node.inputs, p=values[f"dropout n{index}"]) if node.op == "dropout" else node
            for index, node in enumerate(self.conditional.plain.nodes)
        )
        condition_D = (self.settings.values_D - self.settings.first_D).detach()
        with torch.no_grad():
            parameters = self.conditional.plain_parameters(self.parameters, condition_D)
        return ComputationalGraph(nodes, self.conditional.plain.outputs), {
            name: tensor.detach().clone() for name, tensor in parameters.items()
        }


def self_tune(
    graph: ComputationalGraph,
    train: Split,
    validation: Split,
    config: SelfTuningConfig | None = None,
    *,
    seed: int = 0,
    on_check: Callable[[int, ComputationalGraph, dict[str, Tensor]], None] | None = None,
) -> SelfTuned:
    """Train a network once and tune its dropout rates, and more, meanwhile.

    Args:
        graph: One input, logits as output. Its dropout rates are where the search starts; each is tuned by itself.
        train: Examples for the weights.
        validation: Other examples, for the hyper-parameters. Many hyper-parameters over-fit them: keep a test set.
        config: What is tuned, and how.
        seed: Seed of everything random.
        on_check: Every hundred steps, told the step and the plain network at the present settings.

    Raises:
        NasGraphError: If there is nothing to tune, the graph cannot respond, examples do not fit it, or the loss is not finite.
    """
    config = config or SelfTuningConfig()
    _check(graph, train, validation)
    rng = torch.Generator().manual_seed(derive_seed(seed, "draws"))
    training = _Training(graph, config, seed=derive_seed(seed, "initial"), rng=rng)
    settings = training.settings
    inner = torch.optim.Adam(training.parameters.values(), lr=config.learning_rate)
    outer = torch.optim.Adam([settings.values_D, settings.sizes_D], lr=config.value_rate)
    trace = []
    for step in range(1, config.steps + 1):
        index = torch.randint(len(train), (config.batch_size,), generator=rng)
        loss = training.train_loss(train.inputs[index], train.targets[index])
        if not torch.isfinite(loss):
            raise NasGraphError(f"The training loss is not finite at step {step}: lower 'learning_rate'")
        gradients = torch.autograd.grad(loss, list(training.parameters.values()))
        for parameter, gradient in zip(training.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        inner.step()
        if step > config.warm_up and step % config.train_steps == 0:
            index = torch.randint(len(validation), (config.batch_size,), generator=rng)
            loss = training.validation_loss(
                validation.inputs[index], validation.targets[index], config.entropy
            )
            settings.values_D.grad, settings.sizes_D.grad = torch.autograd.grad(
                loss, [settings.values_D, settings.sizes_D]
            )
            outer.step()
            settings.clamp()
        if step % 100 == 0:
            trace.append((step, settings.now()))
            if on_check is not None:
                on_check(step, *training.plain())
    plain, parameters = training.plain()
    return SelfTuned(plain, parameters, settings.now(), tuple(trace))


def _check(graph: ComputationalGraph, train: Split, validation: Split) -> None:
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.shapes[graph.outputs[0]]) != 1:
        raise NasGraphError("Expected a graph with one input and one vector of logits as its output")
    wanted = graph.shapes[graph.inputs[0]]
    for name, split in (("training", train), ("validation", validation)):
        if not len(split) or tuple(split.inputs.shape[1:]) != wanted:
            raise NasGraphError(
                f"Expected {name} examples of shape {wanted} (got {len(split)} of {tuple(split.inputs.shape[1:])})"
            )
        if int(split.targets.max()) >= prod(graph.shapes[graph.outputs[0]]):
            raise NasGraphError(f"A label of the {name} examples is beyond the outputs of the network")
