"""The population of the model retrieval benchmark: networks for parts of three data sets, and what fine-tuning makes of them.

    nice -n 10 python -m benchmarks.zoo.model_retrieval_models --mnist FOLDER      (trains and fine-tunes what is missing)

Images are 16x16. Of Fashion-MNIST, MNIST (the official 10,000 test images: the t10k files in FOLDER) and CIFAR-10 the first 880 images of
each class are used: 0-299 train the networks, 300-399 measure them, 400-599 are for the training of retrieval, 600-879 for its queries.
Of the 252 sets of five classes of a data set, in random order, 0-35 belong to the candidates, 36-71 to the networks that retrieval
is trained with, 72-79 to queries of unseen class sets, and 0-3 of the candidates' to queries of seen ones. So networks, class sets and images
of the training of retrieval are disjoint from those that are evaluated.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import RESULTS, SHARED_DATA
from nasgraph.data import DataRequest, Normalisation, SearchData, Split
from nasgraph.data.cifar import load_cifar10
from nasgraph.data.idx import load_fashion_mnist, read_idx
from nasgraph.evaluate import TrainConfig, never_stop, train_graph
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext, buffers_by_node, initial_parameters
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import Architecture, load_space, replay

SETS = ("fashion-mnist", "mnist", "cifar10")
KINDS = ("nasbench201", "convnet", "mlp")
SIDE, PER_CLASS, NUM_CLASSES = 16, 880, 5
MODELS, MEASURED, TRAINING, QUERIES = slice(0, 300), slice(300, 400), slice(400, 600), slice(600, 880)
POOLS = {"candidates": range(36), "training": range(36, 72)}
UNSEEN, SEEN = range(72, 80), range(4)
STEPS, BATCH, LEARNING_RATE = 20, 32, 4e-3
WORK = Path(gettempdir()) / "nasgraph-model-retrieval"
TRUTH = RESULTS / "zoo_model_retrieval.truth.jsonl"

_CONVNET = {
    "norm": "batch",
    "activation": "relu",
    "squeeze_excite": "none",
    "width": 12,
    "stem_kernel": 3,
    "stage0_blocks": 0,
    "stage1_widen": 2.0,
    "stage1_down": "max",
    "stage1_blocks": 1,
    "stage1_block0_kind": "separable",
    "stage1_block0_window": 3,
    "stage2_widen": 1.5,
    "stage2_down": "max",
    "stage2_blocks": 1,
    "stage2_block0_kind": "residual",
    "stage2_block0_kernel": 3,
    "head": "mean",
}
_MLP = {"norm": "batch", "activation": "relu", "depth": 2, "layer0_width": 128, "layer1_width": 64}


@dataclass(frozen=True, slots=True)
class Member:
    """One network of the population: `number` is the place of its class set among the 252 of its data set."""

    data: str
    number: int
    kind: str

    @property
    def name(self) -> str:
        return f"{self.data}-{self.number:03d}-{self.kind}"


@dataclass(frozen=True, slots=True)
class QueryPart:
    """A query: a class set of a data set, so many images per class to train on, and 180 per class to measure on."""

    data: str
    number: int
    shots: int
    seen: bool

    @property
    def name(self) -> str:
        return f"{self.data}-{self.number:03d}-{self.shots}"


def members(pool: str) -> tuple[Member, ...]:
    """The 108 networks of a pool, architectures in turn."""
    return tuple(
        Member(data, number, KINDS[(number + place) % 3])
        for place, data in enumerate(SETS)
        for number in POOLS[pool]
    )


def queries() -> tuple[QueryPart, ...]:
    """36 queries of 5 images per class and the same 36 of 20: 24 of unseen class sets, 12 of seen ones.

    They come in rounds, a third of a round for each data set: so a truth that was cut off is balanced, but for its last round.
    """
    found = []
    for place, number in enumerate(UNSEEN):
        seen = [SEEN[place // 2]] if place % 2 == 0 else []
        for chosen in (number, *seen):
            for shots in (5, 20):
                found += [QueryPart(data, chosen, shots, chosen in SEEN) for data in SETS]
    return tuple(found)


def class_sets(data: str) -> list[tuple[int, ...]]:
    """The 252 sets of five classes in the random order of the protocol."""
    sets = list(itertools.combinations(range(10), NUM_CLASSES))
    return [sets[place] for place in generator(0, "class sets", data).permutation(len(sets))]


def images(data: str, *, mnist: Path) -> Tensor:
    """The first 880 images of each class, `[10, 880, channels, 16, 16]` in [0, 1]."""
    if data == "mnist":
        inputs = read_idx(mnist / "t10k-images-idx3-ubyte.gz", num_axes=3)[:, None]
        labels = read_idx(mnist / "t10k-labels-idx1-ubyte.gz", num_axes=1)
    else:
        load = load_cifar10 if data == "cifar10" else load_fashion_mnist
        raw = load(DataRequest(SHARED_DATA, download=False))
        inputs, labels = raw.train_inputs, raw.train_labels
    counts = min(np.bincount(labels).min(), PER_CLASS)
    index = np.concatenate([np.flatnonzero(labels == label)[:counts] for label in range(10)])
    x = torch.from_numpy(inputs[index]).float() / 255
    x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return x.unflatten(0, (10, int(counts)))


def part(pictures: Tensor, classes: tuple[int, ...], which: slice) -> tuple[Tensor, Tensor]:
    """Images of some classes, and their labels 0 to 4."""
    chosen = pictures[list(classes)][:, which]
    return chosen.flatten(0, 1), torch.arange(len(classes)).repeat_interleave(chosen.shape[1])


def normalisation(pictures: Tensor) -> Normalisation:
    """Of one data set, as its networks use it."""
    seen = pictures[:, MODELS].flatten(0, 1)
    return Normalisation(1.0, tuple(seen.mean((0, 2, 3)).tolist()), tuple(seen.std((0, 2, 3)).tolist()))


def architecture(member: Member) -> ComputationalGraph:
    """The graph of a network."""
    channels = 3 if member.data == "cifar10" else 1
    shape = (channels, SIDE, SIDE)
    if member.kind == "nasbench201":
        from search_spaces.nasbench201 import NASBench201, architecture_from_string

        space = NASBench201(input_shape=shape, num_classes=NUM_CLASSES, channels=8, num_cells=1)
        text = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"
        return replay(space, architecture_from_string(text)).graph
    choices = _CONVNET if member.kind == "convnet" else _MLP
    loaded = load_space(member.kind, input_shape=shape, num_classes=NUM_CLASSES)
    return replay(loaded, Architecture(member.kind, tuple(choices.items()))).graph


def train(member: Member, pictures: Tensor, folder: Path) -> None:
    """Train a network unless its file is there."""
    path = folder / f"{member.name}.safetensors"
    if path.exists():
        return
    classes, normal = class_sets(member.data)[member.number], normalisation(pictures)
    splits = []
    for which in (MODELS, MEASURED):
        inputs, labels = part(pictures, classes, which)
        splits.append(Split(normal.apply(inputs), labels))
    graph = architecture(member)
    shape = tuple(splits[0].inputs.shape[1:])
    seed = derive_seed(0, member.name)
    evaluation = train_graph(
        graph,
        SearchData(member.data, shape, NUM_CLASSES, splits[0], splits[1]),
        TrainConfig(epochs=8),
        start=initial_parameters(graph, seed=seed),
        seed=seed,
        keep_going=never_stop,
    )
    assert evaluation.state is not None
    save_tensors(path, evaluation.state)
    print(f"{member.name}: {evaluation.value:.3f}", flush=True)


def fine_tune(
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    train_part: tuple[Tensor, Tensor],
    test_part: tuple[Tensor, Tensor],
) -> float:
    """Accuracy on `test_part` after all weights were trained on `train_part`, the last layer from zero.

    AdamW, 20 steps of at most 32 examples, cosine to 0. Norms keep their running statistics and train their scale and shift: of
    25 images statistics are poor. The order is fixed, and a head that starts at zero needs no seed: there is no chance in it.
    """
    head = f"n{len(graph.nodes) - 1}"
    parameters = {
        name: (torch.zeros_like(state[name]) if name.startswith(f"{head}.") else state[name].clone())
        for name in graph.parameters
    }
    leaves = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
    buffers = buffers_by_node({name: tensor for name, tensor in state.items() if "running_" in name})
    program, optimizer = Program(graph), torch.optim.AdamW(leaves.values(), lr=LEARNING_RATE, fused=True)
    inputs, labels = train_part
    for step, index in enumerate(_orders(len(inputs))):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        (logits,) = program(leaves, [inputs[index]], RunContext(batch_size=len(index), buffers=buffers))
        loss = F.cross_entropy(logits, labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    with torch.inference_mode():
        (logits,) = program(leaves, [test_part[0]], RunContext(batch_size=len(test_part[0]), buffers=buffers))
    return float((logits.argmax(1) == test_part[1]).float().mean())


def _orders(count: int) -> Iterator[Tensor]:
    rng = generator(0, "fine-tuning order", count)
    order: list[int] = []
    for _ in range(STEPS):
        if len(order) < min(BATCH, count):
            order = rng.permutation(count).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        yield torch.tensor(batch)


def query_parts(query: QueryPart, pictures: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What a query shows, and what its truth is measured on; images in [0, 1]."""
    classes = class_sets(query.data)[query.number]
    rng = generator(0, "query", query.data, query.number)
    own = pictures[:, QUERIES][:, torch.from_numpy(rng.permutation(280))]
    return part(own, classes, slice(0, query.shots)), part(own, classes, slice(100, 280))


def done(path: Path) -> set[tuple[str, str]]:
    """Pairs of query and network that have a row."""
    if not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {(row["query"], row["model"]) for row in rows}


def measure_truth(pictures: Mapping[str, Tensor], folder: Path, chosen: Sequence[QueryPart]) -> None:
    """Fine-tune all candidates on these queries; one row per pair, written as it comes, whole: processes may share the file."""
    from nasgraph.retrieve.behaviour import fit_images

    have = done(TRUTH)
    pool = [(member, architecture(member)) for member in members("candidates")]
    states = {member.name: load_tensors(folder / f"{member.name}.safetensors") for member, _ in pool}
    normals = {name: normalisation(pictures[name]) for name in SETS}
    with TRUTH.open("a") as file:
        for query in chosen:
            shown, held = query_parts(query, pictures[query.data])
            for member, graph in pool:
                if (query.name, member.name) in have:
                    continue
                started = time.process_time()
                shape, normal = graph.shapes[graph.inputs[0]], normals[member.data]
                fitted = [
                    (fit_images(inputs, shape, normalisation=normal), labels)
                    for inputs, labels in (shown, held)
                ]
                accuracy = fine_tune(graph, states[member.name], fitted[0], fitted[1])
                row = {
                    "query": query.name,
                    "model": member.name,
                    "accuracy": accuracy,
                    "cpu_s": round(time.process_time() - started, 4),
                }
                file.write(json.dumps(row) + "\n")
                file.flush()
            print(query.name, flush=True)


def main() -> None:
    """Train both pools, then measure the truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, default=SHARED_DATA / "mnist", help="folder of the t10k files")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for weights")
    parser.add_argument("--part", choices=("models", "truth", "all"), default="all")
    parser.add_argument(
        "--share", default="0/1", help="k/n: every n-th third of a round of queries, from the k-th on"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures = {name: images(name, mnist=arguments.mnist) for name in SETS}
    if arguments.part != "truth":
        for pool in POOLS:
            for member in members(pool):
                train(member, pictures[member.data], arguments.work)
    if arguments.part != "models":
        first, number = (int(text) for text in arguments.share.split("/"))
        chosen = [query for place, query in enumerate(queries()) if place // len(SETS) % number == first]
        measure_truth(pictures, arguments.work, chosen)


if __name__ == "__main__":
    main()
