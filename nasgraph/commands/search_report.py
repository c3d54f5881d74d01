"""What `nasgraph search` shows while it runs and when it is done."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasgraph.commands.output import Output


STAGE_COLUMNS = ("stage", "scored", "passed", "CPU s each", "tau with results", "state")


def stage_rows(rounds: "Sequence[Mapping[str, Any]]") -> list[list[str | int]]:
    """One row per stage: sums over the rounds, and what the last round knew of its reliability."""
    rows: list[list[str | int]] = []
    for place, last in enumerate(rounds[-1]["stages"]):
        stages = [each["stages"][place] for each in rounds]
        scored = sum(stage["num_scored"] for stage in stages)
        cpu = sum(stage["num_scored"] * stage["cpu_s"] for stage in stages)
        known = last["with_result"]
        agreement = (
            ""
            if known is None or known["tau"] is None
            else f"{known['tau']:.2f} ({known['low']:.2f} to {known['high']:.2f})"
        )
        passed = sum(stage["num_passed"] for stage in stages)
        rows.append([last["name"], scored, passed, f"{cpu / max(1, scored):.3f}", agreement, last["state"]])
    return rows


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
        if len(summary["front"]) > 1:
            front = [[row["trial"], *row["values"], row["fingerprint"]] for row in summary["front"]]
            output.table(
                ["trial", *summary["objectives"], "fingerprint"], front, title="Trials that none beats"
            )
        if summary["rounds"]:
            output.table(STAGE_COLUMNS, stage_rows(summary["rounds"]), title="Stages, over all rounds")
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
