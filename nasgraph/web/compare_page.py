"""Two to four entries side by side: what differs, what was chosen, what was measured and how."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response

from nasgraph.web.context import BadRequestError, WebContext
from nasgraph.web.table_page import find_row
from nasgraph.web.words import full_number, percent, plain_number

if TYPE_CHECKING:
    from nasgraph.modelzoo.card import LatencyFact, Measurement, ModelCard
    from nasgraph.modelzoo.catalogue import Row

MOST = 4


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of one entry.

    Attributes:
        text: The value; empty where it does not apply.
        note: How it came about, in small letters.
    """

    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One fact about all entries.

    Attributes:
        name: Which.
        cells: Its value for each entry.
        best: Places of the best values; empty where no direction is better, or all are equal.
    """

    name: str
    cells: tuple[Cell, ...]
    best: tuple[int, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether it is not the same for all."""
        return len({cell.text for cell in self.cells}) > 1


MAX_OFFERED = 500


@dataclass(frozen=True, slots=True)
class Section:
    """Facts of one kind; those that differ come first."""

    title: str
    lines: tuple[Line, ...]


def _choose_other(context: WebContext, request: Request, reference: str) -> Response:
    """The page that asks what one model is compared with: other versions of it first, then models for the same data."""
    row = find_row(context, reference)
    models = [other for other in context.current().all_rows if other.card is not None and other is not row]
    models.sort(key=lambda other: (other.name != row.name, other.data != row.data, other.reference))
    return context.page(request, "compare_with.html", {"row": row, "others": models[:MAX_OFFERED]})


def routes(context: WebContext) -> APIRouter:
    """`/compare?with=a&with=b/2`; with one model only it asks for the other."""
    router = APIRouter(include_in_schema=False)

    @router.get("/compare")
    def compare(request: Request) -> Response:
        references = list(
            dict.fromkeys(text.strip() for text in request.query_params.getlist("with") if text.strip())
        )
        if len(references) == 1:
            return _choose_other(context, request, references[0])
        if not 2 <= len(references) <= MOST:
            raise BadRequestError(
                f"Tick 2 to {MOST} different models in the table to compare them (got {len(references)})"
            )
        rows = [find_row(context, reference) for reference in references]
        if strange := [row.reference for row in rows if row.card is None]:
            raise BadRequestError(f"'{strange[0]}' is no model with a readable card, and cannot be compared")
        return context.page(request, "compare.html", {"rows": rows, "sections": sections(rows)})

    return router


def sections(rows: "Sequence[Row]") -> tuple[Section, ...]:
    """Everything the cards say, by kind. Rows without a card are left out."""
    cards = [row.card for row in rows if row.card is not None]
    groups = (
        ("Facts", _lines([_facts(card) for card in cards])),
        ("Measurements", _measurements(cards)),
        (
            "Choices",
            _lines([{name: Cell(str(value)) for name, value in card.architecture.choices} for card in cards]),
        ),
        ("Training", _lines([_training(card) for card in cards])),
        (
            "Predicted before training",
            _lines([{name: Cell(plain_number(value)) for name, value in card.scores} for card in cards]),
        ),
        ("Where they came from", _lines([_lineage(card) for card in cards])),
    )
    return tuple(Section(title, lines) for title, lines in groups if lines)


def _lines(columns: Sequence[Mapping[str, Cell]]) -> tuple[Line, ...]:
    names = dict.fromkeys(name for column in columns for name in column)
    lines = [Line(name, tuple(column.get(name, Cell("")) for column in columns)) for name in names]
    return tuple(sorted(lines, key=lambda line: not line.differs))


def _facts(card: "ModelCard") -> dict[str, Cell]:
    return {
        "Search space": Cell(card.architecture.space),
        "Task": Cell(card.task),
        "Data": Cell("" if card.data is None else card.data.name),
        "Parameters": Cell(full_number(card.num_parameters)),
        "Multiply-adds": Cell(full_number(card.multiply_adds), "for one example"),
        "Licence": Cell(card.licence),
        "Created": Cell(card.created),
        "Graph": Cell(card.fingerprint[:12], "start of the fingerprint"),
    }


def _measurements(cards: "Sequence[ModelCard]") -> tuple[Line, ...]:
    """Measured numbers, each with its protocol, and the best marked where both are of the same kind."""
    lines = [
        _measured_line(f"{split}: {metric}", [card.measured(split, metric) for card in cards])
        for split, metric in dict.fromkeys((m.split, m.metric) for card in cards for m in card.measurements)
    ]
    kinds = dict.fromkeys(_kind(fact) for card in cards for fact in card.latencies)
    for kind in kinds:
        found = [next((fact for fact in card.latencies if _kind(fact) == kind), None) for card in cards]
        cells = tuple(Cell("") if f is None else _latency_cell(f) for f in found)
        values = [None if fact is None else fact.median_s for fact in found]
        lines.append(Line(f"latency: {kind}", cells, _best(values, min)))
    return tuple(sorted(lines, key=lambda line: not line.differs))


def _measured_line(name: str, found: "Sequence[Measurement | None]") -> Line:
    cells = tuple(
        Cell("")
        if m is None
        else Cell(
            percent(m.value) if m.metric.startswith("accuracy") else plain_number(m.value),
            f"{m.num_examples:,} examples · {m.protocol}",
        )
        for m in found
    )
    metric = name.partition(": ")[2].partition("@")[0]
    better: Callable[[list[float]], float] | None = {
        "accuracy": max,
        "ece": min,
        "adaptive_ece": min,
        "nll": min,
        "brier": min,
    }.get(metric)
    return Line(
        name, cells, () if better is None else _best([None if m is None else m.value for m in found], better)
    )


def _best(values: Sequence[float | None], better: "Callable[[list[float]], float]") -> tuple[int, ...]:
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return ()
    return tuple(place for place, value in enumerate(values) if value == better(known))


def _kind(fact: "LatencyFact") -> str:
    threads = "1 thread" if fact.threads == 1 else f"{fact.threads} threads"
    return f"{fact.hardware}, {fact.device}, {threads}, batch {fact.batch_size}, {fact.dtype}"


def _latency_cell(fact: "LatencyFact") -> Cell:
    low, high = (plain_number(1e3 * value) for value in (fact.low_s, fact.high_s))
    return Cell(f"{plain_number(1e3 * fact.median_s)} ms", f"{low} to {high} ms · {fact.protocol}")


def _training(card: "ModelCard") -> dict[str, Cell]:
    versions = {"nasgraph": card.nasgraph_version, "torch": card.torch_version, "Python": card.python_version}
    settings = {name: Cell(str(value)) for name, value in card.training}
    return {
        "seed": Cell(str(card.seed)),
        **settings,
        **{name: Cell(value) for name, value in versions.items()},
    }


def _lineage(card: "ModelCard") -> dict[str, Cell]:
    origin = card.lineage
    found = {
        "Origin": origin.origin,
        "Study": origin.study,
        "Trial": "" if origin.trial is None else str(origin.trial),
        "Parent": origin.parent,
        "Changed from the parent": ", ".join(
            f"{name}: {before} → {after}" for name, before, after in origin.mutation
        ),
        "Merged of": ", ".join(origin.ingredients),
        "Hypernetwork": origin.ghn,
        "Note": origin.note,
    }
    return {name: Cell(text) for name, text in found.items() if text}
