"""The groups are those of an independent program: torch-pruning's dependency graph (Fang et al. 2023), `pip install torch-pruning`."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from benchmarks.meta.modules_images import IMAGES
from nasgraph.modules import TracedGraph, trace
from nasgraph.symmetry import symmetry_table

Places = frozenset[tuple[str, str]]
"""Where a group stands: modules by name, with "out" for what they make and "in" for what they read."""

# mypy: disable-error-code="no-any-return"


class _Attention(nn.Module):
    """A block of a transformer, with a projection for each of query, key and value."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.read = heads, nn.Linear(6, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(width, width), nn.Linear(width, 20), nn.Linear(20, width)
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        y = self.norm1(x)
        batch, tokens, width = y.shape
        query, key, value = (
            each(y).reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        scores = (query @ key.transpose(2, 3) / (width // self.heads) ** 0.5).softmax(-1)
        x = x + self.out((scores @ value).transpose(1, 2).reshape(batch, tokens, width))
        x = x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x))))
        return self.last(x.mean(1))


def _case(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return (_Attention(), (torch.randn(2, 5, 6),)) if name == "attention" else IMAGES[name]()


def _ours(traced: TracedGraph, modules: Mapping[str, nn.Module]) -> set[Places]:
    """For each group of the table the modules whose weights it stands on. Within attention: whole heads."""
    table = symmetry_table(traced.graph)
    found = set()
    blocks = {frozenset(m.parameter for m in group.members) for group in table.groups if group.size == 3}
    for group in table.groups:
        if any(frozenset(m.parameter for m in group.members) < block for block in blocks):
            continue  # a part of what moves with whole heads
        places = set()
        for member in group.members:
            owner, _, own = (
                traced.owners[member.parameter].name.rpartition(".")
                if (member.parameter in traced.owners)
                else ("", "", "")
            )
            if own == "weight":
                is_norm = isinstance(modules[owner], nn.BatchNorm2d | nn.LayerNorm)
                places.add((owner, "out" if is_norm or member.axis == 0 else "in"))
        found.add(frozenset(places))
    return found


def _theirs(module: nn.Module, inputs: tuple[Tensor, ...]) -> set[Places]:
    pruning = pytest.importorskip("torch_pruning")
    names = {child: name for name, child in module.named_modules()}
    graph = pruning.DependencyGraph().build_dependency(module, example_inputs=inputs)
    found = set()
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        places = set()
        for dependency, _ in group:
            target = dependency.target.module
            if target in names:
                is_input = graph.is_in_channel_pruning_fn(dependency.handler)
                is_norm = isinstance(target, nn.BatchNorm2d | nn.LayerNorm)
                is_depthwise = isinstance(target, nn.Conv2d) and target.groups > 1
                places.add((names[target], "in" if is_input and not (is_norm or is_depthwise) else "out"))
        found.add(frozenset(places))
    return found


@pytest.mark.filterwarnings("ignore")  # of the other program
@pytest.mark.parametrize(
    "name",
    [
        *("resnet", "resnet-bottleneck", "mobilenet", "mobilenet-squeeze", "convnet-vgg", "densenet"),
        *("inception", "squeezenet", "squeeze-excitation", "attention"),
    ],
)
def test_groups_are_the_dependency_groups_of_torch_pruning(name: str) -> None:
    module, inputs = _case(name)
    module.eval()
    modules = dict(module.named_modules())
    last = [key for key, child in modules.items() if isinstance(child, nn.Linear)][-1]
    theirs = {places for places in _theirs(module, inputs) if places != frozenset({(last, "out")})}
    assert _ours(trace(module, inputs), modules) == theirs
