"""What may import what, and what stays unloaded at the start."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "torch_geometric", "optuna", "mlflow"}
LIGHT = HEAVY | {"numpy", "scipy", "sklearn", "networkx", "pandas", "PIL"}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are loaded once `code` has run in a new process."""
    report = "\nimport sys; print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    finished = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(finished.stdout.splitlines()[-1].split())


def test_importing_nasgraph_loads_no_other_package() -> None:
    assert not loaded_after("import nasgraph") & LIGHT


def verbs() -> list[list[str]]:
    """Every command and group of commands, as words."""
    from nasgraph.commands.app import app

    found: list[list[str]] = [[]]
    for command in app.registered_commands:
        assert command.name is not None
        found.append([command.name])
    for group in app.registered_groups:
        assert group.name is not None
        assert group.typer_instance is not None
        found.append([group.name])
        found += [[group.name, str(command.name)] for command in group.typer_instance.registered_commands]
    return found


def test_no_help_text_loads_a_heavy_package() -> None:
    calls = "; ".join(f"main({[*verb, '--help']!r})" for verb in verbs())
    assert not loaded_after(f"from nasgraph.commands import main; {calls}") & LIGHT


@pytest.mark.parametrize(
    "words", [["spaces", "list"], ["show", "nasbench201:1"], ["spaces", "sample", "vit"]]
)
def test_looking_at_architectures_loads_no_heavy_package(words: list[str]) -> None:
    assert not loaded_after(f"from nasgraph.commands import main; assert main({words!r}) == 0") & HEAVY


def test_help_needs_little_cpu(record_property: Callable[[str, object], None]) -> None:
    code = (
        "import resource; from nasgraph.commands import main; main(['--help']); "
        "used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = float(finished.stdout.splitlines()[-1])
    record_property("cpu_seconds", seconds)
    # The budget is 0.5 s. The modules are asserted above; this is only against what they do not show.
    assert seconds < 2.0


# ---- layers that hold for every import, lazy ones included


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` but those that only a type checker runs."""
    yield node
    if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from statements(child)


def imports() -> Iterator[tuple[str, str]]:
    """Every import statement of the packages, wherever it stands: the module, and what it imports."""
    for package in ("nasgraph", "search_spaces", "zoo"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in statements(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((module, name.name) for name in node.names)
                elif isinstance(node, ast.ImportFrom):
                    assert node.level == 0, f"{module} has a relative import"
                    yield module, str(node.module)


IMPORTS = sorted(set(imports()))


def importers(*packages: str) -> set[str]:
    return {module for module, imported in IMPORTS if within(imported, *packages)}


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_optuna_is_imported_in_search_only() -> None:
    assert {module for module in importers("optuna") if not within(module, "nasgraph.search")} == set()


def test_mlflow_is_imported_in_tracking_and_the_zoo_only() -> None:
    allowed = ("nasgraph.tracking", "nasgraph.modelzoo", "nasgraph.mlflow_client")
    assert {module for module in importers("mlflow") if not within(module, *allowed)} == set()


def test_torch_begins_at_modules() -> None:
    without = ("nasgraph.ir", "nasgraph.spaces", "nasgraph.draw", "search_spaces")
    assert {module for module in importers("torch", "torch_geometric") if within(module, *without)} == set()


@pytest.mark.parametrize("package", ["nasgraph.ir", "nasgraph.draw"])
def test_the_language_and_its_pictures_need_the_standard_library_only(package: str) -> None:
    foreign = {
        imported.partition(".")[0]
        for module, imported in IMPORTS
        if within(module, package)
        and imported.partition(".")[0] not in {*sys.stdlib_module_names, "nasgraph"}
    }
    assert foreign <= ({"networkx"} if package == "nasgraph.ir" else set())


def test_search_spaces_import_the_language_and_spaces_only() -> None:
    allowed = ("nasgraph.ir", "nasgraph.spaces", "nasgraph.errors", "search_spaces")
    reached = {
        name for module, name in IMPORTS if within(module, "search_spaces") and within(name, "nasgraph")
    }
    assert {name for name in reached if not within(name, *allowed)} == set()


def test_nasgraph_never_imports_its_content() -> None:
    assert {module for module in importers("search_spaces", "zoo") if within(module, "nasgraph")} == set()


def test_the_contracts_of_import_linter_hold() -> None:
    pytest.importorskip("importlinter", reason="import-linter comes with the extra 'dev'")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout
