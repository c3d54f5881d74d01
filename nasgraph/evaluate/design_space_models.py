"""Random networks of a design space, with what they cost and their error: the members of a population."""

from collections.abc import Mapping
from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.files import Json
from nasgraph.ir import cost_of
from nasgraph.spaces import Candidate, Choice, architecture_from_json

COSTS = ("num_parameters", "multiply_adds", "depth")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledModel:
    """One random network of a population, and its error.

    Attributes:
        population: Name of the space, or of the table.
        index: Its place among those drawn.
        fingerprint: Of its graph.
        choices: Its choices; empty if they are not known.
        costs: Its costs by the names of `COSTS`.
        error: What was measured, lower is better; None if it could not be.
        reason: Why not.
    """

    population: str
    index: int
    fingerprint: str
    choices: tuple[tuple[str, Choice], ...]
    costs: Mapping[str, int]
    error: float | None
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """As JSON values; `model_from_json` reads them back equal."""
        return {
            "population": self.population,
            "index": self.index,
            "fingerprint": self.fingerprint,
            "choices": [list(choice) for choice in self.choices],
            "costs": dict(self.costs),
            "error": self.error,
            "reason": self.reason,
        }


def model_of(
    candidate: Candidate, *, index: int, error: float | None = None, reason: str = ""
) -> SampledModel:
    """A candidate of a search space as a member of a population."""
    cost = cost_of(candidate.graph)
    return SampledModel(
        population=candidate.architecture.space,
        index=index,
        fingerprint=candidate.graph.fingerprint,
        choices=candidate.architecture.choices,
        costs={name: getattr(cost, name) for name in COSTS},
        error=error,
        reason=reason,
    )


def model_from_json(value: Json) -> SampledModel:
    """The model that parsed JSON describes.

    Raises:
        NasGraphError: If it has another form.
    """
    if not isinstance(value, dict) or set(value) != set(SampledModel.__slots__):
        raise NasGraphError(f"Expected a model with the fields {', '.join(SampledModel.__slots__)}")
    population, index, costs, error = (value[name] for name in ("population", "index", "costs", "error"))
    if not isinstance(population, str) or not isinstance(index, int) or not isinstance(costs, dict):
        raise NasGraphError(
            "Expected 'population' to be text, 'index' an integer and 'costs' numbers by name"
        )
    if not all(isinstance(number, int) for number in costs.values()) or set(costs) != set(COSTS):
        raise NasGraphError(f"Expected 'costs' to be the integers {', '.join(COSTS)}")
    if not (error is None or isinstance(error, int | float)):
        raise NasGraphError("Expected 'error' to be a number or null")
    architecture = architecture_from_json({"space": population, "choices": value["choices"]})
    return SampledModel(
        population=population,
        index=index,
        fingerprint=str(value["fingerprint"]),
        choices=architecture.choices,
        costs={name: int(str(number)) for name, number in costs.items()},
        error=None if error is None else float(error),
        reason=str(value["reason"]),
    )
