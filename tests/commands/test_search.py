"""`nasgraph search`: ends with a registered model, resumes after a kill, and explains what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nasgraph.commands.options import WrongUsageError
from nasgraph.commands.search import parse_duration
from tests.commands.running import Cli
from tests.signals import heed_ctrl_c

SMALL = (
    "--space",
    "mlp",
    "--trials",
    "3",
    "--screened",
    "6",
    "--kept",
    "2",
    "--epochs",
    "1",
    "--final-epochs",
    "2",
)


pytestmark = pytest.mark.usefixtures("project")


def test_a_search_registers_its_winner_and_is_over_after_that(cli: Cli, tmp_path: Path) -> None:
    done = cli("search", *SMALL, "--study", "first", "--json")
    assert done.code == 0, done.err
    result = done.json
    assert {"study", "trials", "best", "seconds", "tracking_uri"} <= set(result)
    assert result["trials"] == 3
    assert result["best"]["zoo"] == "mlp-digits/1"
    assert 0 < result["best"]["metrics"]["test_accuracy"] <= 1
    assert Path(result["best"]["picture"]).read_text().startswith("<svg")
    assert result["tracking"]["missing"] == 0

    shown = cli("zoo", "show", "mlp-digits", "--json")
    assert shown.code == 0, shown.err
    verified = cli("zoo", "verify", "mlp-digits", "--json")
    assert verified.code == 0, verified.err

    again = cli("search", "--resume", "--json")
    assert again.code == 0, again.err
    assert again.json == result


def test_a_killed_search_is_resumed_and_loses_nothing(tmp_path: Path) -> None:
    words = ["search", *SMALL[:2], "--trials", "6", "--screened", "0", "--epochs", "2", "--final-epochs", "1",
             "--study", "killed", "--json"]  # fmt: skip
    command = [sys.executable, "-c", "import sys; from nasgraph.commands import main; sys.exit(main())"]
    journal = tmp_path / "nasgraph-runs" / "killed.journal"
    with subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("trial   1"):
                break
        os.kill(process.pid, signal.SIGKILL)
    assert journal.stat().st_size > 0
    done = subprocess.run(
        [*command, "search", "--resume", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Continuing after" in done.stderr
    result = json.loads(done.stdout)
    assert (result["trials"], result["states"]) == (6, {"complete": 6})


def test_an_interrupted_search_says_how_to_go_on(tmp_path: Path) -> None:
    words = [
        "search",
        "--space",
        "mlp",
        "--trials",
        "50",
        "--screened",
        "0",
        "--epochs",
        "3",
        "--study",
        "stopped",
    ]
    command = [sys.executable, "-c", "import sys; from nasgraph.commands import main; sys.exit(main())"]
    with subprocess.Popen(
        [*command, *words], stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("trial   0"):
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "--resume --study stopped" in rest


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--space", "convnett"], 2, "convnet"),
        (["--data", "digitz"], 2, "digits"),
        (["--data", "nothing/here.npz"], 1, "nothing/here.npz"),
        (["--ghn", "ghn-digit"], 2, "ghn-digits"),
        (["--sampler", "tpee"], 2, "tpe"),
        (["--pruner", "halving"], 2, "pruner"),
        (["--trials", "0"], 2, "trials"),
        (["--budget", "soon"], 2, "10min"),
        (["--device", "abacus"], 2, "abacus"),
        (["--config", "missing.toml"], 2, "missing.toml"),
        (["--resume"], 2, "no study to resume"),
        (["--study", "../x"], 2, "study name"),
        (["--data", "fashion-mnist", "--data-dir", "missing"], 1, "missing"),
    ],
)
def test_wrong_input_is_explained_in_one_line(cli: Cli, words: list[str], code: int, message: str) -> None:
    done = cli("search", "--json", *words)
    assert done.code == code, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.err
    assert done.out == ""


def test_an_unreachable_server_is_noticed_before_anything_is_computed(cli: Cli) -> None:
    done = cli("search", *SMALL, "--tracking-uri", "http://127.0.0.1:9", "--json")
    assert done.code == 1
    assert "127.0.0.1:9" in done.err
    assert "trial   0" not in done.err


def test_a_winner_that_was_written_but_not_registered_is_registered_on_resume(
    cli: Cli, project: Path
) -> None:
    assert cli("search", *SMALL, "--study", "half", "--json").code == 0
    state = project / "nasgraph-runs" / "half.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "result": None}))
    done = cli("search", "--resume", "--json")
    assert done.code == 0, done.err
    assert done.json["best"]["zoo"] == "mlp-digits/2"


def test_a_resumed_search_may_have_more_trials(cli: Cli, project: Path) -> None:
    assert cli("search", *SMALL, "--study", "longer", "--json").code == 0
    state = project / "nasgraph-runs" / "longer.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "result": None}))
    done = cli("search", "--resume", "--trials", "4", "--json")
    assert done.code == 0, done.err
    assert done.json["trials"] == 4


def test_a_resumed_search_keeps_its_settings(cli: Cli) -> None:
    assert cli("search", *SMALL, "--study", "kept", "--budget", "0.001s").code in (0, 1)
    done = cli("search", "--resume", "--study", "kept", "--space", "vit")
    assert done.code == 2
    assert "was begun with 'space'" in done.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("10min", 600.0), ("1.5h", 5400.0), (" 2 m ", 120.0)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3s", "1 day", "nan", "1e9"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(WrongUsageError, match="10min"):
        parse_duration(text)
