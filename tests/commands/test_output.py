"""Streams and forms of what commands print."""

import json
from io import StringIO

import pytest

from nasgraph.commands.output import Output


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_without_json_tables_go_to_stdout_and_messages_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.message("hello")
    output.table(["name", "size", "score"], [["a", 12345, 0.123456], ["b", 6, None]])
    output.result({"a": 1})
    out, err = capsys.readouterr()
    assert err == "hello\n"
    assert [line.split() for line in out.splitlines() if "a" in line or "b" in line] == [
        ["name", "size", "score"],
        ["a", "12,345", "0.1235"],
        ["b", "6"],
    ]


def test_with_json_stdout_has_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json_mode=True)
    output.message("hello")
    output.table(["name"], [["a"]])
    with output.progress("Working", total=2) as bar:
        bar.advance()
    output.result({"shape": (1, 2), "loss": float("nan"), "best": [float("inf")], "é": None})
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {"shape": [1, 2], "loss": None, "best": [None], "é": None}
    assert "hello" in err
    assert "name" in err


def test_text_is_never_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["[bold]name"], [["[red]a[/red] :smile: \\["]], title="[link=x]t")
    out = capsys.readouterr().out
    assert "[red]a[/red] :smile: \\[" in out
    assert "[link=x]t" in out


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress("Working", total=3) as bar:
        bar.advance()
        bar.update(completed=2, description="Nearly")
    assert capsys.readouterr() == ("", "")


def test_progress_is_drawn_on_a_terminal_and_vanishes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Output(json_mode=True).progress("Working [1/2]", total=3) as bar:
        bar.advance(3)
    assert "Working [1/2]" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased
    assert capsys.readouterr().out == ""


def test_colours_follow_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    for no_color, has_colour in ((None, True), ("1", False)):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_color:
            monkeypatch.setenv("NO_COLOR", no_color)
        with Output().progress("Working", total=1) as bar:
            bar.advance()
        assert ("\x1b[38" in terminal.getvalue() or "\x1b[3" in terminal.getvalue()) == has_colour
