"""Exit codes, messages and streams of every command line."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from nasgraph import __version__
from nasgraph.commands import app as application
from nasgraph.errors import CheckpointError, ConfigError, UnknownNameError
from tests.commands.running import Cli
from tests.signals import heed_ctrl_c

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def failing() -> Iterator[list[BaseException]]:
    """A command `fail` that raises what the list holds."""
    errors: list[BaseException] = []

    def fail() -> None:
        raise errors[0]

    application.app.command("fail")(fail)
    yield errors
    application.app.registered_commands.pop()


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out == f"nasgraph {__version__}\n"


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], [], ["spaces", "-h"], ["spaces", "sample", "-h"], ["show", "-h"]]
)
def test_help_is_printed(cli: Cli, words: list[str]) -> None:
    finished = cli(*words)
    assert finished.code == 0
    assert "Usage: nasgraph" in finished.out
    assert finished.err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shw"], "No such command 'shw'"),
        (["spaces"], "Missing command"),
        (["show"], "Missing argument 'TARGET'"),
        (["show", "mlp:1", "--fast"], "No such option"),
        (["show", "mlp:1", "--classes", "many"], "Invalid value for '--classes'"),
        (["show", "mlp:1", "--classes", "0"], "Invalid value for '--classes'"),
        (["show", "mlp:1", "--input-shape", "8,-8"], "Expected '--input-shape' as positive integers"),
        (["spaces", "show", "nb201"], "No search space named 'nb201'. Close: 'nasbench201'"),
        (["spaces", "sample", "convnt", "--json"], "No search space named 'convnt'. Close: 'convnet'"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(cli: Cli, words: list[str], message: str) -> None:
    finished = cli(*words)
    assert finished.code == 2
    assert finished.err.startswith("error: ")
    assert finished.err.count("\n") == 1
    assert message in finished.err
    assert finished.out == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CheckpointError("'a.safetensors'\nis truncated"), 1, "error: 'a.safetensors' is truncated"),
        (ConfigError("Unknown field 'sede'"), 2, "error: Unknown field 'sede'"),
        (UnknownNameError("sampler", "tp", ["tpe"]), 2, "error: No sampler named 'tp'. Close: 'tpe'."),
        (
            ZeroDivisionError("division by zero"),
            1,
            "error: ZeroDivisionError: division by zero (this is a bug; run with --debug for the traceback)",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line_each(
    cli: Cli, failing: list[BaseException], error: BaseException, code: int, line: str
) -> None:
    failing.append(error)
    finished = cli("fail")
    assert (finished.code, finished.out, finished.err) == (code, "", line + "\n")


@pytest.mark.parametrize("words", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_anywhere_prints_the_traceback(
    cli: Cli, failing: list[BaseException], words: list[str]
) -> None:
    failing.append(CheckpointError("truncated"))
    finished = cli(*words)
    assert finished.code == 1
    assert "Traceback (most recent call last)" in finished.err
    assert "in fail" in finished.err
    assert finished.err.endswith("error: truncated\n")


def test_a_command_may_choose_its_exit_code(cli: Cli, failing: list[BaseException]) -> None:
    failing.append(typer.Exit(1))
    finished = cli("fail")
    assert (finished.code, finished.err) == (1, "")


def run(*words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **more}
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_launcher_of_a_checkout_works_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = run("show", "convnt:1")
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: No search space named 'convnt'. Close: 'convnet'")


def test_output_to_files_has_no_colours_and_is_not_cut_short() -> None:
    finished = run("spaces", "sample", "nasbench201", "-n", "2", NO_COLOR="1", COLUMNS="20")
    assert finished.returncode == 0
    assert "\x1b" not in finished.stdout
    assert re.search(r"nasbench201:0 +[0-9a-f]{16} +\d+ +[\d,]+ +[\d,]+", finished.stdout)
    assert finished.stderr == ""


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "show", "convnet:1", "-o", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    message = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert message == b""


def test_ctrl_c_ends_with_a_line_and_code_130() -> None:
    command = [
        sys.executable,
        str(ROOT / "cli.py"),
        "spaces",
        "count",
        "convnet",
        "--limit",
        "100000000",
        "--debug",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    deadline = time.monotonic() + 60
    while not _is_counting(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def _is_counting(pid: int) -> bool:
    """Whether the process has loaded numpy: then it is past its start, and in the command."""
    maps = Path(f"/proc/{pid}/maps")
    if not maps.exists():
        time.sleep(3)
        return True
    return "numpy" in maps.read_text()
