"""Several real searches as one report: best so far over seeds, what it cost, and the checklist of Lindauer and Hutter (2020)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nasgraph.draw.chart import Chart, Line, draw_chart
from nasgraph.draw.report import Code, Figure, Grid, Report, Section, spread_text
from nasgraph.evaluate.checklist import Answer, filled_checklist
from nasgraph.search.records import StudyError
from nasgraph.search.snapshot import StudyView, TrialView
from nasgraph.spaces import space_names

MAX_GROUPS = 6
TIME_POINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyGroup:
    """Studies that differ in their seed only.

    Attributes:
        label: Their strategy, in a word or two.
        views: One per seed.
        is_random: Whether this is plain random search, which the others are compared with.
        settings: What they were searched with, by name; empty if that is not known.
    """

    label: str
    views: tuple[StudyView, ...]
    is_random: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def study_report(groups: Sequence[StudyGroup], *, command: str, facts: Mapping[str, str]) -> Report:
    """Say how well strategies searched one space, seed by seed, side by side.

    Best so far after every trial and over the time of evaluation as mean and spread over the studies of a group, the relative
    improvement over the average sampled architecture (Yang et al. 2020, eq. 1) where random search is among them, cost, and the
    filled-in checklist.

    Args:
        groups: At most six. The first is what the report is about.
        command: Command line that repeats the report.
        facts: Hardware and versions of this process by name.

    Raises:
        StudyError: If there is nothing to compare: no trial, different spaces, data or objectives, or two groups of one name.
    """
    _check(groups)
    first = groups[0]
    name, higher = first.views[0].objectives[0]
    average = _average(groups)
    best = [view.best.values[0] for view in first.views if view.best is not None]
    tiles = [
        (f"best {name}, mean over {_count(len(first.views), 'study', 'studies')}", _mean_std(best)),
        ("trials per study", _mean_std([float(len(view.evaluated)) for view in first.views])),
        ("seconds of evaluation per study", _mean_std([_seconds(view) for view in first.views])),
        ("relative improvement over the average architecture", _improvement(first, average, higher=higher)),
    ]
    return Report(
        title=f"Searching {first.views[0].space or 'a space'} with {' and '.join(g.label for g in groups[:2])}",
        lead=_lead(groups, name, higher=higher),
        tiles=tuple(tiles),
        sections=(
            Section(title="Best so far", blocks=tuple(_figures(groups))),
            Section(title="Strategies", blocks=(_comparison(groups, average), *_notes(groups, average))),
            Section(title="Studies", blocks=(_studies(groups),)),
            Section(title="Best architectures", blocks=tuple(_architectures(groups))),
            Section(title="Set-up", blocks=(Code(text=command), _setup(groups, facts))),
            Section(title="Checklist", blocks=(filled_checklist(_answers(groups)),)),
        ),
    )


def _check(groups: Sequence[StudyGroup]) -> None:
    if not 1 <= len(groups) <= MAX_GROUPS:
        raise StudyError(f"Expected one to {MAX_GROUPS} strategies in a report (got {len(groups)})")
    if len({group.label for group in groups}) < len(groups):
        raise StudyError("Expected strategies of different names")
    views = [view for group in groups for view in group.views]
    for view in views:
        if not view.evaluated:
            raise StudyError(
                f"The study '{view.study}' has no finished trial yet, so there is nothing to report"
            )
        for what in ("space", "data", "objectives"):
            ours, theirs = getattr(views[0], what), getattr(view, what)
            if ours != theirs:
                raise StudyError(
                    f"Studies can be compared if they search the same: '{views[0].study}' has {what} {ours!r}, "
                    f"'{view.study}' has {theirs!r}"
                )


# ---- numbers


def _mean_std(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return spread_text(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan)


def _count(count: int, one: str, many: str) -> str:
    return f"1 {one}" if count == 1 else f"{count} {many}"


def _seconds(view: StudyView) -> float:
    return sum(trial.seconds for trial in view.evaluated)


def _average(groups: Sequence[StudyGroup]) -> float | None:
    """What an architecture drawn at random reaches: the mean of all complete trials of random search."""
    values = [
        trial.values[0]
        for group in groups
        if group.is_random
        for view in group.views
        for trial in view.with_state("complete")
    ]
    return float(np.mean(values)) if values else None


def _improvement(group: StudyGroup, average: float | None, *, higher: bool) -> str:
    if not average:
        return "-"
    sign = 1.0 if higher else -1.0
    gains = [
        100 * sign * (view.best.values[0] - average) / abs(average)
        for view in group.views
        if view.best is not None
    ]
    return f"{_mean_std(gains)} %" if gains else "-"


# ---- figures


def _figures(groups: Sequence[StudyGroup]) -> list[Figure]:
    name, _ = groups[0].views[0].objectives[0]
    curves = [_by_trial(group) for group in groups]
    by_trial = Chart(
        title="Best so far, by trials", x_label="evaluated trials", y_label=name, lines=tuple(curves), y_range=_window(groups)
    )  # fmt: skip
    by_time = Chart(
        title="Best so far, by time", x_label="seconds of evaluation", y_label=name,
        lines=tuple(_by_time(group) for group in groups), y_range=_window(groups),
    )  # fmt: skip
    values = Chart(
        title="Distribution of what was evaluated", x_label=name, y_label="share of complete trials",
        lines=tuple(_distribution(group) for group in groups), y_range=(0.0, 1.0),
    )  # fmt: skip
    return [
        Figure(name="trials", svg=draw_chart(by_trial), caption=_BY_TRIAL),
        Figure(name="time", svg=draw_chart(by_time), caption=_BY_TIME),
        Figure(name="values", svg=draw_chart(values), caption=_VALUES),
    ]


_BY_TRIAL = "Mean over the studies of a strategy, with one standard deviation around it, as far as all of them have got."
_BY_TIME = "The same over the wall time spent in evaluations, failed and pruned ones included; parallel ones are added up."
_VALUES = "Empirical distribution of all complete trials of a strategy (Radosavovic et al. 2019): further right is better where higher is."


def _labelled(group: StudyGroup) -> str:
    return group.label if len(group.views) == 1 else f"{group.label} ({len(group.views)} seeds, mean ± std)"


def _line(label: str, x: Sequence[float], rows: Sequence[Sequence[float]]) -> Line:
    """Mean and spread of curves of equal length. Places where a curve has no value yet have none."""
    values = np.array(rows, dtype=float)
    mean = values.mean(axis=0)
    if len(values) < 2:
        return Line(label=label, x=tuple(x), y=tuple(mean.tolist()), is_step=True)
    std = values.std(axis=0, ddof=1)
    return Line(
        label=label,
        x=tuple(x),
        y=tuple(mean.tolist()),
        low=tuple((mean - std).tolist()),
        high=tuple((mean + std).tolist()),
        is_step=True,
    )


def _by_trial(group: StudyGroup) -> Line:
    curves = [view.best_so_far() for view in group.views]
    length = min(map(len, curves))
    return _line(
        _labelled(group), [float(n) for n in range(1, length + 1)], [curve[:length] for curve in curves]
    )


def _by_time(group: StudyGroup) -> Line:
    ends = [np.cumsum([trial.seconds for trial in view.evaluated]) for view in group.views]
    places = np.linspace(0.0, min(float(end[-1]) for end in ends), TIME_POINTS)
    rows = []
    for view, end in zip(group.views, ends, strict=True):
        known = np.array([math.nan, *view.best_so_far()])
        rows.append(known[np.searchsorted(end, places + 1e-12, side="right")].tolist())
    return _line(_labelled(group), places.tolist(), rows)


def _distribution(group: StudyGroup) -> Line:
    values = sorted(trial.values[0] for view in group.views for trial in view.with_state("complete"))
    shares = tuple((n + 1) / len(values) for n in range(len(values)))
    return Line(label=group.label, x=tuple(values), y=shares, is_step=True)


def _window(groups: Sequence[StudyGroup]) -> tuple[float | None, float | None]:
    """The part of the y-axis where the curves are, without the plunge of the first trials."""
    ends, bodies = [], []
    for group in groups:
        for view in group.views:
            curve = [value for value in view.best_so_far() if math.isfinite(value)]
            ends += curve[-1:]
            bodies += curve[max(1, len(curve) // 10) :]
    if not bodies:
        return (None, None)
    low, high = min([*ends, *bodies]), max([*ends, *bodies])
    pad = 0.08 * (high - low)
    return (low - pad, high + pad) if high > low else (None, None)


# ---- words and tables


def _lead(groups: Sequence[StudyGroup], name: str, *, higher: bool) -> tuple[str, ...]:
    first = groups[0].views[0]
    counts = ", ".join(f"'{g.label}' in {_count(len(g.views), 'study', 'studies')}" for g in groups)
    return (
        f"{counts}: searching {first.space or 'a space'} on {first.data.split(' ')[0] or 'unnamed data'} for the "
        f"{'highest' if higher else 'lowest'} {name}. Every number comes from a real evaluation.",
        "What a search optimises is measured on validation data and is too hopeful for what was picked by it. Test accuracy is "
        "measured once, after a search, and is not in a study.",
    )


def _notes(groups: Sequence[StudyGroup], average: float | None) -> list[str]:
    notes = []
    if average is None:
        notes.append(
            "Random search is not among these studies, so there is no average architecture to compare with: "
            "add studies of the sampler 'random' without screening."
        )
    else:
        notes.append(
            f"The average architecture, over all complete trials of random search, reaches {average:.5g}; the relative improvement "
            "is counted from it (Yang et al. 2020, eq. 1)."
        )
    if any(len(group.views) == 1 for group in groups):
        notes.append("A strategy with one study has no spread: take more seeds for any claim.")
    return notes


def _comparison(groups: Sequence[StudyGroup], average: float | None) -> Grid:
    name, higher = groups[0].views[0].objectives[0]
    rows = []
    for group in groups:
        best = [view.best.values[0] for view in group.views if view.best is not None]
        rows.append(
            (
                group.label,
                str(len(group.views)),
                _mean_std(best),
                _improvement(group, average, higher=higher),
                _mean_std([float(len(view.evaluated)) for view in group.views]),
                str(sum(len(view.with_state("failed")) for view in group.views)),
                str(sum(len(view.with_state("pruned")) for view in group.views)),
                _mean_std([_seconds(view) for view in group.views]),
            )
        )
    return Grid(
        columns=("strategy", "studies", f"best {name}", "over the average", "trials", "failed", "pruned", "seconds"),
        rows=tuple(rows),
        caption="Mean ± standard deviation (n - 1) over studies; trials and seconds per study",
    )  # fmt: skip


def _studies(groups: Sequence[StudyGroup]) -> Grid:
    rows = []
    for group in groups:
        for view in group.views:
            best = view.best
            rows.append(
                (
                    group.label,
                    view.study,
                    "-" if view.seed is None else str(view.seed),
                    "-" if best is None else f"{best.values[0]:.6g}",
                    "-" if best is None else str(_place(view, best)),
                    str(len(view.evaluated)),
                    str(view.num_duplicates),
                    f"{_seconds(view):.4g}",
                    ", ".join(sorted({trial.worker.rpartition(":")[0] for trial in view.trials} - {""}))
                    or "-",
                )
            )
    return Grid(
        columns=("strategy", "study", "seed", "best", "after trials", "trials", "duplicates", "seconds", "machines"),
        rows=tuple(rows),
    )  # fmt: skip


def _place(view: StudyView, best: TrialView) -> int:
    return 1 + [trial.number for trial in view.evaluated].index(best.number)


def _architectures(groups: Sequence[StudyGroup]) -> list[Grid | Code]:
    blocks: list[Grid | Code] = []
    for group in groups:
        sign = 1.0 if group.views[0].objectives[0][1] else -1.0
        found = [(view, view.best) for view in group.views if view.best is not None]
        if not found:
            continue
        view, best = max(
            found, key=lambda pair: sign * pair[1].values[0] if pair[1] is not None else -math.inf
        )
        assert best is not None
        rows = [
            ("study, trial", f"{view.study}, {best.number}"),
            *((k, f"{v:.6g}") for k, v in sorted(best.metrics.items())),
        ]
        blocks.append(Grid(columns=("", ""), rows=tuple(rows), caption=f"Best of '{group.label}'"))
        if best.architecture:
            blocks.append(Code(text=best.architecture))
    return blocks  # fmt: skip


def _setup(groups: Sequence[StudyGroup], facts: Mapping[str, str]) -> Grid:
    first = groups[0].views[0]
    rows = {
        "search space": first.space or "not stated",
        "data": first.data or "not stated",
        "objectives": ", ".join(
            f"{name} ({'higher' if up else 'lower'} is better)" for name, up in first.objectives
        ),
    }
    for group in groups:
        seeds = ", ".join("?" if view.seed is None else str(view.seed) for view in group.views)
        rows[f"seeds of '{group.label}'"] = seeds
        for name, value in group.settings.items():
            rows[f"{name} of '{group.label}'"] = value
    rows |= {f"{name} (of this report)": value for name, value in facts.items()}
    return Grid(columns=("", ""), rows=tuple(rows.items()))  # fmt: skip


# ---- the checklist


def _answers(groups: Sequence[StudyGroup]) -> dict[str, Answer]:
    known = all(group.settings for group in groups)
    space = groups[0].views[0].space
    has_space = space in space_names()
    same = known and len({group.settings.get("training", "") for group in groups}) == 1
    many = all(len({view.seed for view in group.views} - {None}) > 1 for group in groups)
    has_random = any(group.is_random for group in groups)
    unknown = "the settings of a study lie in another folder"
    return {
        "training_code": Answer(yes=known, where="nasgraph.evaluate.train of the version in Set-up" if known else unknown),
        "space_code": Answer(yes=has_space, where=f"the space '{space}' in nasgraph" if has_space else f"'{space}' is not installed here"),
        "training_settings": Answer(yes=known, where="Set-up: training of each strategy, and seeds" if known else unknown),
        "method_code": Answer(yes=known, where="nasgraph and optuna of the versions in Set-up" if known else unknown),
        "method_settings": Answer(yes=known, where="Set-up: sampler, screening and seeds; the rest are its defaults" if known else unknown),
        "same_benchmark": Answer(
            yes=same, where="same space, data, objective and training (checked)" if same
            else "space, data and objective are the same (checked); training settings differ, or are not known"
        ),
        "confounders": Answer(yes=False, where="a study records machines and times, but neither versions nor what else ran there"),
        "ablations": Answer(yes=False, where="the strategies are compared as a whole"),
        "same_protocol": Answer(
            yes=same, where="the same evaluator for all; see Set-up" if same else "training settings differ, or are not known"
        ),
        "over_time": Answer(yes=True, where="Best so far, by trials and by time"),
        "random_search": Answer(yes=has_random, where="Best so far, Strategies" if has_random else "no study of random search was given"),
        "several_runs": Answer(
            yes=many, where="Studies: one row per seed" if many else "a strategy has one study only, or studies of one seed"
        ),
        "tabular": Answer(yes=False, where="these are real evaluations; 'nasgraph bench search' does it on tables"),
        "tuning": Answer(yes=False, where="the studies do not say how their settings were chosen"),
        "end_to_end": Answer(yes=False, where="seconds of all evaluations are here; screening and the winner's training are not in a study"),
        "setup": Answer(yes=known, where="Set-up: settings, seeds, versions" if known else unknown),
    }  # fmt: skip
