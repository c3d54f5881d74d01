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
from nasgraph.commands.search import UNLIMITED, limits
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
        (["--pruner", "guess"], 2, "pruner"),
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
    ("budget", "trials", "expected"),
    [
        (None, 7, {"trials": 7}),
        ("10min", None, {"trials": UNLIMITED, "time_limit_s": 600.0, "max_flops": None}),
        ("10min", 7, {"trials": 7, "time_limit_s": 600.0, "max_flops": None}),
        ("90", None, {"trials": 90, "time_limit_s": None, "max_flops": None}),
        ("1e15flops, 2h", None, {"trials": UNLIMITED, "time_limit_s": 7200.0, "max_flops": 1e15}),
    ],
)
def test_budgets_are_read(budget: str | None, trials: int | None, expected: dict[str, object]) -> None:
    assert limits(budget, trials, is_new=True) == expected


def test_a_budget_of_time_leaves_the_number_of_trials_of_a_resumed_search() -> None:
    assert limits("10min", None, is_new=False)["trials"] is None


@pytest.mark.parametrize("text", ["", "0", "-3s", "nan", "soon"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(WrongUsageError, match="budget"):
        limits(text, None, is_new=True)


def test_two_limits_of_the_trials_are_refused() -> None:
    with pytest.raises(WrongUsageError, match="limit the trials"):
        limits("10 trials", 5, is_new=True)


def test_a_search_with_two_workers_and_a_constraint_and_two_objectives(cli: Cli) -> None:
    done = cli(
        "search", *SMALL, "--study", "two", "--workers", "2", "--constraint", "num_parameters<=20k",
        "--objective", "val_accuracy", "--objective", "num_parameters", "--sampler", "evolution", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert all(row["num_parameters"] <= 20_000 for row in done.json["leaderboard"])
    front = [row["values"] for row in done.json["front"]]
    assert front == sorted(front, key=lambda values: -values[0])
    assert [values[1] for values in front] == sorted((values[1] for values in front), reverse=True)


def test_constraints_that_nothing_keeps_are_explained(cli: Cli) -> None:
    done = cli("search", *SMALL, "--constraint", "num_parameters<=5", "--json")
    assert done.code == 1
    assert "num_parameters <= 5" in done.err
    assert "smallest value seen" in done.err


def test_joining_needs_to_know_what(cli: Cli) -> None:
    done = cli("search", *SMALL, "--join")
    assert done.code == 2
    assert "'--storage' and '--study'" in done.err


def test_who_joins_a_finished_search_over_a_shared_storage_finds_it_done(cli: Cli, project: Path) -> None:
    words = ["--study", "shared", "--storage", "sqlite:///shared.db", "--join", "--json"]
    first = cli("search", *SMALL, *words)
    assert first.code == 0, first.err
    assert first.json["best"]["zoo"]
    (project / "nasgraph-runs" / "shared.json").unlink()  # as on another machine
    second = cli("search", *words)
    assert second.code == 0, second.err
    assert second.json["leaderboard"] == first.json["leaderboard"]
    assert "best" not in second.json
    assert "Another process" in second.err
