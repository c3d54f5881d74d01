"""Searches while they run: a list of them, and one page each that is kept up to date."""

import math
from dataclasses import dataclass

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from nasgraph.draw.chart import Chart, Line, draw_chart
from nasgraph.draw.theme import without_style
from nasgraph.errors import NasGraphError
from nasgraph.search.pareto import is_nondominated
from nasgraph.search.snapshot import StudyView, TrialView
from nasgraph.web.context import WebContext
from nasgraph.web.errors import StatusError, public_text
from nasgraph.web.links import study_link
from nasgraph.web.progress import Progress, Searches, architecture_of, duration
from nasgraph.web.table_page import is_fragment

MAX_STUDIES = 40
MAX_TRIALS = 60
MAX_FAILURES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of the list: a study, or why it cannot be read."""

    name: str
    progress: Progress | None
    problem: str = ""


def routes(context: WebContext) -> APIRouter:
    """`/live` and `/live/<study>`. The second answers htmx with the part that changes."""
    router = APIRouter(include_in_schema=False)
    folder = context.settings.workspace
    searches = None if folder is None else Searches(folder)

    def known() -> Searches:
        if searches is None:
            raise StatusError(
                404, "This server shows no searches: it was started without a folder of searches."
            )
        return searches

    @router.get("/live")
    def live(request: Request) -> Response:
        names = known().names()
        listed = [_listed(known(), name) for name in names[:MAX_STUDIES]]
        values = {"listed": listed, "num_more": len(names) - len(listed)}
        return context.page(request, "live.html", values)

    @router.get("/live/{study}")
    def study(request: Request, study: str) -> Response:
        progress = known().progress(study)
        values = {**progress_values(progress), "dashboard": study_link(context, progress.number)}
        if is_fragment(request):
            answer = context.page(request, "_progress.html", values)
        else:
            made = [
                row
                for row in context.current().all_rows
                if row.card is not None and row.card.lineage.study == study
            ]
            answer = context.page(request, "live_study.html", {**values, "made": made})
        answer.headers["vary"] = "HX-Request"
        return answer

    return router


def _listed(searches: Searches, name: str) -> Listed:
    try:
        return Listed(name=name, progress=searches.progress(name))
    except NasGraphError as error:
        return Listed(name=name, progress=None, problem=public_text(error))


def progress_values(progress: Progress) -> dict[str, object]:
    """What `_progress.html` needs."""
    view = progress.view
    shown = () if view is None else _newest_first(view)[:MAX_TRIALS]
    best = None if view is None else view.best
    return {
        "progress": progress,
        "view": view,
        "best": best,
        "best_choices": [] if best is None else _choices(best),
        "trials": shown,
        "num_older": 0 if view is None else len(view.trials) - len(shown),
        "failures": progress.failures[:MAX_FAILURES],
        "charts": [] if view is None else [Markup(without_style(draw_chart(c))) for c in _charts(view)],
        "front": [] if view is None else front_of(view),
        "eta": "" if progress.eta_s is None else duration(progress.eta_s),
        "elapsed": duration(progress.elapsed_s),
    }


def _newest_first(view: StudyView) -> list[TrialView]:
    return sorted(view.trials, key=lambda trial: -trial.number)


def _choices(trial: TrialView) -> list[tuple[str, str]]:
    """The choices of a trial by name; none where its record is not one of ours."""
    try:
        architecture = architecture_of(trial)
    except NasGraphError:
        return []
    return [(name, str(value)) for name, value in architecture.choices]


def front_of(view: StudyView) -> list[TrialView]:
    """Complete trials that no other beats in all objectives, by the first of them; none for a single objective."""
    complete = [trial for trial in view.with_state("complete") if len(trial.values) == len(view.objectives)]
    if len(view.objectives) < 2 or not complete:
        return []
    signs = [1.0 if higher else -1.0 for _, higher in view.objectives]
    gains = np.array([trial.values for trial in complete], dtype=float) * signs
    kept = is_nondominated(gains)
    front = [trial for trial, is_kept in zip(complete, kept.tolist(), strict=True) if is_kept]
    return sorted(front, key=lambda trial: (trial.values, trial.number))


def _charts(view: StudyView) -> list[Chart]:
    ended = view.evaluated
    name = view.objectives[0][0]
    values = [(float(n), trial.values[0]) for n, trial in enumerate(ended, 1) if trial.values]
    if not values:
        return []
    best = view.best_so_far()
    known = [(float(n), value) for n, value in enumerate(best, 1) if math.isfinite(value)]
    charts = [
        Chart(
            title="Best so far",
            x_label="evaluated trials",
            y_label=name,
            lines=(
                _line("best so far", known, is_step=True),
                _line("each trial", values, is_points=True),
            ),
        )
    ]
    if len(view.objectives) > 1:
        charts.append(_front_chart(view))
    return charts


def _front_chart(view: StudyView) -> Chart:
    (first, _), (second, _) = view.objectives[:2]
    complete = view.with_state("complete")
    cloud = sorted((trial.values[1], trial.values[0]) for trial in complete)
    front = sorted((trial.values[1], trial.values[0]) for trial in front_of(view))
    return Chart(
        title="Pareto front",
        x_label=second,
        y_label=first,
        lines=(
            _line("not beaten", front, is_step=len(view.objectives) == 2),
            _line("each trial", cloud, is_points=True),
        ),
    )


def _line(
    label: str, points: list[tuple[float, float]], *, is_step: bool = False, is_points: bool = False
) -> Line:
    return Line(
        label=label,
        x=tuple(x for x, _ in points),
        y=tuple(y for _, y in points),
        is_step=is_step,
        is_points=is_points,
    )
