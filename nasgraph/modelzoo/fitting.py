"""Which models of the zoo fit a data set: every model as a candidate of `nasgraph.retrieve.behaviour`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nasgraph.errors import NasGraphError, UnknownNameError
from nasgraph.modelzoo.catalogue import Row
from nasgraph.modelzoo.entry import ZooEntry
from nasgraph.retrieve.behaviour import (
    Candidate,
    QueryData,
    RankConfig,
    RankedModel,
    candidate_from_graph,
    rank_models,
)

if TYPE_CHECKING:
    from nasgraph.modelzoo.store import Zoo

MAX_TRIED = 300
"""Models that are loaded and run for one question: the most accurate ones."""
DEFAULT_METHOD = "linear-probe"
FIT_METHODS = ("linear-probe", "logme", "leep")
"""Methods that need nothing but the model. Those that compare stored vectors need an alignment trained on the zoo."""


def rank_for_data(
    zoo: "Zoo",
    rows: Sequence[Row],
    query: QueryData,
    *,
    method: str = DEFAULT_METHOD,
    config: RankConfig | None = None,
) -> tuple[RankedModel, ...]:
    """Models by how well they promise to fit a data set, the best first.

    Models that cannot be read, or run on these inputs, stand last, with the reason. Of more than 300 models the 300 most accurate are
    tried.

    Args:
        zoo: The zoo.
        rows: Entries to choose from; what is no model is left out.
        query: Labelled examples.
        method: A method that runs every model: "linear-probe", "logme" or "leep"; see `nasgraph.retrieve.behaviour`.
        config: Settings.

    Raises:
        UnknownNameError: If there is no such method.
    """
    if method not in FIT_METHODS:
        raise UnknownNameError("method that judges models", method, FIT_METHODS)
    models = sorted(
        (row for row in rows if row.card is not None), key=lambda row: (-(row.accuracy or 0.0), row.name)
    )
    ranked: list[RankedModel] = []
    for row in models[:MAX_TRIED]:  # one at a time: a zoo's weights need not fit into memory together
        try:
            candidate = _candidate(row.reference, zoo.load(row.reference))
        except NasGraphError as error:
            ranked.append(RankedModel(row.reference, None, method, 0.0, str(error)))
        else:
            ranked += rank_models([candidate], query, method=method, config=config)
    return tuple(sorted(ranked, key=lambda one: (one.failed, -(one.score or 0.0), one.reference)))


def _candidate(reference: str, entry: ZooEntry) -> Candidate:
    """Inputs are normalised by the query's own mean and deviation, as preparing it would: a card's constants are in the units of
    the model's data, such as 0 to 16 in bytes."""
    return candidate_from_graph(reference, entry.graph, dict(entry.state), normalisation=None)
