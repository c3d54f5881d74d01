"""Where an entry came from, what was made of it, and what distinguishes it from its parent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from nasgraph.draw.tree import Ancestor, draw_tree
from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.card import Lineage
from nasgraph.pipeline.workspace import Workspace
from nasgraph.search.snapshot import open_read_only, view_study
from nasgraph.spaces import load_space, replay
from nasgraph.web.context import WebContext
from nasgraph.web.difference import GraphDifference, graph_difference
from nasgraph.web.drawing import GraphMemory
from nasgraph.web.operators import OperatorFacts, operator_facts
from nasgraph.web.parts import part_page
from nasgraph.web.progress import architecture_of
from nasgraph.web.queries import reference_of
from nasgraph.web.words import entry_url, percent

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row

MAX_GENERATIONS = 6
MAX_CHILDREN = 12
MAX_LISTED = 40


@dataclass(slots=True)
class Family:
    """The boxes of a lineage and what leads from one to the next, as they are collected."""

    items: dict[str, Ancestor] = field(default_factory=dict)
    links: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, item: Ancestor) -> bool:
        """Add a box. Returns whether it is new."""
        if item.key in self.items:
            return False
        self.items[item.key] = item
        return True

    def link(self, source: str, target: str) -> None:
        """Say that one came of the other. A card that says the reverse of what is known already is passed over."""
        if source != target and not self._leads(target, source):
            self.links[source, target] = None

    def _leads(self, start: str, end: str) -> bool:
        reached, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            for source, target in self.links:
                if source == here and target not in reached:
                    reached.add(target)
                    waiting.append(target)
        return end in reached


def family_of_entry(row: "Row", rows: Sequence["Row"], *, has_live_view: bool) -> Family:
    """The search, the trial, the parents and ingredients of an entry, up to six generations, and its children.

    Args:
        row: The entry.
        rows: Every version of every entry.
        has_live_view: Whether there are pages about studies.
    """
    family = Family()
    family.add(_entry_item(row, kind="this"))
    _add_ancestors(family, row, rows, MAX_GENERATIONS, has_live_view=has_live_view)
    for child in children_of(row, rows)[:MAX_CHILDREN]:
        family.add(_entry_item(child))
        family.link(row.reference, child.reference)
    return family


def children_of(row: "Row", rows: Iterable["Row"]) -> list["Row"]:
    """Versions that name an entry as their parent or as an ingredient."""
    return [
        other
        for other in rows
        if other.card is not None
        and other.reference != row.reference
        and any(_names(text, row) for text in _sources(other.card.lineage))
    ]


def _sources(lineage: Lineage) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in (lineage.parent, *lineage.ingredients) if text))


def _names(text: str, row: "Row") -> bool:
    return text == row.reference or (
        text.startswith(f"{row.name}@") and text.partition("@")[2] in row.aliases
    )


def _add_ancestors(
    family: Family, row: "Row", rows: Sequence["Row"], generations: int, *, has_live_view: bool
) -> None:
    if row.card is None or generations == 0:
        return
    lineage = row.card.lineage
    for text in _sources(lineage):
        found = next((other for other in rows if _names(text, other)), None)
        item = (
            Ancestor(key=text, title=text, text="no longer in the zoo", kind="lost")
            if found is None
            else _entry_item(found)
        )
        is_new = family.add(item)
        family.link(item.key, row.reference)
        if found is not None and is_new:
            _add_ancestors(family, found, rows, generations - 1, has_live_view=has_live_view)
    if lineage.study:
        _add_search(family, row, lineage, has_live_view=has_live_view)
    elif not _sources(lineage):
        words = {"import": "imported", "training": "trained alone"}.get(lineage.origin, "")
        if words:
            family.add(Ancestor(key=f"source {row.reference}", title=words, text=lineage.note, kind="source"))
            family.link(f"source {row.reference}", row.reference)


def _add_search(family: Family, row: "Row", lineage: Lineage, *, has_live_view: bool) -> None:
    study = f"study {lineage.study}"
    url = f"/live/{lineage.study}" if has_live_view else ""
    family.add(Ancestor(key=study, title=lineage.study, text="search", kind="search", url=url))
    above = study
    if lineage.parent_trial is not None:
        above = f"{study} trial {lineage.parent_trial}"
        family.add(
            Ancestor(key=above, title=f"trial {lineage.parent_trial}", text="closest earlier", kind="trial")
        )
        family.link(study, above)
    if lineage.trial is not None:
        own = f"{study} trial {lineage.trial}"
        count = len(lineage.mutation)
        changes = f"{count} choice{'' if count == 1 else 's'} changed" if count else ""
        family.add(Ancestor(key=own, title=f"trial {lineage.trial}", text=changes, kind="trial"))
        family.link(above, own)
        above = own
    family.link(above, row.reference)


def _entry_item(row: "Row", *, kind: str = "entry") -> Ancestor:
    title = row.name if row.version is None else f"{row.name} v{row.version}"
    origin = "" if row.card is None else row.card.lineage.origin
    text = " · ".join(part for part in (origin, percent(row.accuracy)) if part)
    return Ancestor(key=row.reference, title=title, text=text, kind=kind, url=entry_url(row.reference))


# ---- the difference from the parent


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentDifference:
    """An entry beside what it was made from.

    Attributes:
        name: The parent, in words.
        url: Its page; empty: none.
        graph: Difference of the graphs; None where the parent's graph is not known, or either is too large.
        changed: Settings that differ, node by node: this one's facts, and the settings before and after.
        added: Facts of nodes that the parent lacks.
        removed: Facts of nodes that only the parent has.
    """

    name: str
    url: str = ""
    graph: GraphDifference | None = None
    changed: tuple[tuple[OperatorFacts, tuple[tuple[str, str, str], ...]], ...] = ()
    added: tuple[OperatorFacts, ...] = ()
    removed: tuple[OperatorFacts, ...] = ()


def parent_difference(context: WebContext, memory: GraphMemory, row: "Row") -> ParentDifference | None:
    """The difference from the parent entry, or else from the closest earlier trial; None if there is neither."""
    assert row.card is not None
    lineage = row.card.lineage
    graph: ComputationalGraph | None = None
    if lineage.parent:
        parents = [other for other in context.catalogue.all_rows if _names(lineage.parent, other)]
        name, url = lineage.parent, entry_url(parents[0].reference) if parents else ""
        if parents and parents[0].card is not None:
            graph = memory.of(parents[0])
    elif lineage.parent_trial is not None:
        name, url = f"trial {lineage.parent_trial} of the search '{lineage.study}'", ""
        graph = _trial_graph(context.settings.workspace, row)
    else:
        return None
    difference = None if graph is None else graph_difference(graph, memory.of(row))
    if graph is None or difference is None:
        return ParentDifference(name=name, url=url)
    return _described(name, url, graph, memory.of(row), difference)


def _described(
    name: str, url: str, before: ComputationalGraph, after: ComputationalGraph, difference: GraphDifference
) -> ParentDifference:
    pairs = difference.changed[:MAX_LISTED]
    olds = operator_facts(before, (a for a, _ in pairs))
    news = operator_facts(after, (b for _, b in pairs))
    return ParentDifference(
        name=name,
        url=url,
        graph=difference,
        changed=tuple((new, _changes(old, new)) for old, new in zip(olds, news, strict=True)),
        added=operator_facts(after, difference.added[:MAX_LISTED]),
        removed=operator_facts(before, difference.removed[:MAX_LISTED]),
    )


def _changes(old: OperatorFacts, new: OperatorFacts) -> tuple[tuple[str, str, str], ...]:
    before = {**dict(old.settings), "output shape": old.output_shape}
    after = {**dict(new.settings), "output shape": new.output_shape}
    return tuple(
        (name, before.get(name, ""), value) for name, value in after.items() if before.get(name) != value
    )


def _trial_graph(workspace: Path | None, row: "Row") -> ComputationalGraph | None:
    """The graph of the trial that an entry is compared with, built again from its choices; None if its study is not here."""
    assert row.card is not None
    card, lineage = row.card, row.card.lineage
    if workspace is None or card.data is None:
        return None
    try:
        files = Workspace(workspace, lineage.study)
        view = view_study(open_read_only(files.journal), lineage.study)
        trial = next(trial for trial in view.trials if trial.number == lineage.parent_trial)
        space = load_space(
            card.architecture.space,
            input_shape=card.data.input_shape,
            num_classes=len(card.data.class_names),
        )
        graph = replay(space, architecture_of(trial)).graph
    except (NasGraphError, KeyError, StopIteration):
        return (
            None  # the study was deleted or moved, or belongs to another space: the table of choices remains
        )
    return graph if graph.fingerprint == lineage.parent_fingerprint else None


def lineage_routes(context: WebContext, memory: GraphMemory) -> APIRouter:
    """`/lineage/<reference>`: a fragment of the entry page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/lineage/{reference:path}")
    def lineage(request: Request, reference: str) -> Response:
        row = context.current().row(reference_of(reference))
        if row.card is None:
            return part_page(context, request, "lineage.html", {"family": None}, row=row, title="Lineage")
        has_live_view = context.settings.workspace is not None
        family = family_of_entry(row, context.catalogue.all_rows, has_live_view=has_live_view)
        items = tuple(family.items.values())
        picture = draw_tree(items, tuple(family.links), label=f"Lineage of {row.name}")
        values: dict[str, object] = {
            "family": family,
            "parents": {
                item.key: [family.items[source] for source, target in family.links if target == item.key]
                for item in items
            },
            "picture": Markup(picture),
            "num_hidden": max(0, len(children_of(row, context.catalogue.all_rows)) - MAX_CHILDREN),
            "difference": parent_difference(context, memory, row),
            "lineage": row.card.lineage,
        }
        return part_page(context, request, "lineage.html", values, row=row, title="Lineage")

    return router
