"""What a data set is: raw arrays as a loader returns them, and prepared tensors as a search sees them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from nasgraph.data.splitting import stratified_sample
from nasgraph.errors import ConfigError, DataError
from nasgraph.seeding import generator

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What a loader of the entry-point group `nasgraph.datasets` is told.

    Args:
        data_dir: Folder in which data sets lie. It may not exist yet; a loader that fetches creates it.
        download: Whether missing files may be fetched.
    """

    data_dir: Path
    download: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawData:
    """What a loader returns: the content as published, neither split, scaled nor resized.

    An instance is checked: whoever holds one need not check again. The arrays must not be changed.

    Args:
        train_inputs: uint8 (0 to 255) or float32. Images are `[examples, channels, height, width]`,
            tables are `[examples, features]`.
        train_labels: Integers `[examples]` that index `class_names`.
        test_inputs: The official test examples, in the same form; None if none are published.
        test_labels: Their labels; None exactly when `test_inputs` is None.
        class_names: One name per class.
        licence: Licence of the data, or what is known about it.
        source: Where the data is from: an address or a path. Error messages begin with it.

    Raises:
        DataError: If the counts differ, a label is out of range, a number is not finite, an axis is
            empty, an array has another form, or fewer than two classes have training examples.
    """

    train_inputs: Array
    train_labels: Array
    test_inputs: Array | None = None
    test_labels: Array | None = None
    class_names: tuple[str, ...]
    licence: str
    source: str

    def __post_init__(self) -> None:
        self._check("training", self.train_inputs, self.train_labels)
        if (self.test_inputs is None) != (self.test_labels is None):
            raise DataError(f"{self.source}: expected test inputs and test labels, or neither")
        if self.test_inputs is not None and self.test_labels is not None:
            self._check("test", self.test_inputs, self.test_labels)
            if self.test_inputs.shape[1:] != self.train_inputs.shape[1:]:
                shapes = f"{self.train_inputs.shape[1:]} and {self.test_inputs.shape[1:]}"
                raise DataError(
                    f"{self.source}: expected training and test inputs of one shape (got {shapes})"
                )
            if self.test_inputs.dtype != self.train_inputs.dtype:
                types = f"{self.train_inputs.dtype} and {self.test_inputs.dtype}"
                raise DataError(f"{self.source}: expected training and test inputs of one type (got {types})")
        if len(np.unique(self.train_labels)) < 2:
            raise DataError(f"{self.source}: expected at least 2 classes in the training data (got 1)")

    def _check(self, part: str, inputs: Array, labels: Array) -> None:
        if inputs.dtype not in (np.uint8, np.float32) or inputs.ndim not in (2, 4):
            got = f"{inputs.dtype} {list(inputs.shape)}"
            expected = "uint8 or float32 of [examples, channels, height, width] or [examples, features]"
            raise DataError(f"{self.source}: expected {part} inputs as {expected} (got {got})")
        if 0 in inputs.shape:
            raise DataError(f"{self.source}: no {part} examples (the inputs have shape {list(inputs.shape)})")
        if labels.shape != inputs.shape[:1]:
            counts = f"{len(inputs):,} inputs and labels of shape {list(labels.shape)}"
            raise DataError(f"{self.source}: expected one {part} label per input (got {counts})")
        if labels.dtype.kind not in "iu":
            raise DataError(f"{self.source}: expected integer {part} labels (got {labels.dtype})")
        number = labels.astype(np.int64)
        wrong = np.flatnonzero((number < 0) | (number >= len(self.class_names)))
        if len(wrong):
            got = f"{part} example {wrong[0]} has {number[wrong[0]]}"
            raise DataError(f"{self.source}: expected labels from 0 to {len(self.class_names) - 1} ({got})")
        if inputs.dtype != np.uint8:
            finite = np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)
            if not finite.all():
                first = int(np.argmin(finite))
                raise DataError(
                    f"{self.source}: {part} example {first} has a NaN or an infinity. Remove or fill it"
                )


@dataclass(frozen=True, slots=True, eq=False)
class DataGraph:
    """The graph whose nodes are the examples of a data set, those of all splits among them. It has no labels.

    Args:
        features: One row per node, in compressed rows (CSR) if nearly all is zero.
        edges: Source and target of each edge, in both directions if the graph is undirected.
    """

    features: Float32[Tensor, "nodes features"]
    edges: Int64[Tensor, "2 edges"]

    def to(self, device: torch.device | str) -> "DataGraph":
        """The same graph on `device`; no copy where it is there already."""
        return DataGraph(self.features.to(device), self.edges.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Which nodes of a data graph a split consists of.

    Args:
        graph: The whole graph.
        index: Numbers of the nodes, in the order of the split.
    """

    graph: DataGraph
    index: Int64[Tensor, " nodes"]

    def to(self, device: torch.device | str) -> "Nodes":
        """The same nodes on `device`; no copy where they are there already."""
        return Nodes(self.graph.to(device), self.index.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Examples ready for a network: one contiguous tensor of inputs, one of targets.

    Args:
        inputs: Normalised inputs.
        targets: Class numbers, from 0.
        nodes: Where the examples stand in a data graph; None if they stand alone.

    Raises:
        ValueError: If the counts differ.
    """

    inputs: Float32[Tensor, "examples *input_shape"]
    targets: Int64[Tensor, " num_targets"]
    nodes: Nodes | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            counts = f"{len(self.inputs)} and {len(self.targets)}"
            raise ValueError(f"Expected one target per input (got {counts})")
        if self.nodes is not None and len(self.nodes.index) != len(self.targets):
            counts = f"{len(self.nodes.index)} and {len(self.targets)}"
            raise ValueError(f"Expected one target per node (got {counts})")

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> "Split":
        """The same examples on `device`; no copy where they are there already."""
        nodes = None if self.nodes is None else self.nodes.to(device)
        return Split(self.inputs.to(device), self.targets.to(device), nodes)

    def pick(self, index: Int64[Tensor, " picked"]) -> "Split":
        """The examples that `index` numbers, copied, in that order."""
        index = index.to(self.targets.device)
        nodes = None if self.nodes is None else Nodes(self.nodes.graph, self.nodes.index[index])
        return Split(self.inputs[index], self.targets[index], nodes)


@dataclass(frozen=True, slots=True, eq=False)
class SearchData:
    """What a search, the training of a GHN and an evaluator may see.

    There is no test split in this type, on purpose: what is not here cannot leak into a choice. The
    examples of both splits stand in a random order, so the first k are a fair sample.

    Args:
        name: Name of the data set.
        input_shape: Shape of one input: `(channels, height, width)` or `(features,)`.
        num_classes: Number of classes.
        train: Examples to fit parameters to.
        validation: Examples to compare architectures on; disjoint from `train`.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    train: Split
    validation: Split

    def to(self, device: torch.device | str) -> "SearchData":
        """The same data on `device`; no copy where it is there already."""
        return SearchData(
            self.name, self.input_shape, self.num_classes, self.train.to(device), self.validation.to(device)
        )

    @property
    def graph(self) -> DataGraph | None:
        """The graph whose nodes the examples are; None if they stand alone."""
        return None if self.train.nodes is None else self.train.nodes.graph

    def subset(self, num_train: int, num_validation: int, seed: int) -> "SearchData":
        """A smaller set with the same share of every class, as near as whole examples allow.

        Equal arguments give the equal subset. For one seed the examples of a smaller subset are nearly
        all in a larger one. Every class keeps an example where there are at least as many as classes.

        Args:
            num_train: Training examples to keep.
            num_validation: Validation examples to keep.
            seed: Chooses them.

        Raises:
            ConfigError: If a count is below 1 or more than there are.
        """
        return SearchData(
            self.name,
            self.input_shape,
            self.num_classes,
            _sample(self.train, num_train, seed, "train"),
            _sample(self.validation, num_validation, seed, "validation"),
        )


def _sample(split: Split, count: int, seed: int, part: str) -> Split:
    if not 1 <= count <= len(split):
        raise ConfigError(f"Expected 'num_{part}' from 1 to {len(split):,} (got {count:,})")
    labels = split.targets.cpu().numpy()
    picked = stratified_sample(labels, count, generator(seed, "subset", part))
    return split.pick(torch.from_numpy(picked))


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How raw inputs become the inputs of a network: `(raw * scale - mean) / std`, per channel or feature.

    Args:
        scale: Factor that is applied first: 1/255 for bytes, 1 for floats.
        mean: Mean of the scaled training inputs, one per channel (images) or feature (tables).
        std: Their standard deviation. A channel that never varies has 1.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(
        self, raw: Float[Tensor, "examples channels *rest"]
    ) -> Float[Tensor, "examples channels *rest"]:
        """Normalise raw inputs of the published range, such as 0 to 255; returns a new tensor."""
        shape = (-1,) + (1,) * (raw.ndim - 2)
        mean = raw.new_tensor(self.mean).reshape(shape)
        std = raw.new_tensor(self.std).reshape(shape)
        return (raw * self.scale - mean) / std


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """A prepared data set: what a search may see, and the test split that is touched once, at the end.

    Args:
        search: Training and validation data.
        test: Test examples. Official ones keep their published order; others are cut by a constant
            seed, so they are the same for every `split_seed`.
        class_names: One name per class.
        sha256: Hash of the raw content of all splits, as published: independent of seed and sizes.
        split_seed: The seed that divided training from validation data.
        licence: Licence of the data, or what is known about it.
        source: Address or path that the data is from.
        normalisation: Computed on the training split alone, applied to all.
    """

    search: SearchData
    test: Split
    class_names: tuple[str, ...]
    sha256: str
    split_seed: int
    licence: str
    source: str
    normalisation: Normalisation

    def to(self, device: torch.device | str) -> "DataSet":
        """The same data on `device`; no copy where it is there already."""
        return replace(self, search=self.search.to(device), test=self.test.to(device))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.search.name

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: `(channels, height, width)` or `(features,)`."""
        return self.search.input_shape

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.search.num_classes
