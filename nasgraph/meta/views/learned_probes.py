"""Learned probes: inputs that are trained until the answers of networks tell what is asked about them.

Kahana, Horwitz, Shuval and Hoshen, "Deep Linear Probe Generators for Weight Space Learning" (ProbeGen), 2024, section 4: codes, one per
probe, pass through one shared stack of linear layers without activations between them, and a tanh; every network answers every probe; an MLP
reads the answers. All is trained together through the frozen networks. Where it departs: the answers are standardised column by column
with constants from the first pass over the training networks, after `asinh`, for networks that diverged answer with numbers of any size.

Shape letters: B = networks, Q = probes, C = columns of answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasgraph.errors import CheckpointError, ConfigError, UnsupportedOpError
from nasgraph.files import Json
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.views.stack import check_stack, run_stack
from nasgraph.modules import State
from nasgraph.seeding import derive_seed

SCHEMA = "nasgraph/learned-probes/1"
MAX_DEVIATION = 10.0
"""Standard deviations from the mean beyond which an answer counts as that far, so that a network that diverged is given no absurd number."""
Group = tuple[ComputationalGraph, State]
"""Networks of one architecture: the graph and the stack of their states."""


@dataclass(frozen=True, kw_only=True)
class LearnedProbesConfig:
    """Settings of `LearnedProbes` and of its training.

    Args:
        num_probes: Inputs that are learned.
        code_dim: Size of the code of a probe.
        generator_dim: Size of the layers of the generator.
        generator_depth: Linear layers of the generator, the last one included.
        hidden_dim: Size of the layers of the MLP that reads the answers.
        depth: Its hidden layers.
        epochs: Passes over the training networks.
        batch_size: Networks of one step.
        learning_rate: Largest rate of Adam; it falls to zero along a half cosine.

    Raises:
        ConfigError: If a number is out of range.
    """

    num_probes: int = 32
    code_dim: int = 32
    generator_dim: int = 64
    generator_depth: int = 3
    hidden_dim: int = 128
    depth: int = 3
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {value})")


class LearnedProbes(nn.Module):
    """Predicts numbers from the answers of networks to learned inputs.

    Serves networks of all architectures with the given input and output shape. Invariant to every change of a network that keeps its
    function, up to rounding.

    Args:
        input_shape: Shape of the networks' only input, per example.
        output_size: Numbers that a network gives for one input.
        num_targets: Numbers to predict.
        config: Settings.
        seed: Decides the initial weights.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        output_size: int,
        num_targets: int = 1,
        config: LearnedProbesConfig = LearnedProbesConfig(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.input_shape, self.output_size, self.config = tuple(input_shape), output_size, config
        self.num_targets = num_targets
        widths = [config.generator_dim] * (config.generator_depth - 1)
        self.codes = nn.Parameter(torch.empty(config.num_probes, config.code_dim))
        self.generator = nn.Sequential(*_linears([config.code_dim, *widths, prod(self.input_shape)]))
        columns = config.num_probes * output_size
        layers = _linears([columns, *[config.hidden_dim] * config.depth, num_targets])
        self.head = nn.Sequential(layers[0], *(each for layer in layers[1:] for each in (nn.ReLU(), layer)))
        self.column_mean: Tensor
        self.column_std: Tensor
        self.target_mean: Tensor
        self.target_std: Tensor
        self.register_buffer("column_mean", torch.zeros(columns))
        self.register_buffer("column_std", torch.ones(columns))
        self.register_buffer("target_mean", torch.zeros(num_targets))
        self.register_buffer("target_std", torch.ones(num_targets))
        self._draw(seed)

    def _draw(self, seed: int) -> None:
        rng = torch.Generator().manual_seed(derive_seed(seed, "learned probes"))
        with torch.no_grad():
            self.codes.normal_(generator=rng)
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    bound = layer.in_features**-0.5
                    layer.weight.uniform_(-(3**0.5) * bound, 3**0.5 * bound, generator=rng)
                    layer.bias.zero_()

    def probes(self) -> Float[Tensor, "probes *shape"]:
        """The inputs that are asked, in [-1, 1]."""
        flat: Tensor = torch.tanh(self.generator(self.codes))
        return flat.reshape(-1, *self.input_shape)

    def answers(self, graph: ComputationalGraph, stacked: State) -> Float[Tensor, "networks columns"]:
        """What the networks of a stack answer, before standardisation. Answers that are no numbers count as zero, endless ones as the
        largest number there is."""
        (output_BQK,) = run_stack(graph, stacked, [self.probes()])
        return torch.asinh(output_BQK.flatten(1).nan_to_num())

    def forward(self, graph: ComputationalGraph, stacked: State) -> Float[Tensor, "networks targets"]:
        """The numbers of every network of a stack, in units of the targets."""
        columns_BC = (self.answers(graph, stacked) - self.column_mean) / self.column_std
        columns_BC = columns_BC.clamp(-MAX_DEVIATION, MAX_DEVIATION)
        scaled: Tensor = self.head(columns_BC)
        return scaled * self.target_std + self.target_mean

    def check(self, graph: ComputationalGraph, stacked: State) -> int:
        """Check that a stack can be asked. Returns the number of networks.

        Raises:
            StateError: If the stack does not fit its graph.
            UnsupportedOpError: If the networks read or give something else than this was made for.
        """
        count = check_stack(graph, stacked)
        given = [graph.shapes[index] for index in graph.inputs]
        sizes = [prod(graph.shapes[index]) for index in graph.outputs]
        if (
            given != [self.input_shape]
            or sizes != [self.output_size]
            or graph.dtypes[graph.inputs[0]] == "int"
        ):
            raise UnsupportedOpError(
                f"These probes ask networks with one real input {self.input_shape} and {self.output_size} outputs "
                f"(got inputs {given} and outputs {sizes}). Train others for these"
            )
        if graph.reads_edges:
            raise UnsupportedOpError(
                "Learned probes stand alone, and this network passes messages between examples: use 'probe_responses' with edges"
            )
        return count

    @torch.no_grad()
    def predict(self, groups: Sequence[Group]) -> list[Float[Tensor, "networks targets"]]:
        """The numbers of every network, one tensor per group."""
        for graph, stacked in groups:
            self.check(graph, stacked)
        return [self(graph, stacked) for graph, stacked in groups]


def fit_learned_probes(
    groups: Sequence[Group],
    targets: Sequence[Float[Tensor, "networks targets"]],
    *,
    config: LearnedProbesConfig = LearnedProbesConfig(),
    seed: int = 0,
) -> LearnedProbes:
    """Train probes and reader on networks of one or several architectures with the same input and output.

    Deterministic on one machine. The loss is the mean squared error of standardised targets.

    Args:
        groups: The networks, stack by stack.
        targets: For each group, one row per network.
        config: Settings.
        seed: Decides the initial weights and the order of steps.

    Raises:
        StateError, UnsupportedOpError: If a group does not fit its graph or the first group.
        ValueError: If there is no group, or the targets do not fit the groups.
    """
    if not groups or len(groups) != len(targets):
        raise ValueError(
            f"Expected targets for each of at least one group (got {len(targets)} for {len(groups)})"
        )
    graph = groups[0][0]
    first = targets[0]
    model = LearnedProbes(
        input_shape=graph.shapes[graph.inputs[0]],
        output_size=prod(graph.shapes[graph.outputs[0]]),
        num_targets=first.shape[1] if first.dim() == 2 else 1,
        config=config,
        seed=seed,
    )
    for (each, stacked), wanted in zip(groups, targets, strict=True):
        count = model.check(each, stacked)
        if wanted.shape != (count, model.num_targets) or not torch.isfinite(wanted).all():
            raise ValueError(
                f"Expected finite targets of shape {(count, model.num_targets)} for a group (got {tuple(wanted.shape)})"
            )
    _standardise(model, groups, targets)
    _train(model, groups, targets, seed=seed)
    return model.eval()


def _standardise(model: LearnedProbes, groups: Sequence[Group], targets: Sequence[Tensor]) -> None:
    with torch.no_grad():
        columns_NC = torch.cat([model.answers(*group) for group in groups])
        targets_NT = torch.cat(list(targets))
        model.column_mean.copy_(columns_NC.mean(0))
        model.column_std.copy_(columns_NC.std(0, correction=0).clamp(min=1e-3))
        model.target_mean.copy_(targets_NT.mean(0))
        model.target_std.copy_(targets_NT.std(0, correction=0).clamp(min=1e-8))


def _train(model: LearnedProbes, groups: Sequence[Group], targets: Sequence[Tensor], *, seed: int) -> None:
    config = model.config
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    rng = torch.Generator().manual_seed(derive_seed(seed, "order of networks"))
    per_epoch = sum(-(-len(wanted) // config.batch_size) for wanted in targets)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * per_epoch)
    for _ in range(config.epochs):
        for number, rows in _batches([len(wanted) for wanted in targets], config.batch_size, rng):
            graph, stacked = groups[number]
            part = {name: tensor[rows] for name, tensor in stacked.items()}
            error = (model(graph, part) - targets[number][rows]) / model.target_std
            optimizer.zero_grad(set_to_none=True)
            error.square().mean().backward()
            optimizer.step()
            schedule.step()


def _batches(sizes: Sequence[int], batch_size: int, rng: torch.Generator) -> list[tuple[int, Tensor]]:
    """Every network of every group once, in batches of one group each, in random order."""
    found: list[tuple[int, Tensor]] = []
    for number, size in enumerate(sizes):
        found.extend((number, rows) for rows in torch.split(torch.randperm(size, generator=rng), batch_size))
    return [found[place] for place in torch.randperm(len(found), generator=rng).tolist()]


def save_learned_probes(
    folder: Path, model: LearnedProbes, *, recipe: Mapping[str, str | int | float]
) -> None:
    """Write a trained model: `weights.safetensors` beside `config.json`."""
    facts: dict[str, Json] = {
        "config": asdict(model.config),
        "input_shape": list(model.input_shape),
        "output_size": model.output_size,
        "num_targets": model.num_targets,
    }
    write_network(folder, model.state_dict(), facts, schema=SCHEMA, recipe=recipe)


def load_learned_probes(folder: Path) -> LearnedProbes:
    """Read what `save_learned_probes` wrote.

    Raises:
        CheckpointError: If it is missing, damaged or foreign.
    """
    document = read_description(folder, schema=SCHEMA, what="learned probes")
    config = read_config(folder, document.get("config"), LearnedProbesConfig)
    shape, size, count = (document.get(key) for key in ("input_shape", "output_size", "num_targets"))
    if not isinstance(shape, list) or type(size) is not int or type(count) is not int:
        raise CheckpointError(f"Expected 'input_shape', 'output_size' and 'num_targets' in '{folder}'")
    if not all(type(length) is int and length > 0 for length in (*shape, size, count)):
        raise CheckpointError(f"Expected sizes above 0 in '{folder}' (got {shape}, {size}, {count})")
    model = LearnedProbes(
        input_shape=tuple(length for length in shape if isinstance(length, int)),
        output_size=size,
        num_targets=count,
        config=config,
    )
    tensors = read_weights_of(folder, document)
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if own != {name: tensor.shape for name, tensor in tensors.items()}:
        raise CheckpointError(f"The weights in '{folder}' do not fit their configuration")
    model.load_state_dict(tensors)
    return model.eval()


def _linears(sizes: Sequence[int]) -> list[nn.Linear]:
    """Layers without values yet: torch would draw them from its global generator."""
    return [
        nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        for inputs, outputs in pairwise(sizes)
    ]
