"""The report of a search protocol says what the protocol found, and answers every question of the checklist truthfully."""

import numpy as np
import pytest

from nasgraph.draw.report import Code, Figure, Grid, Report, to_html, to_markdown
from nasgraph.evaluate.checklist import QUESTIONS, Answer, filled_checklist
from nasgraph.evaluate.search_report import search_report
from nasgraph.evaluate.table import Metric, Table, TableInfo, make_table
from nasgraph.evaluate.table_search import SearchProtocolConfig, SearchProtocolResult, run_search_protocol
from nasgraph.evaluate.table_strategies import load_strategy
from nasgraph.ir import GraphBuilder

ROWS = 40


@pytest.fixture(scope="module")
def table() -> Table:
    """Rows whose accuracy and error follow their width."""
    rng = np.random.default_rng(0)
    graphs = []
    for width in range(1, ROWS + 1):
        graph = GraphBuilder()
        graphs.append(graph.finish(graph("linear", graph("input", shape=(4,)), out_features=width)))
    accuracy = np.sort(rng.normal(70, 5, ROWS)).astype(np.float32)
    info = TableInfo(
        name="widths",
        metrics=(
            Metric(name="accuracy", higher_is_better=True, unit="percent", protocol="made up"),
            Metric(name="error", higher_is_better=False),
        ),
        source="a test",
        train_metric="accuracy",
        test_metric="accuracy",
    )
    return make_table(graphs, {"accuracy": accuracy, "error": 100 - accuracy}, info)


def result_of(
    table: Table, *, seeds: int = 3, metric: str = ""
) -> tuple[SearchProtocolResult, SearchProtocolConfig]:
    config = SearchProtocolConfig(num_queries=12, seeds=tuple(range(seeds)), query_metric=metric)
    return run_search_protocol(table, load_strategy("evolution"), config), config


def report_of(table: Table, *, seeds: int = 3, metric: str = "", strategy: str = "evolution") -> Report:
    result, config = result_of(table, seeds=seeds, metric=metric)
    return search_report(
        strategy, result, table=table, config=config, command="nasgraph bench search --table widths", facts={"hardware": "a cpu"}
    )  # fmt: skip


def grids(report: Report) -> dict[str, Grid]:
    return {
        section.title: block
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Grid)
    }


def facts_of(report: Report) -> dict[str, str]:
    return {row[0]: row[1] for row in grids(report)["Set-up"].rows}


def answers(report: Report) -> dict[str, str]:
    return {name: row[2] for name, row in zip(QUESTIONS, grids(report)["Checklist"].rows, strict=True)}


def test_the_report_shows_what_the_protocol_measured(table: Table) -> None:
    result, _ = result_of(table)
    found = grids(report_of(table))
    last = found["Best so far"].rows[-1]
    assert last[0] == "12"
    assert float(last[1].split(" ± ")[0]) == pytest.approx(result.summary.best_so_far[-1], abs=0.05)
    assert float(last[3].split(" ± ")[0]) == pytest.approx(result.random_summary.best_so_far[-1], abs=0.05)
    seeds = found["Seeds"]
    assert [row[0] for row in seeds.rows] == ["0", "1", "2"]
    assert [float(row[1]) for row in seeds.rows] == pytest.approx(
        [run.best_so_far[-1] for run in result.runs]
    )
    setup = facts_of(report_of(table))
    assert setup["hardware"] == "a cpu"
    assert table.sha256 in setup["table"]
    assert setup["seeds"] == "0 to 2"


def test_it_has_four_figures_with_random_search_in_each_and_the_command(table: Table) -> None:
    report = report_of(table)
    figures = [block for section in report.sections for block in section.blocks if isinstance(block, Figure)]
    assert [figure.name for figure in figures] == ["best", "report", "distance", "found"]
    assert all("random search" in figure.svg and "evolution" in figure.svg for figure in figures)
    codes = [block.text for section in report.sections for block in section.blocks if isinstance(block, Code)]
    assert codes == ["nasgraph bench search --table widths"]
    assert "<svg" in to_html(report)
    assert "found.svg" in to_markdown(report, lambda figure: f"{figure.name}.svg")


def test_every_question_of_the_checklist_is_answered_and_what_was_not_done_is_no(table: Table) -> None:
    said = answers(report_of(table))
    assert set(said.values()) == {"yes", "no"}
    assert all(
        said[name] == "no" for name in ("training_code", "space_code", "ablations", "tuning", "end_to_end")
    )
    assert all(said[name] == "yes" for name in ("random_search", "same_benchmark", "several_runs", "tabular"))
    assert said["method_code"] == "yes"


def test_answers_follow_the_run(table: Table) -> None:
    assert answers(report_of(table, seeds=1))["several_runs"] == "no"
    assert answers(report_of(table, strategy="somebodys-plugin"))["method_code"] == "no"


def test_one_seed_has_no_spread_and_the_report_says_so(table: Table) -> None:
    report = report_of(table, seeds=1)
    assert "±" not in " ".join(value for _, value in report.tiles)
    assert "take more for any claim" in to_markdown(report, lambda figure: figure.name)


def test_lower_is_better_is_drawn_the_right_way_round(table: Table) -> None:
    report = report_of(table, metric="error")
    setup = facts_of(report)
    assert setup["query metric"].startswith("error (lower is better)")
    best = [float(row[1].split(" ± ")[0]) for row in grids(report)["Best so far"].rows]
    assert best == sorted(best, reverse=True)


def test_an_incomplete_checklist_is_refused() -> None:
    with pytest.raises(ValueError, match="one answer to each question"):
        filled_checklist({"tabular": Answer(yes=True, where="here")})
