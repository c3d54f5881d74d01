"""Making entries from graphs that are written down here."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import DataSet, Preparation
from nasgraph.ir import GraphBuilder
from nasgraph.modelzoo import (
    Lineage,
    ModelCard,
    ZooEntry,
    data_facts,
    draft_card,
    measure_accuracy,
    write_entry,
)
from nasgraph.modules import GraphModule, build
from nasgraph.spaces import Architecture, Candidate


def candidate() -> Candidate:
    """Two convolutions with batch norms on an 8 x 8 picture."""
    g = GraphBuilder()
    x = g("input", shape=(1, 8, 8))
    for channels in (8, 16):
        x = g("conv2d", x, out_channels=channels, kernel_size=3, padding=1, stride=2)
        x = g("relu", g("batch_norm", x))
    graph = g.finish(g("linear", g("global_avg_pool2d", x), out_features=10))
    return Candidate(
        Architecture("hand-made", (("depth", 2), ("norm", "batch"), ("width", 1.5), ("skip", False))), graph
    )


def trained(data: DataSet, *, steps: int = 60) -> GraphModule:
    """The network of `candidate` after a few steps; running statistics included."""
    module = build(candidate().graph, seed=1)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    train = data.search.train
    for step in range(steps):
        part = slice(64 * step % 1000, 64 * step % 1000 + 64)
        logits = module(train.inputs[part])
        assert isinstance(logits, Tensor)
        optimiser.zero_grad()
        loss: Tensor = F.cross_entropy(logits, train.targets[part])
        torch.autograd.backward(loss)
        optimiser.step()
    return module.eval()


def made_card(data: DataSet) -> ModelCard:
    """A complete card, but for measurements and weights."""
    facts = data_facts(data, Preparation())
    card = draft_card("small", candidate(), facts, created="2026-01-31", licence="Apache-2.0", seed=1)
    return replace(
        card,
        scores=(("screen_score", 0.25), ("predicted_accuracy", 0.5)),
        training=(("epochs", 3), ("optimiser", "adam")),
        lineage=Lineage(study="a study", trial=4, run_id="ab12", ghn="ghn-digits"),
    )


def made_entry(folder: Path, data: DataSet) -> ZooEntry:
    """A trained and measured entry."""
    graph, state = candidate().graph, trained(data).state_dict()
    splits = {"validation": data.search.validation, "test": data.test}
    measurements = tuple(measure_accuracy(graph, state, split, name) for name, split in splits.items())
    card = replace(made_card(data), measurements=measurements)
    return write_entry(folder, graph, state, card, picture=b"<svg xmlns='http://www.w3.org/2000/svg'/>")
