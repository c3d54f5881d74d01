"""The page of one entry: what it is, how it was measured, its drawing, its curves, where it came from, what is like it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from nasgraph.draw.chart import Chart, Line, draw_chart
from nasgraph.draw.theme import without_style
from nasgraph.errors import NasGraphError, ZooError
from nasgraph.modelzoo.card import LatencyFact, Measurement, ModelCard
from nasgraph.web import words
from nasgraph.web.context import WebContext
from nasgraph.web.drawing import MAX_TABLE_ROWS, GraphMemory, drawing_routes, drawing_values
from nasgraph.web.errors import public_text
from nasgraph.web.lineage import lineage_routes
from nasgraph.web.links import outside_links
from nasgraph.web.operators import operator_facts
from nasgraph.web.parts import part_page
from nasgraph.web.queries import reference_of, single
from nasgraph.web.similar_page import find_like
from nasgraph.web.structure import common_structure

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row

MAX_CURVES = 4
MAX_SIMILAR = 6
MAX_FACTS = 200
_SHARES = ("accuracy", "ece")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and a value in words."""

    name: str
    value: str
    title: str = ""


def routes(context: WebContext) -> APIRouter:
    """`/entry/<reference>`, its drawing, its lineage, and its other parts that take longer."""
    router = APIRouter(include_in_schema=False)
    memory = GraphMemory(context)
    router.include_router(drawing_routes(context, memory))
    router.include_router(lineage_routes(context, memory))
    router.include_router(_later_routes(context, memory))

    @router.get("/entry/{reference:path}")
    def entry(request: Request, reference: str) -> Response:
        row = context.current().row(reference_of(reference))
        values: dict[str, object] = {
            "row": row,
            "versions": _versions(context, row),
            "links": outside_links(context, row),
        }
        if row.card is None:
            return context.page(request, "other_entry.html", {**values, "facts": _other_facts(context, row)})
        values |= card_values(row, row.card)
        values |= _drawing_part(memory, row, request)
        return context.page(request, "entry.html", values)

    return router


def _later_routes(context: WebContext, memory: GraphMemory) -> APIRouter:
    """Parts of the page that the browser asks for when the rest is shown."""
    router = APIRouter(include_in_schema=False)

    @router.get("/curves/{reference:path}")
    def curves(request: Request, reference: str) -> Response:
        row = context.current().row(reference_of(reference))
        histories, problem = _histories(context, row)
        charts = [Markup(without_style(draw_chart(chart))) for chart in curve_charts(histories)]
        values: dict[str, object] = {"charts": charts, "problem": problem}
        return part_page(context, request, "_curves.html", values, row=row, title="Learning curves")

    @router.get("/like/{reference:path}")
    def like(request: Request, reference: str) -> Response:
        row = context.current().row(reference_of(reference))
        try:
            found, problem = find_like(context, row, most=MAX_SIMILAR), ""
        except ZooError as error:
            found, problem = (), public_text(error)
        values: dict[str, object] = {"found": found, "problem": problem}
        return part_page(context, request, "_like.html", values, row=row, title="Similar architectures")

    @router.get("/common/{reference:path}")
    def common(request: Request, reference: str) -> Response:
        row = context.current().row(reference_of(reference))
        other = context.catalogue.row(reference_of(single(request.query_params, "with") or ""))
        graph, other_graph = memory.of(row), memory.of(other)
        shared = common_structure(graph, other_graph)
        values: dict[str, object] = {"other": other, "shared": shared, "num_nodes": len(graph)}
        return part_page(context, request, "_common.html", values, row=row, title="Common structure")

    return router


# ---- what a card says, in words


def card_values(row: "Row", card: ModelCard) -> dict[str, object]:
    """The card of an entry as the page shows it."""
    return {
        "card": card,
        "tiles": _tiles(row),
        "about": _about(card),
        "data_facts": _data_facts(card),
        "training": [Fact(name=name.replace("_", " "), value=str(value)) for name, value in card.training],
        "choices_made": [Fact(name=name, value=str(value)) for name, value in card.architecture.choices],
        "measurements": [(m, measured_text(m)) for m in card.measurements],
        "predictions": predictions_of(card),
        "latencies": [(fact, latency_text(fact)) for fact in card.latencies],
        "commands": commands_for(row),
        "downloads": DOWNLOADS,
    }


def _tiles(row: "Row") -> list[Fact]:
    tiles = [
        Fact(name="test accuracy", value=words.percent(row.accuracy)),
        Fact(
            name="parameters",
            value=words.short_number(row.num_parameters),
            title=words.full_number(row.num_parameters),
        ),
        Fact(
            name="multiply-adds",
            value=words.short_number(row.multiply_adds),
            title=words.full_number(row.multiply_adds),
        ),
        Fact(name="latency, one example", value=words.milliseconds(row.latency_ms)),
    ]
    return [tile for tile in tiles if tile.value]


def _about(card: ModelCard) -> list[Fact]:
    facts = {
        "task": card.task,
        "origin": card.lineage.origin,
        "search": _search_text(card),
        "search space": card.architecture.space,
        "created": card.created,
        "licence of the weights": card.licence,
        "seed of the training": "" if card.lineage.origin in ("import", "merge") else str(card.seed),
        "hypernetwork": card.lineage.ghn,
        "MLflow run": card.lineage.run_id,
        "fingerprint": card.fingerprint,
        "hash of the weights": card.weights_sha256,
        "made with": f"nasgraph {card.nasgraph_version}, torch {card.torch_version}, Python {card.python_version}",
    }
    return [Fact(name=name, value=value) for name, value in facts.items() if value]


def _search_text(card: ModelCard) -> str:
    lineage = card.lineage
    return lineage.study if lineage.trial is None else f"{lineage.study}, trial {lineage.trial}"


def _data_facts(card: ModelCard) -> list[Fact]:
    data = card.data
    if data is None:
        return []
    names = ", ".join(data.class_names[:20]) + (", ..." if len(data.class_names) > 20 else "")
    facts = {
        "name": data.name,
        "shape of an example": " x ".join(map(str, data.input_shape)),
        "classes": f"{len(data.class_names):,}: {names}",
        "held out for validation": f"{100 * data.validation_share:g} % (seed {data.split_seed})",
        "training examples kept": "all" if data.num_train is None else f"{data.num_train:,}",
        "images resized to": "" if data.image_size is None else f"{data.image_size} pixels",
        "licence": data.licence,
        "source": data.source,
        "hash": data.sha256,
    }
    return [Fact(name=name, value=value) for name, value in facts.items() if value]


def measured_text(measurement: Measurement) -> str:
    """A measured value: shares in per cent, with the standard error of an accuracy; the rest in five digits."""
    name, value = measurement.metric.partition("@")[0], measurement.value
    if name not in _SHARES or not 0 <= value <= 1:
        return words.plain_number(value)
    if name != "accuracy":
        return words.percent(value)
    error = math.sqrt(value * (1 - value) / measurement.num_examples)
    return f"{words.percent(value)} ± {100 * error:.2f}"


def latency_text(fact: LatencyFact) -> str:
    """A latency with its interval."""
    low, high = (words.milliseconds(1e3 * value) for value in (fact.low_s, fact.high_s))
    return f"{words.milliseconds(1e3 * fact.median_s)} ({low} to {high})"


def predictions_of(card: ModelCard) -> list[tuple[str, str, str, str]]:
    """Each predicted score beside the measurement of its name: name, predicted, measured, difference.

    A score named after a metric and a split (`predicted_val_accuracy`) stands beside that one; any other score, such as that of a
    zero-cost proxy, is in units of its own and stands alone.
    """
    rows = []
    for name, score in card.scores:
        split = next((split for mark, split in _SPLITS.items() if mark in name), _SPLIT_OF_GHN.get(name, ""))
        measured = card.measured(split, "accuracy") if split and "accuracy" in name else None
        if measured is None:
            rows.append((name, words.plain_number(score), "", ""))
        else:
            rows.append(
                (
                    name,
                    words.percent(score),
                    words.percent(measured.value),
                    f"{100 * (score - measured.value):+.2f} points",
                )
            )
    return rows


_SPLIT_OF_GHN: Mapping[str, str] = {
    "ghn_accuracy": "validation"
}  # with predicted weights, on validation data
_SPLITS: Mapping[str, str] = {"val": "validation", "test": "test", "train": "train"}


def commands_for(row: "Row") -> list[Fact]:
    """Command lines to copy, each with what it does."""
    return [
        Fact(name="Load and check it", value=f"nasgraph zoo load {row.reference}"),
        Fact(name="Show its card", value=f"nasgraph zoo show {row.reference}"),
        Fact(name="Measure its numbers again", value=f"nasgraph zoo verify {row.reference}"),
        Fact(name="Copy its files", value=f"nasgraph zoo export {row.reference} {row.name}"),
        Fact(name="Find similar ones", value=f"nasgraph zoo similar {row.reference}"),
        Fact(name="In Python", value=f'nasgraph.modelzoo.Zoo().load("{row.reference}").module()'),
    ]


DOWNLOADS: Mapping[str, str] = {
    "entry.zip": "The entry: graph, weights, card (zip)",
    "source.zip": "Python source that runs without nasgraph, and weights (zip)",
    "model.onnx": "ONNX",
}
"""Files of an entry that are made on request, below `/download/<reference>/`."""


# ---- parts


def _versions(context: WebContext, row: "Row") -> list["Row"]:
    found = [other for other in context.catalogue.all_rows if other.name == row.name]
    return sorted(found, key=lambda other: -(other.version or 0))


def _other_facts(context: WebContext, row: "Row") -> list[Fact]:
    """What is known about an entry that is no model: the leaves of its description."""
    try:
        facts = context.zoo.facts(row.reference)
    except NasGraphError:
        return []  # a model whose card is damaged
    return [Fact(name=name, value=value) for name, value in _leaves(facts)][:MAX_FACTS]


def _leaves(value: object, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            leaf
            for key, item in value.items()
            for leaf in _leaves(item, f"{name}.{key}" if name else str(key))
        ]
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return [(name, text if len(text) <= 300 else f"{text[:300]} ...")] if value not in (None, "") else []


def _drawing_part(memory: GraphMemory, row: "Row", request: Request) -> dict[str, object]:
    """The drawing and the table of nodes; a message where the graph has vanished, since the card is still there."""
    try:
        graph = memory.of(row)
    except ZooError as error:
        return {"drawing_problem": public_text(error), "operators": ()}
    shown = operator_facts(graph, range(min(len(graph), MAX_TABLE_ROWS)))
    return {
        "drawing_problem": "",
        "operators": shown,
        "num_nodes": len(graph),
        **drawing_values(row, graph, request.query_params),
    }


def _histories(context: WebContext, row: "Row") -> tuple[dict[str, tuple[tuple[int, float], ...]], str]:
    """Series of the runs of the trial and of the entry by name; why there are none."""
    found: dict[str, tuple[tuple[int, float], ...]] = {}
    run_ids = [row.run_id, "" if row.card is None else row.card.lineage.run_id]
    problem = ""
    for run_id in dict.fromkeys(filter(None, run_ids)):
        try:
            found |= context.zoo.registry.histories(run_id)
        except NasGraphError as error:
            problem = public_text(error)
    return found, "" if found else problem


def curve_charts(histories: Mapping[str, Sequence[tuple[int, float]]]) -> list[Chart]:
    """Charts of the series that have several points: at most four, curves first, those of one kind together."""
    curves = {name: points for name, points in histories.items() if len(points) > 1}
    charts = []
    for name in sorted(curves, key=lambda name: ("curve" not in name, name))[:MAX_CURVES]:
        points = [(step, value) for step, value in curves[name] if math.isfinite(value)]
        if len(points) < 2:
            continue
        plain = name.removesuffix("_curve").replace("_", " ")
        line = Line(
            label=plain,
            x=tuple(float(step) for step, _ in points),
            y=tuple(value for _, value in points),
        )
        charts.append(Chart(title=f"{plain} over the training", x_label="step", y_label=plain, lines=(line,)))
    return charts
