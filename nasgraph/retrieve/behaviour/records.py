"""Who takes part in a retrieval: candidates, of which only the outputs are used, and the data that looks for one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nasgraph.data import DataSet, Normalisation, Split
from nasgraph.errors import CandidateError, ConfigError, DataError
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext, buffers_by_node
from nasgraph.retrieve.behaviour.inputs import fit_images
from nasgraph.seeding import generator

BATCH_SIZE = 256
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Candidate:
    """A model that may fit. Only what its functions return is looked at.

    Args:
        reference: Its name in the catalogue; unique among the candidates of one ranking.
        forward: `[n, *input_shape]` normalised inputs to `[n, num_classes]` logits, in inference mode.
        input_shape: Without the batch.
        num_classes: Classes it was trained on.
        normalisation: What its inputs were normalised with, for values in [0, 1]; None: each data set by its own mean
            and standard deviation.
        features: `[n, *input_shape]` to `[n, k]`: what its last layer reads; None where it cannot be had.
        vector: Its place in the space of an alignment; None if it was never computed.
        encoder: Which alignment `vector` is from (`Alignment.digest`).
        data_mean: Mean description of its training images (`image_features`); None if not known.
    """

    reference: str
    forward: Forward
    input_shape: tuple[int, ...]
    num_classes: int
    normalisation: Normalisation | None = None
    features: Forward | None = None
    vector: tuple[float, ...] | None = None
    encoder: str = ""
    data_mean: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class QueryData:
    """Labelled examples that a model is wanted for. A few per class are enough.

    An instance is checked: at least two classes, each with an example, finite numbers, pixels in [0, 1].

    Args:
        inputs: Images `[n, channels, height, width]` in [0, 1], or rows of a table `[n, features]`.
        labels: `[n]` integers from 0; every number up to the largest occurs.

    Raises:
        DataError: If something is missing or out of range. The message says what.
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        x, y = self.inputs, self.labels
        if x.ndim not in (2, 4) or not x.dtype.is_floating_point:
            raise DataError(
                "Expected query images as real numbers [n, channels, height, width] in [0, 1], or rows [n, features] "
                f"(got {x.dtype} {list(x.shape)})"
            )
        if 0 in x.shape:
            raise DataError(f"The query has no examples (its inputs have shape {list(x.shape)})")
        if y.ndim != 1 or len(y) != len(x) or y.dtype.is_floating_point or y.dtype is torch.bool:
            got = f"{y.dtype} {list(y.shape)} for {len(x)} inputs"
            raise DataError(f"Expected one integer label per query example (got {got})")
        self._check_values()

    def _check_values(self) -> None:
        x, y = self.inputs, self.labels
        finite = x.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            first = int((~finite).int().argmax())
            raise DataError(f"Query example {first} has a NaN or an infinity. Remove or fill it")
        if x.ndim == 4 and (float(x.min()) < -1e-3 or float(x.max()) > 1 + 1e-3):
            got = f"{float(x.min()):.3g} to {float(x.max()):.3g}"
            raise DataError(f"Expected query pixels from 0 to 1 (got {got}). Divide bytes by 255")
        if int(y.min()) < 0:
            raise DataError(f"Expected query labels from 0 (got {int(y.min())})")
        present = set(y.tolist())
        if len(present) < 2:
            raise DataError(
                "The query has examples of one class only: which model tells classes apart cannot be seen"
            )
        if len(present) != max(present) + 1:
            missing = next(label for label in range(len(present) + 1) if label not in present)
            raise DataError(f"Query class {missing} has no example. Number the classes that occur from 0 on")

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return int(self.labels.max()) + 1


def query_from_split(
    split: Split,
    normalisation: Normalisation,
    *,
    per_class: int | None = None,
    seed: int = 0,
) -> QueryData:
    """A query of prepared examples: the normalisation is undone, and classes that do not occur are left out.

    Args:
        split: Prepared examples, such as `dataset.search.train`.
        normalisation: What they were prepared with.
        per_class: At most so many of each class, drawn with `seed`; None: all.
        seed: Decides which.

    Raises:
        ConfigError: If `per_class` is below 1.
        DataError: If the examples stand in a data graph, or make no query.
    """
    if per_class is not None and per_class < 1:
        raise ConfigError(f"Expected 'per_class' of at least 1 (got {per_class})")
    if split.nodes is not None:
        raise DataError(
            "Nodes of a data graph cannot be shown to a model one by one: expected images or a table"
        )
    labels = split.targets.cpu().numpy()
    rng = generator(seed, "query")
    chosen = []
    for label in np.unique(labels):
        index = np.flatnonzero(labels == label)
        count = len(index) if per_class is None else min(per_class, len(index))
        chosen.append(rng.permutation(index)[:count])
    index = np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
    inputs = split.inputs.cpu()[torch.from_numpy(index)]
    shape = (1, -1) + (1,) * (inputs.ndim - 2)
    mean, std = inputs.new_tensor(normalisation.mean), inputs.new_tensor(normalisation.std)
    raw = inputs * std.reshape(shape) + mean.reshape(shape)
    if raw.ndim == 4:
        low, high = float(raw.min()), float(raw.max())
        # Undoing rounds; and pixels of another range (floats, sixteen grey values in a byte) are stretched.
        raw = (
            raw.clamp(0, 1) if 0.5 < high <= 1.001 and low >= -0.001 else (raw - low) / max(high - low, 1e-12)
        )
    return QueryData(raw, torch.from_numpy(np.unique(labels[index], return_inverse=True)[1].astype(np.int64)))


def query_from_dataset(dataset: DataSet, *, per_class: int | None = None, seed: int = 0) -> QueryData:
    """A query of the training examples of a data set. See `query_from_split`."""
    return query_from_split(dataset.search.train, dataset.normalisation, per_class=per_class, seed=seed)


def candidate_from_graph(
    reference: str,
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    *,
    normalisation: Normalisation | None,
    vector: tuple[float, ...] | None = None,
    encoder: str = "",
    data_mean: tuple[float, ...] | None = None,
) -> Candidate:
    """A candidate of a graph with its weights. It has `features` if the last operator is linear.

    Raises:
        CandidateError: If the graph is no classifier of one input: several inputs or outputs, nodes of a data graph, or an
            output that is no vector.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or graph.reads_edges:
        raise CandidateError(
            f"'{reference}' is no classifier of single examples: several inputs or outputs, or edges"
        )
    output = graph.outputs[0]
    if len(graph.shapes[output]) != 1:
        raise CandidateError(
            f"'{reference}' gives {graph.shapes[output]} per example: expected one number per class"
        )
    features = None
    if graph.nodes[output].op == "linear":
        # The output stands last: every other node reaches it. So the nodes before it keep their numbers.
        body = ComputationalGraph(graph.nodes[:output], (graph.nodes[output].inputs[0],))
        if len(body.shapes[body.outputs[0]]) == 1:
            features = _runner(body, state)
    return Candidate(
        reference=reference,
        forward=_runner(graph, state),
        input_shape=graph.shapes[graph.inputs[0]],
        num_classes=graph.shapes[output][0],
        normalisation=normalisation,
        features=features,
        vector=vector,
        encoder=encoder,
        data_mean=data_mean,
    )


def lazy_candidate(
    facts: Candidate, load: Callable[[], tuple[ComputationalGraph, Mapping[str, Tensor]]]
) -> Candidate:
    """A candidate whose weights are read when it is run for the first time, and kept from then on.

    A ranking by stored vectors reads none of them, and one in two stages those few that it runs. Where reading fails, the
    ranking lists the candidate with that reason.

    Args:
        facts: Everything but the functions, whose place the new ones take.
        load: Reads the graph and its weights; called at most once, unless it raises.
    """

    @cache
    def loaded() -> Candidate:
        graph, state = load()
        return candidate_from_graph(facts.reference, graph, state, normalisation=facts.normalisation)

    def features(inputs: Tensor) -> Tensor:
        candidate = loaded()
        return (candidate.features or candidate.forward)(inputs)

    return replace(facts, forward=lambda inputs: loaded().forward(inputs), features=features)


def _runner(graph: ComputationalGraph, state: Mapping[str, Tensor]) -> Forward:
    program = Program(graph)
    buffers = buffers_by_node({name: tensor for name, tensor in state.items() if "running_" in name})
    constants = {
        int(name[1:].split(".")[0]): tensor for name, tensor in state.items() if name.endswith(".value")
    }

    def run(inputs: Tensor) -> Tensor:
        context = RunContext(batch_size=len(inputs), buffers=buffers, constants=constants)
        return program(state, [inputs], context)[0]

    return run


def outputs_of(candidate: Candidate, inputs: Tensor, *, features: bool = False) -> Tensor:
    """What a candidate says of raw inputs: logits, or the features before them. Inputs are fitted to it first.

    Args:
        candidate: The model.
        inputs: Images in [0, 1], or rows of a table.
        features: Whether to return what its last layer reads, if it can be had; else logits.

    Returns:
        `[n, k]`, finite.

    Raises:
        CandidateError: If the inputs cannot be fitted, the model fails on them, or returns anything else. The message says
            which model and why.
    """
    try:
        fitted = fit_images(inputs, candidate.input_shape, normalisation=candidate.normalisation)
    except CandidateError as error:
        raise CandidateError(f"'{candidate.reference}': {error}") from error
    run = candidate.features if features and candidate.features is not None else candidate.forward
    return run_in_batches(candidate, run, fitted)


def run_in_batches(candidate: Candidate, run: Forward, fitted: Tensor) -> Tensor:
    """Call one of a candidate's functions on inputs that fit it. See `outputs_of`."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(fitted), BATCH_SIZE):
            try:
                parts.append(run(fitted[start : start + BATCH_SIZE]))
            except Exception as error:
                raise CandidateError(
                    f"'{candidate.reference}' fails on inputs of shape {tuple(fitted.shape[1:])}: "
                    f"{type(error).__name__}: {error!s:.200}"
                ) from error
    for part in parts:
        if not isinstance(part, Tensor) or part.ndim != 2:
            raise CandidateError(f"'{candidate.reference}' does not return one row of numbers per input")
    result = torch.cat(parts).double()
    if len(result) != len(fitted):
        raise CandidateError(f"'{candidate.reference}' returns {len(result)} rows for {len(fitted)} inputs")
    if run is candidate.forward and result.shape[1] != candidate.num_classes:
        raise CandidateError(
            f"'{candidate.reference}' gives {result.shape[1]} numbers per input, not its {candidate.num_classes} classes"
        )
    if not bool(result.isfinite().all()):
        raise CandidateError(f"'{candidate.reference}' gives NaN or infinity for some inputs")
    return result
