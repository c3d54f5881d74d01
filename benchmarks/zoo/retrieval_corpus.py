"""The architectures that the encoder is trained with, and those that retrieval is measured on: families of unlike bases.

    python -m benchmarks.zoo.retrieval_corpus --folder /tmp/retrieval-corpus

Bases are sampled from every installed search space; further ones are the networks of `handmade`, the models of
`benchmarks.ghn.models` (`transformers` classes from small configurations with random weights, and hand-written ones), the large ones of
`benchmarks.ghn.torch_networks`, and torch's own. A named network is a base of one part only, by a hash of its name. Graphs are kept as JSON lines in
the folder, so that a second call is quick.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from benchmarks.ghn import torch_networks
from benchmarks.ghn.models import Model, handwritten_models, transformers_models
from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, graph_from_json, graph_to_json
from nasgraph.modules import trace
from nasgraph.retrieve.corpus import (
    Family,
    FamilySettings,
    family_around,
    sample_family,
    space_versions,
    without_repeated,
)
from nasgraph.seeding import derive_seed
from nasgraph.spaces import enumerate_candidates, load_space, space_names

Part = Literal["training", "unseen"]
PER_SPACE: dict[Part, int] = {"training": 72, "unseen": 40}
SIZE: dict[Part, int] = {"training": 6, "unseen": 10}
SEED = 0
NAMED_SPACE = "handmade"


def part_of(name: str) -> Part:
    """The part that a named network belongs to."""
    return "training" if derive_seed(SEED, "part", name) % 2 else "unseen"


def sampled_families(part: Part, *, per_space: int, size: int) -> Iterator[Family]:
    """Families of sampled bases, space by space."""
    for space in space_names():
        if space == NAMED_SPACE:
            continue
        versions = space_versions(space)
        for index in range(per_space):
            yield sample_family(
                versions, name=f"{space}/{part}/{index}", seed=SEED, settings=FamilySettings(size=size)
            )


def named_families(part: Part, *, size: int) -> Iterator[Family]:
    """Families around networks that have names."""
    for name, group, make in _named():
        if part_of(name) != part:
            continue
        try:
            graph = make()
        except NasGraphError as error:
            print(f"left out: {name}: {error!s:.100}")
            continue
        yield family_around(graph, name=name, group=group, seed=SEED, settings=FamilySettings(size=size))


def _named() -> Iterator[tuple[str, str, Callable[[], ComputationalGraph]]]:
    space = load_space(NAMED_SPACE, input_shape=(3, 32, 32), num_classes=10)
    for candidate in enumerate_candidates(space):
        graph = candidate.graph
        yield f"handmade/{candidate.architecture.choices[0][1]}", "handmade", partial(_same, graph)
    for kind, models in (("transformers", transformers_models()), ("handwritten", handwritten_models())):
        for model in models:
            yield f"{kind}/{model.name}", f"{kind}, {model.family}", partial(_traced, model)
    for make in (
        torch_networks.resnet18,
        torch_networks.resnet50,
        torch_networks.densenet201,
        torch_networks.vit_b16,
        torch_networks.efficientnet_v2_l,
    ):
        yield f"torch/{make.__name__}", "torch", partial(_on_meta, make)
    yield "torch/transformer encoder", "torch", _torch_encoder


def _same(graph: ComputationalGraph) -> ComputationalGraph:
    return graph


def _traced(model: Model) -> ComputationalGraph:
    return trace(model.make(), model.inputs()).graph


def _on_meta(make: Callable[[], nn.Module]) -> ComputationalGraph:
    with torch.device("meta"):
        return trace(make(), torch.zeros(2, 3, 224, 224)).graph


def _torch_encoder() -> ComputationalGraph:
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        return trace(
            nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), torch.zeros(2, 16, 64)
        ).graph


def load_part(part: Part, folder: Path, *, limit: int | None = None) -> tuple[Family, ...]:
    """The families of a part, made and written down where they are not yet."""
    path = folder / f"{part}.jsonl"
    if not path.exists():
        seen: set[str] = set()
        if part == "unseen":  # what was trained on is not asked for
            seen = {graph.fingerprint for family in load_part("training", folder) for graph in family.graphs}
        _write(part, path, seen)
    lines = path.read_text().splitlines()
    return tuple(_family(json.loads(line)) for line in lines[:limit])


def _write(part: Part, path: Path, seen: set[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    made = [*sampled_families(part, per_space=PER_SPACE[part], size=SIZE[part])]
    print(f"{part}: {len(made)} sampled families, {time.process_time() - started:.0f} CPU s", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made += named_families(part, size=SIZE[part])
    families = without_repeated(made, seen=seen)
    temporary = path.with_suffix(".part")
    with temporary.open("w") as file:
        for family in families:
            graphs = [graph_to_json(graph) for graph in family.graphs]
            file.write(
                json.dumps(
                    {"name": family.name, "group": family.group, "edits": family.edits, "graphs": graphs}
                )
                + "\n"
            )
    temporary.rename(path)
    number = sum(map(len, families))
    print(
        f"{part}: {len(families)} families, {number} graphs, {time.process_time() - started:.0f} CPU s",
        flush=True,
    )


def _family(row: dict[str, list[str]]) -> Family:
    graphs = tuple(graph_from_json(text) for text in row["graphs"])
    return Family(str(row["name"]), str(row["group"]), graphs, tuple(map(int, row["edits"])))


def main() -> None:
    """Make both parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for part in ("training", "unseen"):
        load_part(part, arguments.folder)


if __name__ == "__main__":
    main()
