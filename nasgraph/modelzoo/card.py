"""Model cards: what a zoo entry is, what it was trained on, how well it does, and where it came from."""

import math
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from nasgraph.data import DataSet, Normalisation, Preparation
from nasgraph.errors import NasGraphError, ZooError
from nasgraph.files import canonical_json, parse_json, read_json
from nasgraph.ir import cost_of
from nasgraph.modelzoo.names import check_name
from nasgraph.spaces import Architecture, Candidate, Choice

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter

SCHEMA = "nasgraph/card/2"
FIRST_SCHEMA = "nasgraph/card/1"
"""Has no latencies, no data but that of a training, and of the lineage the search only. Cards that need no more are written
in it, so that they keep their text, and with it their hash."""
Origin = Literal["search", "import", "merge", "training", "edit"]
SplitName = Literal["train", "validation", "test"]
MAX_CARD_CHARACTERS = 100_000  # a card is also kept as a tag in MLflow's registry, which takes no more

_SHA256 = re.compile(r"[0-9a-f]{64}")
_STRICT: "ConfigDict" = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The data set of a model, in enough detail to prepare it again bit by bit.

    Attributes:
        name: Name of the data set.
        sha256: Hash of its published content.
        input_shape: Shape of one prepared example.
        class_names: One name per class, in the order of the logits.
        normalisation: How raw inputs become the inputs of the network.
        licence: Licence of the data.
        source: Where it is from.
        split_seed: Seed that divided training from validation data.
        validation_share: Share of the published training examples that are held out.
        image_size: Size to which images were resized; None: not at all.
        num_train: Training examples that were kept; None: all.
    """

    __pydantic_config__: ClassVar["ConfigDict"] = _STRICT

    name: str
    sha256: str
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: Normalisation
    licence: str
    source: str
    split_seed: int
    validation_share: float
    image_size: int | None = None
    num_train: int | None = None

    def __post_init__(self) -> None:
        _check(
            _SHA256.fullmatch(self.sha256) is not None, "data.sha256", "64 hexadecimal digits", self.sha256
        )
        _check(len(self.class_names) >= 2, "data.class_names", "two names or more", self.class_names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number that was measured on real data, never predicted.

    Attributes:
        split: On which split.
        metric: Its name and, after `@`, its condition: `accuracy`, a share in [0, 1]; `ece`, the expected calibration error;
            `accuracy@noise=0.1`. See `nasgraph.modelzoo.facts`.
        value: Its value.
        num_examples: How many examples it is the mean of.
        batch_size: Examples per forward pass: the same size gives the same bits.
        protocol: How it was measured.
    """

    __pydantic_config__: ClassVar["ConfigDict"] = _STRICT

    split: SplitName
    metric: str
    value: float
    num_examples: int
    batch_size: int
    protocol: str

    def __post_init__(self) -> None:
        _check(
            math.isfinite(self.value), f"the {self.metric:.40} of {self.split}", "a finite number", self.value
        )
        _check(1 <= self.batch_size <= 2**20, "batch_size", "1 to 1,048,576", self.batch_size)
        _check(self.num_examples >= 1, "num_examples", "at least 1", self.num_examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFact:
    """A measured duration of one forward pass, with what it was measured on.

    Attributes:
        device: In torch's words, such as `cpu` or `cuda`.
        hardware: Name of the processor or accelerator.
        threads: Threads of the CPU that computed.
        batch_size: Examples per pass.
        dtype: Type of the numbers, such as `float32`.
        median_s: Median, in seconds per pass.
        low_s: Lower end of the median's 95 % interval, in seconds.
        high_s: Upper end, in seconds.
        protocol: How it was measured.
    """

    __pydantic_config__: ClassVar["ConfigDict"] = _STRICT

    device: str
    hardware: str
    threads: int
    batch_size: int
    dtype: str
    median_s: float
    low_s: float
    high_s: float
    protocol: str

    def __post_init__(self) -> None:
        times = (self.low_s, self.median_s, self.high_s)
        ordered = all(map(math.isfinite, times)) and 0 < times[0] <= times[1] <= times[2]
        _check(ordered, "latencies", "positive times with low_s <= median_s <= high_s", times)
        _check(min(self.threads, self.batch_size) >= 1, "latencies", "at least 1 thread and example", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a model came from. What is unknown or does not apply is empty.

    Attributes:
        origin: `search`: trained as the winner of a search; `training`: trained alone; `import`: from outside; `merge`: of
            other entries; `edit`: a changed copy of `parent`, as by pruning or growing.
        study: Name of the Optuna study.
        trial: Number of the trial.
        run_id: MLflow run of the trial.
        ghn: Name or hash of the graph hypernetwork that screened it or predicted its first weights.
        parent: Entry that it was made from, such as `name/3`.
        parent_fingerprint: Fingerprint of the architecture that it is compared with: the parent's or, of a search, that of
            the earlier trial whose choices differ least, if few do. Samplers do not say which trial they started from.
        parent_trial: Number of that trial.
        mutation: Choices that differ from that architecture's: name, before, after. An absent choice is empty.
        ingredients: Entries that were merged.
        note: Where an import is from, how a merge was made, or what an edit changed.
    """

    __pydantic_config__: ClassVar["ConfigDict"] = _STRICT

    origin: Origin = "search"
    study: str = ""
    trial: int | None = None
    run_id: str = ""
    ghn: str = ""
    parent: str = ""
    parent_fingerprint: str = ""
    parent_trial: int | None = None
    mutation: tuple[tuple[str, str, str], ...] = ()
    ingredients: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known about one model. Everything in it is a fact; nothing is claimed that was not measured.

    Attributes:
        name: Name of the entry; see `check_name`.
        task: In the words of the Hugging Face hub, such as `image-classification`.
        licence: Licence of the weights, an SPDX identifier where there is one.
        created: Day of creation, `2026-01-31`.
        data: What it was trained and measured on; None: unknown, as of a model from outside.
        measurements: Measured numbers.
        latencies: Measured durations.
        scores: Predicted or screened scores by name, beside which the measurements stand. Never accuracies of the model.
        training: Settings of the training by name.
        seed: Seed of the training.
        architecture: Search space and choices.
        fingerprint: Fingerprint of the graph.
        num_parameters: Elements of all parameter tensors.
        multiply_adds: Multiply-accumulate operations for one example.
        weights_sha256: Hash of `weights.safetensors`; empty in a draft, filled in when the entry is written.
        lineage: Where it came from.
        nasgraph_version: Version that trained it.
        torch_version: Version of torch that trained it.
        python_version: Version of Python that trained it.

    Raises:
        ZooError: If a value is out of its range.
    """

    __pydantic_config__: ClassVar["ConfigDict"] = _STRICT

    name: str
    task: str
    licence: str
    created: str
    data: DataFacts | None
    measurements: tuple[Measurement, ...] = ()
    latencies: tuple[LatencyFact, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    training: tuple[tuple[str, Choice], ...] = ()
    seed: int
    architecture: Architecture
    fingerprint: str
    num_parameters: int
    multiply_adds: int
    weights_sha256: str = ""
    lineage: Lineage = Lineage()
    nasgraph_version: str
    torch_version: str
    python_version: str

    def __post_init__(self) -> None:
        check_name(self.name)
        try:
            written_alike = date.fromisoformat(self.created).isoformat() == self.created
        except ValueError:
            written_alike = False
        _check(written_alike, "created", "a day such as '2026-01-31'", self.created)
        known = not self.weights_sha256 or _SHA256.fullmatch(self.weights_sha256) is not None
        _check(known, "weights_sha256", "64 hexadecimal digits", self.weights_sha256)
        known = re.fullmatch(r"\d+(\.\d+){1,2}\w*", self.python_version, re.ASCII) is not None
        _check(known, "python_version", "a version such as '3.11.7'", self.python_version)
        for name, score in self.scores:
            _check(math.isfinite(score), f"the score '{name:.40}'", "a finite number", score)
        unmeasurable = self.data is None and bool(self.measurements)
        _check(not unmeasurable, "data", "there, since the card has measurements", None)

    def measured(self, split: str, metric: str = "accuracy") -> Measurement | None:
        """The measurement of that metric on that split; None if there is none."""
        found = (m for m in self.measurements if m.split == split and m.metric == metric)
        return next(found, None)


def data_facts(dataset: DataSet, preparation: Preparation) -> DataFacts:
    """The facts about a prepared data set that a card keeps."""
    return DataFacts(
        name=dataset.name,
        sha256=dataset.sha256,
        input_shape=dataset.input_shape,
        class_names=dataset.class_names,
        normalisation=dataset.normalisation,
        licence=dataset.licence,
        source=dataset.source,
        **asdict(preparation),
    )


def draft_card(
    name: str,
    candidate: Candidate,
    data: DataFacts | None,
    *,
    created: str,
    licence: str,
    seed: int,
    task: str = "",
) -> ModelCard:
    """A card with everything that follows from the graph, the data and the installed versions.

    Complete it with `dataclasses.replace`: measurements, scores, training and lineage.

    Args:
        name: Name of the entry.
        candidate: Its architecture and graph.
        data: From `data_facts`; None if it is not known.
        created: Day of creation, `2026-01-31`.
        licence: Licence of the weights.
        seed: Seed of the training.
        task: In the words of the Hugging Face hub; empty: image or tabular classification, by the data's shape, and `other`
            without data.

    Raises:
        ZooError: If a value is out of its range.
    """
    cost = cost_of(candidate.graph)
    return ModelCard(
        name=name,
        task=task or _task_of(data),
        licence=licence,
        created=created,
        data=data,
        seed=seed,
        architecture=candidate.architecture,
        fingerprint=candidate.graph.fingerprint,
        num_parameters=cost.num_parameters,
        multiply_adds=cost.multiply_adds,
        nasgraph_version=version("nasgraph"),
        torch_version=version("torch"),
        python_version=platform.python_version(),
    )


def _task_of(data: DataFacts | None) -> str:
    if data is None:
        return "other"
    return "image-classification" if len(data.input_shape) == 3 else "tabular-classification"


_FIRST_LINEAGE = ("study", "trial", "run_id", "ghn")
"""What the first schema knew of a lineage."""


def card_to_json(card: ModelCard) -> str:
    """Canonical JSON text of a card. Reading it back gives an equal card.

    Raises:
        ZooError: If it is longer than 100,000 characters.
    """
    fields = {"schema": SCHEMA, "kind": "model", **asdict(card)}
    lineage = {name: fields["lineage"][name] for name in _FIRST_LINEAGE}
    if not card.latencies and card.data is not None and Lineage(**lineage) == card.lineage:
        del fields["latencies"]
        fields |= {"schema": FIRST_SCHEMA, "lineage": lineage}
    text = canonical_json(fields)
    if len(text) > MAX_CARD_CHARACTERS:
        raise ZooError(f"Expected a card of at most {MAX_CARD_CHARACTERS:,} characters (got {len(text):,})")
    return text


def card_from_json(text: str | bytes, *, source: str = "text") -> ModelCard:
    """Read and check a card that may come from a stranger. Unknown fields are refused.

    Raises:
        ZooError: If it is not JSON, or not a card of this schema. The message names the field.
    """
    return _read(lambda: parse_json(text, source=source), source)


def read_card(path: Path) -> ModelCard:
    """Read and check a card file. See `card_from_json` for errors."""
    return _read(lambda: read_json(path), f"'{path}'")


def _read(parse: Callable[[], object], source: str) -> ModelCard:
    from pydantic import ValidationError

    try:
        value = parse()
    except NasGraphError as error:
        raise ZooError(str(error)) from error
    schemas = (SCHEMA, FIRST_SCHEMA)
    if not isinstance(value, dict) or value.get("schema") not in schemas or value.get("kind") != "model":
        found = (value.get("schema"), value.get("kind")) if isinstance(value, dict) else type(value).__name__
        raise ZooError(
            f"Expected a card with schema '{SCHEMA}' and kind 'model' in {source} (got {found!r:.120})"
        )
    fields = {name: item for name, item in value.items() if name not in ("schema", "kind")}
    try:
        text = canonical_json(fields)
    except ValueError as error:  # `1e999` is JSON, but no number that a float can hold
        raise ZooError(f"The card in {source} has a number that is not finite") from error
    try:
        card = _adapter().validate_json(text.encode("utf-8", "surrogatepass"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ZooError(f"The card in {source} is wrong at '{place:.120}': {first['msg']:.300}") from error
    if len(text) > MAX_CARD_CHARACTERS:
        raise ZooError(f"Expected a card of at most {MAX_CARD_CHARACTERS:,} characters (got {len(text):,})")
    return card


@cache
def _adapter() -> "TypeAdapter[ModelCard]":
    from pydantic import TypeAdapter

    return TypeAdapter(ModelCard)


def _check(ok: bool, field: str, expected: str, got: object) -> None:
    if not ok:
        raise ZooError(f"Expected '{field}' to be {expected} (got {got!r:.100})")
