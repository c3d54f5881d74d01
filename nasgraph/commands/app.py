"""The command `nasgraph`: its verbs, and what happens on errors.

Each verb lives in a file of its own, whose head imports typer, the standard library and `nasgraph.errors` only; what is
heavy is imported inside the command. So `nasgraph --help` answers at once.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

import typer

from nasgraph.commands import (
    bench,
    demo,
    ghn,
    init,
    meta,
    predict,
    report,
    search,
    show,
    spaces,
    trace,
    watch,
    zoo,
)
from nasgraph.commands.options import WrongUsageError
from nasgraph.errors import ConfigError, NasGraphError, UnknownNameError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="nasgraph",
    help="Architecture search with graph hypernetworks: graphs in, trained and registered models out.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    pretty_exceptions_enable=False,
)
app.add_typer(bench.app, name="bench")
app.add_typer(spaces.app, name="spaces")
app.add_typer(ghn.app, name="ghn")
app.add_typer(zoo.app, name="zoo")
app.add_typer(meta.app, name="meta")
app.command("search")(search.search)
app.command("watch")(watch.watch)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("show")(show.show)
app.command("trace")(trace.trace)
app.command("init")(init.init)
app.command("demo")(demo.demo)


@runtime_checkable
class UsageProblem(Protocol):
    """What typer raises on wrong usage: an error of click's, or of the copy of click in newer versions of typer."""

    exit_code: int

    def format_message(self) -> str:
        """One line for people."""


def _print_version(wanted: bool) -> bool:
    if wanted:
        from nasgraph import __version__

        typer.echo(f"nasgraph {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="On errors print the traceback. May stand anywhere on the line.")
    ] = False,
) -> None:
    """Both options act before this is called: `version` when it is parsed, `debug` in `main`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0: done. 1: failed, with one line on stderr. 2: wrong usage, an unknown name or a wrong configuration. 130:
    interrupted. With `--debug` anywhere on the line, errors come with their traceback.

    Args:
        arguments: Words after the program's name; those of the process if not given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001  the outermost border: every error becomes one line
        if debug:
            traceback.print_exc()
        text, code = _explain(error, debug=debug)
        sys.stderr.write(f"error: {text}\n")
    if code == INTERRUPTED:
        sys.stderr.write("interrupted\n")
    return code


def _run(words: list[str]) -> int:
    code = app(args=words, prog_name="nasgraph", standalone_mode=False)
    return code if isinstance(code, int) else DONE


def _explain(error: Exception, *, debug: bool) -> tuple[str, int]:
    """One line for an error, and its exit code."""
    if isinstance(error, UnknownNameError | ConfigError | WrongUsageError):
        return _one_line(error), WRONG_USAGE
    if isinstance(error, NasGraphError):
        return _one_line(error), FAILED
    if isinstance(error, UsageProblem):
        text = " ".join(error.format_message().split())
        return f"{text}{'' if text.endswith(('.', '?')) else '.'} See 'nasgraph --help'.", WRONG_USAGE
    hint = "" if debug else " (this is a bug; run with --debug for the traceback)"
    return f"{type(error).__name__}: {_one_line(error)}{hint}", FAILED


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
