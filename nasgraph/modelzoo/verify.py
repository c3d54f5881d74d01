"""Measuring an entry, and measuring it again: a card's numbers are reproduced or disputed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast, get_args

from torch import Tensor

from nasgraph.data import DataSet, Split, dataset_names, load_dataset
from nasgraph.errors import ZooError
from nasgraph.evaluate.measure import measure
from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.card import DataFacts, Measurement, SplitName
from nasgraph.modelzoo.entry import ZooEntry
from nasgraph.modelzoo.facts import find_measure
from nasgraph.modules import Program

BATCH_SIZE = 256
PROTOCOL = "one pass, inference mode, no augmentation"
"""Of `measure_accuracy`, which cards of the first schema have. Other numbers are measured by `nasgraph.modelzoo.facts`."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A recorded number beside the same number measured again.

    Attributes:
        split: On which split.
        metric: Its name.
        recorded: Value in the card.
        measured: Value now.
    """

    split: str
    metric: str
    recorded: float
    measured: float

    @property
    def agrees(self) -> bool:
        """Whether both are equal, to the last bit."""
        return self.recorded == self.measured


def measure_accuracy(
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    split: Split,
    name: str,
    *,
    batch_size: int = BATCH_SIZE,
) -> Measurement:
    """Measure the accuracy that a card records. The same arguments give the same value on one machine.

    Args:
        graph: The architecture.
        state: Trained parameters and buffers.
        split: Prepared examples.
        name: Which split that is: "train", "validation" or "test".
        batch_size: Examples per forward pass; recorded.

    Raises:
        ZooError: If `name` is something else.
    """
    if name not in get_args(SplitName):
        raise ZooError(f"Expected 'name' to be one of {get_args(SplitName)} (got {name!r:.80})")
    _, accuracy = measure(Program(graph), state, split, batch_size=batch_size)
    return Measurement(
        split=cast(SplitName, name),
        metric="accuracy",
        value=accuracy,
        num_examples=len(split),
        batch_size=batch_size,
        protocol=PROTOCOL,
    )


def verify(entry: ZooEntry, dataset: DataSet) -> tuple[Verification, ...]:
    """Measure all recorded numbers again. Latencies are not among them: they are never twice the same.

    Args:
        entry: A checked entry.
        dataset: The data set of its card, prepared in the same way; see `preparation_of`.

    Returns:
        One comparison per recorded number, in the card's order; empty if the card records none.

    Raises:
        ZooError: If the data is another, or was prepared in another way.
    """
    if entry.card.data is None:
        return ()
    check_data(entry.card.data, dataset)
    splits = {"train": dataset.search.train, "validation": dataset.search.validation, "test": dataset.test}
    results = []
    for recorded in entry.card.measurements:
        split = splits[recorded.split]
        if len(split) != recorded.num_examples:
            raise ZooError(
                f"Expected {recorded.num_examples:,} examples in the {recorded.split} split (got {len(split):,})"
            )
        if recorded.protocol == PROTOCOL:
            again = measure_accuracy(
                entry.graph, entry.state, split, recorded.split, batch_size=recorded.batch_size
            ).value
        else:
            again = find_measure(recorded.metric)(
                entry.graph, entry.state, split, batch_size=recorded.batch_size
            )
        results.append(Verification(recorded.split, recorded.metric, recorded.value, again))
    return tuple(results)


def check_data(facts: DataFacts, dataset: DataSet) -> None:
    """Check that a prepared data set is the one that a card describes.

    Raises:
        ZooError: If something differs. The message names it.
    """
    claims = {
        "content (sha256)": (facts.sha256, dataset.sha256),
        "input shape": (facts.input_shape, dataset.input_shape),
        "class names": (facts.class_names, dataset.class_names),
        "split seed": (facts.split_seed, dataset.split_seed),
        "normalisation": (facts.normalisation, dataset.normalisation),
    }
    for what, (expected, got) in claims.items():
        if expected != got:
            raise ZooError(
                f"The data set '{dataset.name}' is not as the card of '{facts.name}' describes it: expected the "
                f"{what} {expected!r:.200} (got {got!r:.200})"
            )


class PreparationArguments(TypedDict):
    """The keyword arguments of `nasgraph.data.load_dataset` that decide how data is prepared."""

    split_seed: int
    validation_share: float
    image_size: int | None
    num_train: int | None


def preparation_of(facts: DataFacts) -> PreparationArguments:
    """Keyword arguments for `nasgraph.data.load_dataset` that prepare the data of a card again."""
    return PreparationArguments(
        split_seed=facts.split_seed,
        validation_share=facts.validation_share,
        image_size=facts.image_size,
        num_train=facts.num_train,
    )


def dataset_of(entry: ZooEntry, data_dir: Path | None = None, *, download: bool = True) -> DataSet:
    """The data set of an entry's card, prepared as it says: by its name or, for a data set of one's own, at its path.

    Raises:
        ZooError: If the card names no data.
        DataError: If the data is not at hand.
    """
    facts = entry.card.data
    if facts is None:
        raise ZooError(f"The card of '{entry.card.name}' names no data, so nothing can be measured again")
    where = facts.name if facts.name in dataset_names() else Path(facts.source)
    return load_dataset(where, data_dir=data_dir, download=download, **preparation_of(facts))
