"""Rankings of models for a data set: cheap ones that compare stored vectors, dear ones that run every model, and both in turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nasgraph.errors import CandidateError, ConfigError, DataError, UnknownNameError
from nasgraph.retrieve.behaviour.alignment import Alignment
from nasgraph.retrieve.behaviour.baselines import leep, linear_probe, log_me
from nasgraph.retrieve.behaviour.data_side import DataDescription, describe_data
from nasgraph.retrieve.behaviour.records import Candidate, QueryData, outputs_of
from nasgraph.seeding import derive_seed

Method = Literal["two-stage", "linear-probe", "logme", "leep", "know2vec", "nearest-mean", "random"]
Reads = Literal["usual", "outputs", "features"]
METHODS: tuple[str, ...] = get_args(Method)
"""Every method by name: the default first."""
RUN_METHODS = ("linear-probe", "logme", "leep")
"""The methods that run every model."""


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """How a ranking is made.

    Attributes:
        num_probed: Candidates that "two-stage" runs: the nearest by what is stored of them, and all of which nothing is stored. Also the
            number up to which it runs all.
        measure: What "two-stage" runs on them: "linear-probe", "logme" or "leep".
        reads: What is measured: a model's "outputs" (its logits), its "features" (what its last layer reads, where that can be had), or what is
            "usual" for the measure: the features for LogME, the outputs for the others. So it was best in `benchmarks/zoo/model_retrieval.py`.
            LEEP is about class probabilities and always reads outputs.
        seed: Decides the order of "random".

    Raises:
        ConfigError: If `num_probed` is below 1, or a name is not known.
    """

    num_probed: int = 36
    measure: str = "linear-probe"
    reads: Reads = "usual"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_probed < 1:
            raise ConfigError(f"Expected 'num_probed' of at least 1 (got {self.num_probed})")
        for name, known in (("measure", RUN_METHODS), ("reads", get_args(Reads))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"Expected '{name}' to be one of {', '.join(known)} (got '{getattr(self, name)}')"
                )


@dataclass(frozen=True, slots=True)
class RankedModel:
    """One candidate's place.

    Attributes:
        reference: Which candidate.
        score: Higher is better; compare only scores of one `method`, for one query. None: the candidate could not be judged.
        method: What the score is of; "two-stage" says which of its stages.
        seconds: Wall time that was spent on this candidate alone.
        reason: Why it stands here, or what went wrong, in words.
    """

    reference: str
    score: float | None
    method: str
    seconds: float
    reason: str

    @property
    def failed(self) -> bool:
        """Whether the candidate could not be judged."""
        return self.score is None


def rank_models(
    candidates: Sequence[Candidate],
    query: QueryData,
    *,
    method: str = "two-stage",
    alignment: Alignment | None = None,
    config: RankConfig | None = None,
) -> tuple[RankedModel, ...]:
    """Order candidates by how well they promise to fit a data set after fine-tuning, the best first.

    Every candidate is in the answer once. One that fails (inputs that cannot be converted, an exception, NaN, no vector) stands at the end with
    the reason, and does not stop the others. Equal scores are ordered by reference. Deterministic but for `seconds`.

    - "linear-probe", "logme", "leep" run every candidate on the query;
    - "know2vec" compares stored vectors with that of the query, "nearest-mean" stored means of training images: no model is run;
    - "two-stage" runs the candidates that are nearest by "know2vec", or by "nearest-mean" without an alignment; the others
      follow in that order;
    - "random" is for comparison.

    Args:
        candidates: Models with distinct references.
        query: Labelled examples.
        method: One of `METHODS`.
        alignment: What the vectors are from; "know2vec" needs it.
        config: Settings; None: the defaults.

    Raises:
        UnknownNameError: If there is no such method.
        ConfigError: If two candidates have one reference, or "know2vec" has no alignment.
        DataError: If a method that compares images gets a table.
    """
    config = config or RankConfig()
    if method not in METHODS:
        raise UnknownNameError("ranking method", method, METHODS)
    references = [candidate.reference for candidate in candidates]
    if len(set(references)) != len(references):
        twice = next(name for name in references if references.count(name) > 1)
        raise ConfigError(f"Expected candidates of distinct references (got '{twice}' twice)")
    if method == "two-stage":
        return _two_stage(candidates, query, alignment, config)
    if method in _MEASURES:
        return _ordered([_run(candidate, query, method, config) for candidate in candidates])
    if method == "random":
        return _ordered([_at_random(candidate, config.seed) for candidate in candidates])
    if method == "know2vec" and alignment is None:
        raise ConfigError(
            "The method 'know2vec' needs an alignment: train one with 'train_alignment', or load one"
        )
    return _by_description(candidates, _description(query), method, alignment)


def _ordered(ranked: Sequence[RankedModel]) -> tuple[RankedModel, ...]:
    return tuple(sorted(ranked, key=lambda each: (each.failed, -(each.score or 0.0), each.reference)))


def _description(query: QueryData) -> DataDescription:
    try:
        return describe_data(query)
    except CandidateError as error:
        raise DataError(f"The query cannot be described: {error}") from error


# ---- methods that run the models


def _log_me(outputs: Tensor, labels: Tensor) -> tuple[float, str]:
    value = log_me(outputs, labels)
    return value, f"log evidence {value:.3f} per example"


def _leep(outputs: Tensor, labels: Tensor) -> tuple[float, str]:
    value = leep(outputs, labels)
    return value, f"expected log likelihood {value:.3f} per example"


def _linear_probe(outputs: Tensor, labels: Tensor) -> tuple[float, str]:
    probe = linear_probe(outputs, labels)
    right = round(probe.accuracy * len(labels))
    return -probe.error, f"a linear probe gets {right} of {len(labels)} right, each left out once"


_MEASURES: Mapping[str, Callable[[Tensor, Tensor], tuple[float, str]]] = {
    "linear-probe": _linear_probe,
    "logme": _log_me,
    "leep": _leep,
}


def _run(candidate: Candidate, query: QueryData, method: str, config: RankConfig) -> RankedModel:
    started = time.perf_counter()
    usual = config.reads == "usual" and method == "logme"
    wants_features = method != "leep" and (usual or config.reads == "features")
    try:
        outputs = outputs_of(candidate, query.inputs, features=wants_features)
        score, reason = _MEASURES[method](outputs, query.labels)
    except CandidateError as error:
        return RankedModel(candidate.reference, None, method, time.perf_counter() - started, str(error))
    return RankedModel(candidate.reference, score, method, time.perf_counter() - started, reason)


# ---- methods that compare what is stored


def _by_description(
    candidates: Sequence[Candidate], description: DataDescription, method: str, alignment: Alignment | None
) -> tuple[RankedModel, ...]:
    if method == "nearest-mean":
        mean = torch.tensor(description.mean, dtype=torch.float64)
        return _ordered([_nearest_mean(candidate, mean) for candidate in candidates])
    assert alignment is not None
    vector = torch.tensor(alignment.data_vector(description), dtype=torch.float64)
    digest = alignment.digest
    return _ordered([_know2vec(candidate, vector, digest) for candidate in candidates])


def _nearest_mean(candidate: Candidate, mean: Tensor) -> RankedModel:
    if candidate.data_mean is None:
        reason = f"the mean of the training images of '{candidate.reference}' is not known"
        return RankedModel(candidate.reference, None, "nearest-mean", 0.0, reason)
    own = torch.tensor(candidate.data_mean, dtype=torch.float64)
    if own.shape != mean.shape:
        reason = f"the stored mean has {len(own)} numbers, the query's {len(mean)}"
        return RankedModel(candidate.reference, None, "nearest-mean", 0.0, reason)
    distance = float(torch.linalg.vector_norm(own - mean))
    return RankedModel(
        candidate.reference,
        -distance,
        "nearest-mean",
        0.0,
        f"distance {distance:.3f} between the mean images",
    )


def _know2vec(candidate: Candidate, vector: Tensor, digest: str) -> RankedModel:
    name = candidate.reference
    if candidate.vector is None:
        return RankedModel(name, None, "know2vec", 0.0, f"'{name}' has no vector: describe it first")
    if candidate.encoder != digest or len(candidate.vector) != len(vector):
        reason = f"the vector of '{name}' is from another encoder ({candidate.encoder[:12] or 'unnamed'}): describe it anew"
        return RankedModel(name, None, "know2vec", 0.0, reason)
    cosine = float(torch.tensor(candidate.vector, dtype=torch.float64) @ vector)
    return RankedModel(name, cosine, "know2vec", 0.0, f"cosine {cosine:.3f} between behaviour and data")


def _at_random(candidate: Candidate, seed: int) -> RankedModel:
    score = derive_seed(seed, "random ranking", candidate.reference) / 2**63
    return RankedModel(candidate.reference, score, "random", 0.0, "drawn at random")


# ---- both in turn


def _two_stage(
    candidates: Sequence[Candidate], query: QueryData, alignment: Alignment | None, config: RankConfig
) -> tuple[RankedModel, ...]:
    by_name = {candidate.reference: candidate for candidate in candidates}
    first: tuple[RankedModel, ...] = ()
    if len(candidates) > config.num_probed and query.inputs.ndim == 4:
        stored = "nearest-mean" if alignment is None else "know2vec"
        first = _by_description(candidates, _description(query), stored, alignment)
    placed = [each for each in first if not each.failed]
    waiting = placed[config.num_probed :]
    skipped = {each.reference for each in waiting}
    run = [_run(by_name[name], query, config.measure, config) for name in by_name if name not in skipped]
    after = [
        RankedModel(
            each.reference,
            each.score,
            each.method,
            each.seconds,
            f"not run: place {config.num_probed + place + 1} by {each.method}, {each.reason}",
        )
        for place, each in enumerate(waiting)
    ]
    ranked = _ordered(run)
    judged = [each for each in ranked if not each.failed]
    return (*judged, *after, *(each for each in ranked if each.failed))
