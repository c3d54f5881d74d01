"""The report of real searches says what the studies hold, and compares only what can be compared."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nasgraph.draw.report import Figure, Grid, Report, to_html, to_markdown
from nasgraph.evaluate.checklist import QUESTIONS
from nasgraph.search import StudyError
from nasgraph.search.snapshot import StudyView, TrialView
from nasgraph.search.study_report import StudyGroup, study_report

TRIAL = TrialView(
    number=0, state="complete", values=(0.5,), metrics={"val_accuracy": 0.5}, reason="", seconds=2.0, started=10.0, ended=12.0,
    worker="host:1", is_orphan=False, architecture="{}",
)  # fmt: skip


def study(
    seed: int, *values: float | None, space: str = "mlp", name: str = "", higher: bool = True
) -> StudyView:
    """A study whose trials took two seconds each; None stands for a trial that failed."""
    trials = tuple(
        replace(TRIAL, number=n, values=(value,), metrics={"score": value}, ended=10.0 + n)
        if value is not None
        else replace(TRIAL, number=n, state="failed", values=(), metrics={}, reason="boom", ended=10.0 + n)
        for n, value in enumerate(values)
    )
    return StudyView(
        study=name or f"study-{seed}", space=space, data="digits 1234", seed=seed, objectives=(("score", higher),), trials=trials,
        num_duplicates=1,
    )  # fmt: skip


SETTINGS = {"sampler": "tpe", "training": "epochs 5"}
MINE = StudyGroup(label="tpe", views=(study(0, 0.2, 0.6, 0.4), study(1, 0.3, None, 0.8)), settings=SETTINGS)
PLAIN = StudyGroup(
    label="random search", views=(study(0, 0.1, 0.2, 0.3), study(1, 0.4, 0.5, 0.3)), is_random=True, settings=SETTINGS
)  # fmt: skip


def made(*groups: StudyGroup) -> Report:
    return study_report(groups, command="nasgraph report", facts={"hardware": "a cpu"})


def grid(report: Report, title: str) -> Grid:
    return next(
        block
        for section in report.sections
        if section.title == title
        for block in section.blocks
        if isinstance(block, Grid)
    )


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.removesuffix(" %").split(" ± ")]


def test_means_and_spreads_are_those_of_the_studies() -> None:
    first, second = grid(made(MINE, PLAIN), "Strategies").rows
    assert numbers(first[2]) == pytest.approx([np.mean([0.6, 0.8]), np.std([0.6, 0.8], ddof=1)], abs=0.01)
    average = np.mean([0.1, 0.2, 0.3, 0.4, 0.5, 0.3])
    gains = [100 * (best - average) / average for best in (0.6, 0.8)]
    assert numbers(first[3]) == pytest.approx([np.mean(gains), np.std(gains, ddof=1)], rel=0.02)
    assert first[5] == "1"  # failed
    assert numbers(first[7])[0] == pytest.approx(6.0)
    assert second[0] == "random search"


def test_the_best_so_far_is_shown_by_trials_and_by_time_with_every_strategy() -> None:
    report = made(MINE, PLAIN)
    figures = {block.name: block for block in report.sections[0].blocks if isinstance(block, Figure)}
    assert list(figures) == ["trials", "time", "values"]
    for figure in figures.values():
        assert "tpe" in figure.svg
        assert "random search" in figure.svg
    spoken = figures["trials"].svg.partition('aria-label="')[2].partition('"')[0]
    assert (
        spoken
        == "Best so far, by trials: tpe (2 seeds, mean ± std) ends at 0.7; random search (2 seeds, mean ± std) ends at 0.4"
    )
    assert "<svg" in to_html(report)
    assert "time.svg" in to_markdown(report, lambda figure: f"{figure.name}.svg")


def test_studies_of_unequal_length_are_compared_as_far_as_all_have_got() -> None:
    group = StudyGroup(label="uneven", views=(study(0, 0.1, 0.5, 0.9), study(1, 0.2)))
    spoken = to_html(made(group)).partition('aria-label="')[2].partition('"')[0]
    assert "ends at 0.15" in spoken


def test_without_random_search_there_is_no_relative_improvement() -> None:
    report = made(MINE)
    assert dict(report.tiles)["relative improvement over the average architecture"] == "-"
    text = to_markdown(report, lambda figure: figure.name)
    assert "no average architecture to compare with" in text
    assert _answers(report)["random_search"] == "no"


def test_every_question_of_the_checklist_is_answered_by_what_is_there() -> None:
    said = _answers(made(MINE, PLAIN))
    assert set(said) == set(QUESTIONS)
    assert [name for name, answer in said.items() if answer == "no"] == [
        "confounders",
        "ablations",
        "tabular",
        "tuning",
        "end_to_end",
    ]
    other = replace(PLAIN, settings={"sampler": "random", "training": "epochs 9"})
    assert _answers(made(MINE, other))["same_benchmark"] == "no"
    bare = StudyGroup(label="bare", views=(study(0, 0.5),))
    said = _answers(made(bare))
    assert [said[name] for name in ("method_code", "setup", "several_runs")] == ["no"] * 3


def _answers(report: Report) -> dict[str, str]:
    return {name: row[2] for name, row in zip(QUESTIONS, grid(report, "Checklist").rows, strict=True)}


def test_one_study_of_failures_is_a_report_too() -> None:
    report = made(StudyGroup(label="bad luck", views=(study(0, None, None),)))
    assert "-" in dict(report.tiles).values()
    assert not math.isnan(len(to_html(report)))


def test_lower_is_better_where_the_objective_says_so() -> None:
    group = StudyGroup(label="latency", views=(study(0, 3.0, 1.0, 2.0, higher=False),))
    assert grid(made(group), "Studies").rows[0][3:5] == ("1", "2")


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ((), "one to 6 strategies"),
        ((MINE, MINE), "different names"),
        (
            (MINE, StudyGroup(label="b", views=(study(0, 0.5, space="vit"),))),
            "has space 'mlp', 'study-0' has 'vit'",
        ),
        ((StudyGroup(label="empty", views=(study(0),)),), "no finished trial yet"),
    ],
)
def test_what_cannot_be_compared_is_refused(groups: tuple[StudyGroup, ...], reason: str) -> None:
    with pytest.raises(StudyError, match=reason):
        made(*groups)
