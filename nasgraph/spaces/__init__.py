"""Search spaces (choices to graph) and the choosers that sample, replay, change and enumerate them."""

from nasgraph.spaces.around import AroundConfig, AroundGraph
from nasgraph.spaces.choosers import (
    ReplayChooser,
    SamplingChooser,
    crossover,
    enumerate_candidates,
    mutate,
    neighbours,
    replay,
    sample,
)
from nasgraph.spaces.grammar import Derivation, Grammar, Rule
from nasgraph.spaces.grow import GrownOptions, GrownSpace, grow
from nasgraph.spaces.registry import load_space, space_names
from nasgraph.spaces.space import (
    Architecture,
    Candidate,
    Choice,
    Chooser,
    Question,
    SearchSpace,
    architecture_from_json,
    realise,
)

__all__ = [
    "Architecture",
    "AroundConfig",
    "AroundGraph",
    "Candidate",
    "Choice",
    "Chooser",
    "Derivation",
    "Grammar",
    "GrownOptions",
    "GrownSpace",
    "Question",
    "ReplayChooser",
    "Rule",
    "SamplingChooser",
    "SearchSpace",
    "architecture_from_json",
    "crossover",
    "enumerate_candidates",
    "grow",
    "load_space",
    "mutate",
    "neighbours",
    "realise",
    "replay",
    "sample",
    "space_names",
]
