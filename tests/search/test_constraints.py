"""Hard constraints on graphs."""

import math
import pickle

import pytest

from nasgraph.errors import ConfigError, NasGraphError, UnknownNameError
from nasgraph.evaluate.costs import GRAPH_COSTS, GraphCosts
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.search.constraints import (
    Constraint,
    Constraints,
    Refusals,
    UnsatisfiableError,
    parse_constraint,
    parse_constraints,
    sample_admitted,
)
from nasgraph.search.experience import Experience
from nasgraph.spaces import Chooser, SearchSpace, enumerate_candidates
from tests.search.toys import Chain


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("num_parameters<=1e6", Constraint("num_parameters", "<=", 1e6)),
        ("multiply_adds < 200M", Constraint("multiply_adds", "<", 2e8)),
        (" depth>=4 ", Constraint("depth", ">=", 4)),
        ("memory_bytes>1.5k", Constraint("memory_bytes", ">", 1500)),
        ("latency:pixel 3<=5", None),
        ("latency:pixel3<=5", Constraint("latency:pixel3", "<=", 5)),
        ("x<=-3.5", Constraint("x", "<=", -3.5)),
        ("flops<2T", Constraint("flops", "<", 2e12)),
    ],
)
def test_a_constraint_is_read_and_written_back(text: str, constraint: Constraint | None) -> None:
    if constraint is None:
        with pytest.raises(ConfigError, match="Expected a constraint such as"):
            parse_constraint(text)
        return
    assert parse_constraint(text) == constraint
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    "text", ["", "depth", "depth=4", "depth<=", "<=4", "depth<=4<=5", "depth<=four", "depth<=4m", "a<=1 b<=2"]
)
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Expected a constraint such as"):
        parse_constraint(text)


@pytest.mark.parametrize("text", ["depth<=inf", "depth<nan"])
def test_a_bound_is_finite(text: str) -> None:
    with pytest.raises(ConfigError, match="finite bound on 'depth'"):
        parse_constraint(text)


def test_a_cost_that_nobody_knows_is_refused_at_the_start() -> None:
    with pytest.raises(UnknownNameError, match="Close: 'num_parameters'"):
        parse_constraints("num_params<=5")
    with pytest.raises(UnknownNameError, match="predictor or a table"):
        parse_constraints("latency:pixel3<=5")


@pytest.mark.parametrize("text", ["depth<=3,depth>=4", "depth<3,depth>=3", "depth>3,depth<=3,num_nodes<9"])
def test_contradictory_bounds_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="contradict each other: 'depth>"):
        parse_constraints(text)
    assert parse_constraints("depth<=3,depth>=3")


def test_exactly_the_graphs_that_keep_all_bounds_are_admitted() -> None:
    constraints = parse_constraints("num_parameters<=30,depth>=5")
    admitted = 0
    for candidate in enumerate_candidates(Chain(num_layers=2)):
        cost = cost_of(candidate.graph)
        expected = cost.num_parameters <= 30 and cost.depth >= 5
        assert constraints(candidate.graph) is expected
        assert (constraints.violations(candidate.graph) == ()) is expected
        admitted += expected
    assert 0 < admitted < 256


def test_constraints_serve_as_what_an_experience_admits() -> None:
    space, constraints = Chain(), parse_constraints(["depth<=4"])
    experience = Experience(space, admits=constraints)
    shallow = next(c.graph for c in enumerate_candidates(space) if cost_of(c.graph).depth <= 4)
    deep = next(c.graph for c in enumerate_candidates(space) if cost_of(c.graph).depth > 4)
    assert experience.is_new(shallow)
    assert not experience.is_new(deep)


def test_the_message_says_what_is_violated_and_by_how_much() -> None:
    graph = next(c.graph for c in enumerate_candidates(Chain()) if cost_of(c.graph).depth == 5)
    constraints = parse_constraints("depth<=4,num_parameters<1e9,num_nodes>40")
    with pytest.raises(UnsatisfiableError, match=r"breaks 2 constraints: depth is 5, not <= 4; num_nodes is"):
        constraints.check(graph)
    parse_constraints("depth<=5").check(graph)


def test_a_dear_source_is_asked_only_for_graphs_that_pass_the_cheap_bounds() -> None:
    asked: list[ComputationalGraph] = []

    def source(graphs):  # type: ignore[no-untyped-def]
        asked.extend(graphs)
        return [1.0 for _ in graphs]

    constraints = parse_constraints("latency:x<=2,depth<=4", costs=GraphCosts({"latency:x": source}))
    candidates = list(enumerate_candidates(Chain(num_layers=2)))
    admitted = [constraints(c.graph) for c in candidates]
    assert len(asked) == sum(admitted) < len(candidates)


def test_a_cost_that_is_not_known_keeps_no_bound() -> None:
    costs = GraphCosts({"latency:x": lambda graphs: [math.nan for _ in graphs]})
    graph = next(enumerate_candidates(Chain())).graph
    for text in ("latency:x<=2", "latency:x>2"):
        assert not parse_constraints(text, costs=costs)(graph)


# ---- when nothing fits


def test_an_unsatisfiable_set_ends_with_the_constraint_that_refused_most_and_the_nearest_value() -> None:
    space = Chain(num_layers=2)
    least = min(GRAPH_COSTS["num_parameters"](c.graph) for c in enumerate_candidates(space))
    constraints = parse_constraints("num_parameters<=10,depth<=4")
    with pytest.raises(UnsatisfiableError) as raised:
        sample_admitted(space, constraints, seed=0, max_draws=400)
    text = str(raised.value)
    assert text.startswith("None of 400 random candidates of the space 'chain' keeps the constraints.")
    assert "'num_parameters <= 10' (400 of 400)" in text
    assert f"the smallest value seen was {least:g}" in text


def test_for_a_lower_bound_the_largest_value_is_named() -> None:
    with pytest.raises(UnsatisfiableError, match="the largest value seen was 8"):
        sample_admitted(Chain(), parse_constraints("depth>=40"), seed=0, max_draws=300)


def test_a_sample_keeps_the_constraints_is_new_and_repeats_itself() -> None:
    space, constraints = Chain(), parse_constraints("num_parameters<=40,depth>=5")
    known: set[str] = set()
    for number in range(30):
        first = sample_admitted(space, constraints, seed=3, labels=("round", number), known=known)
        again = sample_admitted(space, constraints, seed=3, labels=("round", number), known=known)
        assert first is not None
        assert first == again
        assert constraints(first.graph)
        assert first.graph.fingerprint not in known
        known.add(first.graph.fingerprint)


def test_a_space_whose_admitted_graphs_are_all_known_gives_nothing() -> None:
    space, constraints = Chain(num_layers=1), parse_constraints("depth<=3")
    known = {c.graph.fingerprint for c in enumerate_candidates(space)}
    assert sample_admitted(space, constraints, seed=0, known=known, max_draws=100) is None


def test_a_single_element_is_found() -> None:
    space = Chain(num_layers=1, widths=1)
    candidate = sample_admitted(space, parse_constraints("num_nodes<=2"), seed=0)
    assert candidate is not None
    assert len(candidate.graph) == 2


class Broken(SearchSpace):
    @property
    def name(self) -> str:
        return "broken"

    def build(self, choose: Chooser) -> ComputationalGraph:
        from nasgraph.errors import InvalidGraphError

        raise InvalidGraphError("no graph today")


def test_a_space_without_valid_graphs_is_not_blamed_on_the_constraints() -> None:
    space = Broken(input_shape=(1,), num_classes=2)
    with pytest.raises(NasGraphError, match="gives no valid graph: no graph today"):
        sample_admitted(space, parse_constraints("depth<=3"), seed=0, max_draws=5)
    assert "gave no graph to check" in str(Refusals(Constraints()).error(space))


def test_constraints_on_graph_costs_travel_between_processes() -> None:
    constraints = parse_constraints("depth<=4,num_parameters<1k")
    assert pickle.loads(pickle.dumps(constraints)) == constraints
