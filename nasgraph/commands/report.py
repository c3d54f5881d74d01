"""`nasgraph report`: studies, finished or not, as one file with plots and the checklist of good practice."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import JsonOption, WrongUsageError

if TYPE_CHECKING:
    from nasgraph.pipeline import SearchSettings
    from nasgraph.search.snapshot import StudyView
    from nasgraph.search.study_report import StudyGroup

    Found = tuple[StudyView, SearchSettings | None]

FOLDER = Path("nasgraph-runs")
RANDOM = "random search"


def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(help="Names of studies, or journal files.", show_default="all in the folder"),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Report to write: .html (one file) or .md.")
    ] = Path("report.html"),
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", help="Database that the studies are in, such as postgresql://...", show_default=False
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", help="Project folder that names are looked up in.")
    ] = FOLDER,
    json: JsonOption = False,
) -> None:
    """Compare searches: best so far over seeds, by trials and by time, with random search beside it.

    Studies of one sampler are one strategy, with their seeds as repetitions. Studies of the sampler 'random' without screening are
    random search. The studies are only read, and may still be running.
    """  # fmt: skip
    from nasgraph.commands.machine import command_line, machine_facts
    from nasgraph.commands.output import Output
    from nasgraph.draw.report import check_report_path, write_report
    from nasgraph.search.study_report import study_report

    check_report_path(out)
    output = Output(json_mode=json)
    found = _in_folder(studies or [], folder) if storage is None else _in_storage(studies or [], storage)
    groups = _groups(found)
    written = write_report(study_report(groups, command=command_line(), facts=machine_facts()), out)
    output.message(f"Wrote the report '{out}'")
    output.result(
        {
            "report_file": str(out),
            "files": [str(path) for path in written],
            "strategies": {group.label: [view.study for view in group.views] for group in groups},
        }
    )


def _in_folder(words: list[str], folder: Path) -> "list[Found]":
    """Studies by name or by their journal file, with what they were begun with."""
    from nasgraph.errors import UnknownNameError
    from nasgraph.pipeline import Workspace, studies_in
    from nasgraph.search.snapshot import open_read_only, view_study
    from nasgraph.search.storage import study_names

    known = studies_in(folder)
    if not words and not known:
        raise WrongUsageError(f"There is no study in '{folder}'. Start one with 'nasgraph search'")
    found = []
    for word in words or list(reversed(known)):
        if word in known:
            journal = folder / f"{word}.journal"
        elif Path(word).is_file():
            journal = Path(word)
        else:
            raise UnknownNameError("study", word, known, hint=f"Looked in '{folder}'.")
        storage = open_read_only(journal)
        names = study_names(storage)
        if not names:
            raise WrongUsageError(f"There is no study in '{journal}' yet")
        view = view_study(storage, journal.stem if journal.stem in names else names[0])
        has_settings = journal.with_suffix(".json").exists()
        found.append((view, Workspace(journal.parent, journal.stem).settings() if has_settings else None))
    return found


def _in_storage(words: list[str], address: str) -> "list[Found]":
    """Studies of a database by name, or all of them."""
    from nasgraph.errors import UnknownNameError
    from nasgraph.pipeline import settings_from_json
    from nasgraph.pipeline.run import SETTINGS
    from nasgraph.search.snapshot import view_study
    from nasgraph.search.storage import open_storage, study_names

    storage = open_storage(address)
    known = study_names(storage)
    if not known:
        raise WrongUsageError("There is no study in the database")
    found: list[Found] = []
    for word in words or known:
        if word not in known:
            raise UnknownNameError("study", word, known, hint="Looked in the database.")
        view = view_study(storage, word)
        written = view.attributes.get(SETTINGS)
        settings = None if written is None else settings_from_json(written, source=f"the study '{word}'")
        found.append((view, settings))
    return found


def _groups(found: "list[Found]") -> "list[StudyGroup]":
    """The studies by strategy: random search last, the others in the order in which they were named."""
    from nasgraph.search.study_report import StudyGroup

    views: dict[str, list[StudyView]] = {}
    settings: dict[str, SearchSettings | None] = {}
    for view, its in found:
        label = view.study if its is None else _label(its)
        views.setdefault(label, []).append(view)
        settings[label] = its
    groups = [
        StudyGroup(
            label=label,
            views=tuple(sorted(its, key=lambda view: (view.seed or 0, view.study))),
            is_random=label == RANDOM,
            settings=_facts(settings[label]),
        )
        for label, its in views.items()
    ]
    return sorted(groups, key=lambda group: group.is_random)


def _label(settings: "SearchSettings") -> str:
    is_screened = settings.ghn != "none" and settings.screened > 0 and settings.kept > 0
    if settings.sampler == "random" and not is_screened and settings.pruner == "none":
        return RANDOM
    parts = [settings.sampler, *(["GHN screening"] if is_screened else [])]
    return ", ".join([*parts, *([f"{settings.pruner} pruner"] if settings.pruner != "none" else [])])


def _facts(settings: "SearchSettings | None") -> dict[str, str]:
    if settings is None:
        return {}
    training = ", ".join(f"{name} {value}" for name, value in settings.train.model_dump().items())
    return {
        "sampler": f"{settings.sampler}; {settings.screened} screened, {settings.kept} kept, GHN {settings.ghn}",
        "training": training,
        "pruner": settings.pruner,
    }
