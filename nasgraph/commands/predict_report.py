"""What `nasgraph predict` prints: one object for programs, tables for people. The keys are described in docs/predict.md."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell, Output
    from nasgraph.commands.predict_known import Labels
    from nasgraph.commands.predict_target import Subject
    from nasgraph.predict import Performance


def subject_facts(target: str, subject: "Subject") -> dict[str, object]:
    """What is true of the target whatever is predicted."""
    from nasgraph.ir import cost_of

    graph = subject.graph
    cost = cost_of(graph)
    return {
        "target": target,
        "kind": subject.kind,
        "fingerprint": graph.fingerprint,
        "input_shapes": [graph.shapes[index] for index in graph.inputs],
        "output_shapes": [graph.shapes[index] for index in graph.outputs],
        "num_parameters": cost.num_parameters,
        "multiply_adds": cost.multiply_adds,
        "activation_bytes": cost.activation_bytes,
        "depth": cost.depth,
    }


def prediction_facts(found: "Performance", labels: "Labels") -> dict[str, object]:
    """A prediction for JSON, with where it is from."""
    return {
        "metric": asdict(found.metric),
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "level": found.level,
        "is_trusted": found.is_trusted,
        "warnings": list(found.warnings),
        "distance": found.distance,
        "outside": [asdict(column) for column in found.outside],
        "nearest": [asdict(neighbour) for neighbour in found.nearest],
        "measured": found.measured,
        "num_opaque": found.num_opaque,
        "known": labels.name,
        "num_known": len(labels.known),
        "remarks": list(labels.remarks),
    }


def print_subject(output: "Output", facts: Mapping[str, object]) -> None:
    """Costs."""
    size = cast("int", facts["activation_bytes"])
    output.facts(
        {
            "fingerprint": str(facts["fingerprint"]),
            "input": ", ".join(
                "x".join(map(str, s)) for s in cast("list[tuple[int, ...]]", facts["input_shapes"])
            ),
            "parameters": cast("int", facts["num_parameters"]),
            "multiply-adds": cast("int", facts["multiply_adds"]),
            "activations, MiB": f"{size / 2**20:.3g}",
            "depth": cast("int", facts["depth"]),
        },
        title=str(facts["target"]),
    )


def print_prediction(output: "Output", found: "Performance", labels: "Labels") -> None:
    """The prediction, its warnings, and the nearest known architectures."""
    metric = found.metric
    unit = f" {metric.unit}" if metric.unit else ""
    what = f"{metric.name} on {metric.data}" if metric.data else metric.name
    rows: dict[str, Cell] = {
        what: f"{found.mean:.4g}{unit}",
        f"{100 * found.level:.4g} % interval": f"{found.low:.4g} to {found.high:.4g}{unit}"
        + ("" if found.is_trusted else ", which promises nothing here"),
        "measured as": metric.protocol or None,
        "distance": f"{found.distance:.2f} (above 1 is unlike what is known)",
    }
    if found.measured is not None:
        rows["measured of this very graph"] = f"{found.measured:.4g}{unit}"
    output.facts(rows, title=f"Predicted from {len(labels.known):,} architectures of {labels.name}")
    output.table(
        ["nearest known architecture", "distance", f"measured{unit and ','}{unit}"],
        [(each.key, f"{each.distance:.2f}", f"{each.value:.4g}") for each in found.nearest],
    )
    for text in found.warnings:
        output.message(f"warning: {text}")
    for text in labels.remarks:
        output.message(f"note: {text}")


def print_scores(output: "Output", facts: Mapping[str, object], *, tune_steps: int) -> None:
    """Scores with predicted weights."""
    scores = cast("dict[str, float]", facts["scores"])
    share = cast("float | None", facts["better_than_share_of_random"])
    output.facts(
        {
            "accuracy with predicted weights": f"{scores['ghn_accuracy']:.4f}",
            f"after {tune_steps} steps from them": f"{scores['tuned_accuracy']:.4f}" if tune_steps else None,
            f"better than, of {facts['compared_with']} random candidates": None
            if share is None
            else f"{share:.0%}",
        },
        title=f"Scores on {facts['data']}, by {facts['ghn']}",
    )
    output.message(
        "Scores with predicted weights rank architectures; they are not the accuracy after training."
    )


def print_proxies(output: "Output", facts: Mapping[str, object]) -> None:
    """Proxies, with the reason where one is undefined."""
    scores, reasons = cast("dict[str, float]", facts["scores"]), cast("dict[str, str]", facts["reasons"])
    rows = [(name, f"{value:.6g}", reasons.get(name, "")) for name, value in scores.items()]
    output.table(["proxy", "score", "why there is none"], rows, title=f"On {facts['examples']}")


def print_latency(output: "Output", facts: Mapping[str, object]) -> None:
    """The measured latency and its circumstances."""
    output.facts(
        {
            "latency, ms": f"{facts['median_ms']:.4g} ({facts['low_ms']:.4g} to {facts['high_ms']:.4g})",
            "measured on": f"{facts['device']}, {facts['num_threads']} thread, batch of {facts['batch_size']}, "
            f"{facts['repeats']} repeats",
        },
        title="Latency on this machine",
    )
