"""What `nasgraph search` shows while it runs and when it is done."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from nasgraph.commands.output import Bar, Output
    from nasgraph.search import ScreenedCandidate, SearchInfo, SearchResult, TrialResult


class ProgressListener:
    """Shows a search on stderr: a bar while candidates are screened, one while they are trained, a line per trial."""

    def __init__(self, output: "Output") -> None:
        self._output = output
        self._stack = ExitStack()
        self._bar: Bar | None = None
        self._best = float("-inf")
        self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def on_start(self, info: "SearchInfo") -> None:
        self._total = info.config.num_trials
        if info.resumed_trials:
            self._output.message(f"Continuing after {info.resumed_trials} trials")

    def on_screened(self, screened: "Sequence[ScreenedCandidate]", *, total: int) -> None:
        bar = self._bar or self._open("Scoring candidates with predicted weights", total)
        bar.advance(len(screened))

    def on_kept(self, screened: "Sequence[ScreenedCandidate]") -> None:
        self._close()
        accuracy = [item.scores["ghn_accuracy"] for item in screened if "ghn_accuracy" in item.scores]
        if accuracy:
            mean, kept = sum(accuracy) / len(accuracy), [i for i in screened if i.kept]
            best = sum(i.scores["ghn_accuracy"] for i in kept) / max(1, len(kept))
            self._output.message(
                f"Scored {len(screened)} candidates without training: accuracy with predicted weights {mean:.3f} on "
                f"average, {best:.3f} for the {len(kept)} that are kept"
            )

    def on_trial(self, result: "TrialResult") -> None:
        bar = self._bar
        if bar is None:
            bar = self._open("Training candidates", self._total)
            bar.update(completed=result.number)
        value = result.metrics.get("val_accuracy")
        if value is None:
            self._output.message(f"trial {result.number:>3}  {result.state.value}: {result.reason}")
        else:
            mark = "  best so far" if value > self._best else f"  {result.reason}" if result.reason else ""
            self._best = max(self._best, value)
            size = int(result.metrics["num_parameters"])
            self._output.message(
                f"trial {result.number:>3}  validation accuracy {value:.4f}  {size:>9,} parameters  {result.seconds:5.1f} s{mark}"
            )
        bar.advance()

    def on_end(self, result: "SearchResult") -> None:
        self._close()
        if result.num_duplicates:
            self._output.message(f"{result.num_duplicates} proposals were known graphs and not trained again")

    def _open(self, description: str, total: int) -> "Bar":
        bar: AbstractContextManager[Bar] = self._output.progress(description, total=total)
        self._bar = self._stack.enter_context(bar)
        return self._bar

    def _close(self) -> None:
        self._stack.close()
        self._bar = None


def print_result(output: "Output", summary: Mapping[str, Any]) -> None:
    """Print the leaderboard and the winner, or the JSON object."""
    from nasgraph.mlflow_client import resolve_tracking_uri

    best = summary["best"]
    if not output.json_mode:
        rows = [
            [
                row["trial"],
                row["val_accuracy"],
                row["ghn_accuracy"],
                row["num_parameters"],
                row["fingerprint"],
            ]
            for row in summary["leaderboard"]
        ]
        columns = ["trial", "validation accuracy", "GHN score", "parameters", "fingerprint"]
        output.table(columns, rows, title=f"Best of {summary['trials']} trials in {summary['seconds']:.0f} s")
        facts = {
            "model": best["zoo"] or f"not registered; in {best['folder']}",
            "test accuracy": f"{best['metrics']['test_accuracy']:.4f}  (measured once, after the search)",
            "validation accuracy": f"{best['metrics']['val_accuracy']:.4f}",
            "parameters": best["num_parameters"],
            "multiply-adds": best["multiply_adds"],
            "picture": best["picture"],
        }
        output.facts(facts, title="The winner, trained and registered")
        if best["zoo"]:
            store = (
                ""
                if summary["tracking_uri"] == resolve_tracking_uri()
                else f" --tracking-uri {summary['tracking_uri']}"
            )
            output.message(
                f"Next:  nasgraph zoo show {best['zoo']}{store}   |   nasgraph zoo verify {best['zoo']}{store}"
            )
        output.message(f"Runs:  mlflow ui --backend-store-uri {summary['tracking_uri']}")
    output.result(summary)
