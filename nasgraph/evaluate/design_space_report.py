"""What an analysis of design spaces found, as a report with plots."""

from collections.abc import Mapping, Sequence

import numpy as np

from nasgraph.draw.chart import Chart, Line, draw_chart
from nasgraph.draw.report import Code, Figure, Grid, Report, Section
from nasgraph.evaluate.design_space import DesignSpaceAnalysis, PopulationSummary, error_distribution
from nasgraph.evaluate.design_space_models import SampledModel
from nasgraph.evaluate.good_ranges import GoodRange

MAX_LINES = 6
MAX_CHOICE_FIGURES = 6
MAX_OPTIONS_NAMED = 4
_COST_LABELS = {
    "num_parameters": "cost: parameters",
    "multiply_adds": "cost: multiply-adds",
    "depth": "cost: longest path",
}


def design_space_report(
    analysis: DesignSpaceAnalysis,
    populations: Mapping[str, Sequence[SampledModel]],
    *,
    command: str,
    facts: Mapping[str, str],
) -> Report:
    """Error distributions, comparisons and good ranges of choices.

    Args:
        analysis: What was found.
        populations: The models that it was found in.
        command: Command line that repeats it.
        facts: Settings, hardware, versions and date by name.
    """
    names = [summary.name for summary in analysis.populations]
    best = min(analysis.populations, key=lambda summary: summary.distribution.min)
    return Report(
        title=f"Design spaces: {', '.join(names)}",
        lead=(
            "A space is judged by the errors of networks drawn from it at random (Radosavovic et al. 2019, 2020): the further up "
            "and left its distribution function lies, the better its networks are as a whole.",
            _verdict(analysis),
        ),
        tiles=(
            *((f"mean error of {s.name}", f"{s.distribution.mean:.4g}") for s in analysis.populations[:3]),
            (f"least error, in {best.name}", f"{best.distribution.min:.4g}"),
            *((f"KS statistic, {c.first} and {c.second}", f"{c.ks:.3f}") for c in analysis.comparisons[:1]),
        ),
        sections=(
            Section(title="Errors", blocks=(*_figures(analysis, populations), _errors(analysis))),
            *((Section(title="Comparisons", blocks=(_comparisons(analysis),)),) if analysis.comparisons else ()),
            *(_ranges(summary, populations[summary.name]) for summary in analysis.populations),
            Section(
                title="Set-up",
                blocks=(Code(text=command), Grid(columns=("", ""), rows=tuple((k, v) for k, v in facts.items()))),
            ),
        ),
    )  # fmt: skip


def _verdict(analysis: DesignSpaceAnalysis) -> str:
    if not analysis.comparisons:
        summary = analysis.populations[0]
        return f"{summary.num_models} networks of '{summary.name}' have a mean error of {summary.distribution.mean:.4g}."
    parts = []
    means = {summary.name: summary.distribution.mean for summary in analysis.populations}
    for pair in analysis.comparisons:
        better, worse = sorted((pair.first, pair.second), key=lambda name: means[name])
        sure = "" if pair.p_value < 0.05 else ", which chance may have done"
        parts.append(
            f"'{better}' has the lower mean error than '{worse}' ({means[better]:.4g} and {means[worse]:.4g}, KS statistic "
            f"{pair.ks:.3f}, p = {pair.p_value:.2g}{sure})"
        )
    return "; ".join(parts) + "."


def _figures(
    analysis: DesignSpaceAnalysis, populations: Mapping[str, Sequence[SampledModel]]
) -> list[Figure]:
    shown = analysis.populations[:MAX_LINES]
    edf = Chart(
        title="Error distribution functions",
        x_label="error",
        y_label="share of models not above",
        lines=tuple(
            _stairs(each.name, each.distribution.errors.tolist(), each.distribution.weights.tolist())
            for each in shown
        ),
        y_range=(0.0, 1.0),
    )
    cost = Chart(
        title="Least error for its cost",
        x_label="log10 of multiply-adds",
        y_label="least error up to that cost",
        lines=tuple(_front(each.name, populations[each.name]) for each in shown),
    )
    return [
        Figure(
            name="errors",
            svg=draw_chart(edf),
            caption="Share of the networks whose error is not above the value.",
        ),
        Figure(
            name="cost",
            svg=draw_chart(cost),
            caption="The best of all networks up to a cost, for each space.",
        ),
    ]


def _stairs(name: str, errors: Sequence[float], weights: Sequence[float]) -> Line:
    x = (errors[0], *errors)
    y = (0.0, *np.cumsum(weights).tolist())
    return Line(label=name, x=tuple(x), y=tuple(y), is_step=True)


def _front(name: str, models: Sequence[SampledModel]) -> Line:
    pairs = sorted(
        (float(np.log10(max(1, model.costs["multiply_adds"]))), model.error)
        for model in models
        if model.error is not None
    )
    least = np.minimum.accumulate([error for _, error in pairs]).tolist()
    return Line(label=name, x=tuple(cost for cost, _ in pairs), y=tuple(least), is_step=True)


def _errors(analysis: DesignSpaceAnalysis) -> Grid:
    rows = []
    for each in analysis.populations:
        quantiles = (f"{each.distribution.quantile(share):.4g}" for share in (0.05, 0.25, 0.5, 0.75, 0.95))
        rows.append(
            (
                each.name,
                str(each.num_models),
                str(each.num_failed),
                f"{each.distribution.min:.4g}",
                f"{each.distribution.mean:.4g}",
                *quantiles,
            )
        )
    columns = ("space", "models", "failed", "least", "mean", "5 %", "25 %", "50 %", "75 %", "95 %")
    return Grid(
        columns=columns,
        rows=tuple(rows),
        caption="Errors. Failed models are in no other number of this page.",
    )


def _comparisons(analysis: DesignSpaceAnalysis) -> Grid:
    rows = []
    for each in analysis.comparisons:
        means = each.mean_at_equal_cost
        rows.append(
            (
                f"{each.first} and {each.second}",
                f"{each.ks:.3f}",
                f"{each.p_value:.2g}",
                "-" if each.ks_at_equal_cost is None else f"{each.ks_at_equal_cost:.3f}",
                "-" if means is None else f"{means[0]:.4g} and {means[1]:.4g}",
            )
        )
    return Grid(
        columns=("spaces", "KS statistic", "p", "KS at equal cost", "mean errors at equal cost"),
        rows=tuple(rows),
        caption="At equal cost: models weighted so that both have one distribution of multiply-adds (2019).",
    )


def _ranges(summary: PopulationSummary, models: Sequence[SampledModel]) -> Section:
    grid = Grid(
        columns=("choice or cost", "models", "explains", "best value", "good range"),
        rows=tuple(_range_row(each) for each in summary.ranges),
        caption="By empirical bootstrap (2020, section 3.1): the best of a quarter of the models, drawn 10,000 times; the range "
        "holds 95 % of the best. 'Explains': share of the variance of the errors between the values.",
    )
    choices = [each for each in summary.ranges if not each.is_cost]
    strongest = sorted(choices, key=lambda each: -each.explained)[:MAX_CHOICE_FIGURES]
    figures = [_choice_figure(summary.name, each, models) for each in strongest if each.low is not None]
    return Section(title=f"What is good in {summary.name}", blocks=(*figures, grid))


def _range_row(each: GoodRange) -> tuple[str, ...]:
    if each.low is None or each.high is None or each.median is None:
        named = ", ".join(f"{option} {share:.0%}" for option, share in each.shares[:MAX_OPTIONS_NAMED])
        rest = len(each.shares) - MAX_OPTIONS_NAMED
        best, span = each.shares[0][0], named + (f" and {rest} more" if rest > 0 else "")
    else:
        best, span = number_text(each.median), f"{number_text(each.low)} to {number_text(each.high)}"
    return (label_of(each), str(each.num_models), f"{each.explained:.0%}", best, span)


def label_of(found: GoodRange) -> str:
    """What a choice or a cost is called in a table for people."""
    return _COST_LABELS[found.name] if found.is_cost else found.name


def number_text(value: float) -> str:
    """A value of a choice or a cost: whole if it is whole, otherwise to six digits."""
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def _choice_figure(space: str, choice: GoodRange, models: Sequence[SampledModel]) -> Figure:
    by_value: dict[float, list[float]] = {}
    for model in models:
        value = dict(model.choices).get(choice.name)
        if model.error is not None and isinstance(value, int | float):
            by_value.setdefault(float(value), []).append(model.error)
    places = tuple(sorted(by_value))
    found = [error_distribution(by_value[place]) for place in places]
    chart = Chart(
        title=choice.name,
        x_label=choice.name,
        y_label="error",
        lines=(
            Line(label="mean", x=places, y=tuple(each.mean for each in found)),
            Line(label="least", x=places, y=tuple(each.min for each in found)),
        ),
    )
    return Figure(
        name=f"{space}-{choice.name}", svg=draw_chart(chart), caption=f"Errors of {space} by {choice.name}."
    )
