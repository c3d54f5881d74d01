"""What the documentation says is true: its Python runs, its command lines parse, its tables are those of the code.

`python tests/test_docs.py` writes the tables anew from the code.
"""

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from nasgraph.ir import Attr

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]))
EXAMPLES = tuple(sorted((ROOT / "examples").glob("*.py")))


def fenced(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


# ---- Python


@pytest.mark.filterwarnings(
    "ignore:.*Any type hint is inferred as AnyType:UserWarning"
)  # mlflow's, of itself
@pytest.mark.parametrize(
    "page", [page for page in PAGES if fenced(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}  # what pages claim they assert in their own blocks
    for number, block in enumerate(fenced(page, "python"), start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    assert len(names) > 1, (
        "the blocks define what a reader goes on with; what they claim they assert themselves"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(example.parent))
    import_module(example.stem).main()
    assert "accuracy" in capsys.readouterr().out


# ---- command lines


def command_lines(page: Path) -> list[str]:
    """What a reader might type after `nasgraph`: lines of shell blocks, and commands within the text."""
    text = page.read_text(encoding="utf-8")
    shell = "\n".join(fenced(page, "sh")).replace("\\\n", " ")
    lines = [line.strip() for line in shell.splitlines()]
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`((?:nasgraph|\./run\.sh) [^`]*)`", outside)
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if len(words) > 1 and (words[0] == "nasgraph" or (words[0] == "./run.sh" and words[1] != "test")):
            found.append(shlex.join(words[1:]))
    return found


LINES = sorted({(line, page.name) for page in PAGES for line in command_lines(page)})


@pytest.mark.parametrize(("line", "page"), LINES)
def test_a_command_line_parses(line: str, page: str) -> None:
    import typer

    from nasgraph.commands.app import app

    words = [word for word in shlex.split(line) if word != "--debug"]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: there is no command '{words[0]}' in 'nasgraph {line}'"
        command = command.commands[words.pop(0)]
    if words and not {"--help", "--version"} & set(words):  # without any word it is but the name of a command
        command.make_context("nasgraph", words)


def test_the_readme_names_every_command() -> None:
    from nasgraph.commands.app import app

    names = [str(command.name) for command in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        names += [f"{group.name} {command.name}" for command in group.typer_instance.registered_commands]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"nasgraph {name}" not in readme] == []


# ---- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [
        target
        for target in targets
        if not target.startswith(("http:", "https:")) and not (page.parent / target).exists()
    ]
    assert missing == []


# ---- tables made from the code


def op_table() -> str:
    """The operators as a Markdown table."""
    from nasgraph.ir import OPS, Op
    from nasgraph.ir.ops import MANY

    def inputs(op: Op) -> str:
        fewest, most = op.num_inputs
        return (
            str(fewest) if fewest == most else f"{fewest} or more" if most == MANY else f"{fewest} to {most}"
        )

    rows = [
        (
            f"`{name}`",
            op.summary,
            f"{inputs(op)}{', any order' if op.commutative else ''}",
            "<br>".join(f"`{attr}`: {_describe(settings)}" for attr, settings in op.attrs.items()),
        )
        for name, op in OPS.items()
    ]
    return _table(("operator", "what it gives", "inputs", "attributes"), rows)


def _describe(attr: "Attr") -> str:
    described = attr.describe()
    return f"{described}; {'required' if attr.default is None else f'default {_plain(attr.default)}'}"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(_plain(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else "none" if value is None else f"{value:g}"


def settings_table() -> str:
    """The fields of a search's settings file."""
    from pydantic import BaseModel

    from nasgraph.pipeline import SearchSettings

    meanings = _attributes(SearchSettings.__doc__ or "")
    rows = []
    for name, field in SearchSettings.model_fields.items():
        is_table = isinstance(field.default, BaseModel)
        default = f"see below (`[{name}]`)" if is_table else f"`{_plain(field.default)}`"
        rows.append((f"`{name}`", default, meanings[name]))
    return _table(("field", "default", "meaning"), rows)


def training_table() -> str:
    """The fields of the tables `[train]` and `[final]`."""
    from nasgraph.evaluate import TrainConfig
    from nasgraph.pipeline import SearchSettings, TrainingSettings

    meanings = _attributes(TrainConfig.__doc__ or "")
    train, final = _values(SearchSettings().train), _values(SearchSettings().final)
    rows = [
        (f"`{name}`", f"`{_plain(train[name])}`", f"`{_plain(final[name])}`", meanings[name])
        for name in TrainingSettings.model_fields
    ]
    return _table(("field", "in `[train]`", "in `[final]`", "meaning"), rows)


def nodes_table() -> str:
    """The fields of the table `[nodes]`."""
    from nasgraph.evaluate import NodeTrainConfig
    from nasgraph.pipeline import SearchSettings

    meanings = _attributes(NodeTrainConfig.__doc__ or "")
    values = _values(SearchSettings().nodes)
    rows = [(f"`{name}`", f"`{_plain(value)}`", meanings[name]) for name, value in values.items()]
    return _table(("field", "default", "meaning"), rows)


def _values(model: "BaseModel") -> Mapping[str, object]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _attributes(docstring: str) -> dict[str, str]:
    """Meanings by name, from the section `Attributes` of a docstring."""
    section = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for names, meaning in re.findall(r"^ {8}(\w[\w, ]*): (.*(?:\n {12}.*)*)", section, re.MULTILINE):
        for name in names.split(", "):
            found[name] = " ".join(meaning.split())
    return found


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "ops": (ROOT / "docs" / "graph.md", op_table),
    "settings": (ROOT / "docs" / "search.md", settings_table),
    "training": (ROOT / "docs" / "search.md", training_table),
    "nodes": (ROOT / "docs" / "search.md", nodes_table),
}


def _marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_the_code(name: str) -> None:
    page, make = TABLES[name]
    text = page.read_text(encoding="utf-8")
    found = _marked(name).search(text)
    assert found is not None
    assert found[0] == f"{found[1]}{make()}\n{found[2]}", "run 'python tests/test_docs.py'"


def write_tables() -> None:
    """Write all tables into their pages."""
    for name, (page, make) in TABLES.items():
        text = page.read_text(encoding="utf-8")
        found = _marked(name).search(text)
        assert found is not None, f"'{page}' has no place for the table '{name}'"
        page.write_text(text.replace(found[0], f"{found[1]}{make()}\n{found[2]}"), encoding="utf-8")


if __name__ == "__main__":
    write_tables()
    sys.stderr.write("Wrote the tables\n")
