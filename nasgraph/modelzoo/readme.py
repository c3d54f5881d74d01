"""A card as the README that people and the Hugging Face hub read: YAML front matter, then measured facts."""

from collections.abc import Sequence

from nasgraph.modelzoo.card import Measurement, ModelCard


def card_markdown(card: ModelCard, *, has_picture: bool = False) -> str:
    """The README of a zoo entry. Says nothing that the card does not.

    Args:
        card: The card.
        has_picture: Whether `architecture.svg` lies beside it.
    """
    cells = [
        ("task", card.task),
        ("licence of the weights", card.licence),
        ("search space", card.architecture.space),
        ("parameters", f"{card.num_parameters:,}"),
        ("multiply-adds per example", f"{card.multiply_adds:,}"),
        ("fingerprint", card.fingerprint),
        ("seed", str(card.seed)),
        ("created", card.created),
        ("nasgraph", card.nasgraph_version),
        ("torch", card.torch_version),
        ("python", card.python_version),
        ("sha256 of the weights", card.weights_sha256),
    ]
    parts = [_front_matter(card), f"# {card.name}\n", _table(("fact", "value"), cells)]
    if has_picture:
        parts.append("![Architecture](architecture.svg)\n")
    parts += [_measurements(card), _data(card), _origin(card), _usage(card)]
    return "\n".join(part for part in parts if part)


def _front_matter(card: ModelCard) -> str:
    lines = [
        "---",
        f"license: {_quoted(card.licence)}",
        "library_name: nasgraph",
        f"pipeline_tag: {_quoted(card.task)}",
        "tags:",
        *(f"- {_quoted(tag)}" for tag in ("nasgraph", "neural-architecture-search", card.architecture.space)),
        "datasets:",
        f"- {_quoted(card.data.name)}",
    ]
    if card.measurements:
        lines += [
            "metrics:",
            *(f"- {_quoted(name)}" for name in sorted({m.metric for m in card.measurements})),
        ]
        lines += ["model-index:", f"- name: {_quoted(card.name)}", "  results:"]
        for measurement in card.measurements:
            lines += _result(card, measurement)
    return "\n".join([*lines, "---", ""])


def _result(card: ModelCard, measurement: Measurement) -> list[str]:
    return [
        "  - task:",
        f"      type: {_quoted(card.task)}",
        "    dataset:",
        f"      name: {_quoted(card.data.name)}",
        f"      type: {_quoted(card.data.name)}",
        f"      split: {measurement.split}",
        "    metrics:",
        f"    - type: {_quoted(measurement.metric)}",
        f"      value: {measurement.value!r}",
    ]


def _measurements(card: ModelCard) -> str:
    if not card.measurements and not card.scores:
        return ""
    rows = [
        (m.split, m.metric, repr(m.value), f"{m.num_examples:,}", str(m.batch_size), m.protocol)
        for m in card.measurements
    ]
    text = "## Measured\n\n" + _table(
        ("split", "metric", "value", "examples", "batch size", "protocol"), rows
    )
    if card.scores:
        scores = [(name, repr(value)) for name, value in card.scores]
        text += "\n## Predicted before training\n\n" + _table(("score", "value"), scores)
    return text


def _data(card: ModelCard) -> str:
    data = card.data
    rows = [
        ("data set", data.name),
        ("source", data.source),
        ("licence", data.licence),
        ("sha256", data.sha256),
        ("input shape", " x ".join(map(str, data.input_shape))),
        ("classes", ", ".join(data.class_names)),
        ("split seed", str(data.split_seed)),
        ("validation share", repr(data.validation_share)),
        ("image size", "as published" if data.image_size is None else str(data.image_size)),
        ("training examples kept", "all" if data.num_train is None else f"{data.num_train:,}"),
    ]
    return "## Data\n\n" + _table(("fact", "value"), rows)


def _origin(card: ModelCard) -> str:
    lineage = card.lineage
    rows = [
        ("study", lineage.study),
        ("trial", "" if lineage.trial is None else str(lineage.trial)),
        ("MLflow run", lineage.run_id),
        ("graph hypernetwork", lineage.ghn),
    ]
    rows = [row for row in rows if row[1]]
    rows += [(f"training: {name}", str(value)) for name, value in card.training]
    rows += [(f"choice: {name}", str(value)) for name, value in card.architecture.choices]
    return "## Origin\n\n" + _table(("fact", "value"), rows) if rows else ""


def _usage(card: ModelCard) -> str:
    return f"""## Use

```python
from nasgraph.modelzoo import load_entry

entry = load_entry("path/to/{card.name}")
logits = entry.module()(inputs)  # normalised inputs, [batch, {", ".join(map(str, card.data.input_shape))}]
```

`mlflow.pyfunc.load_model` loads the same folder. Inputs are expected normalised; pass `params={{"raw": True}}` to
`predict` to have the constants in `card.json` applied.
"""


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """Text that stays within its cell and is no markup."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split()) or " "


def _quoted(text: str) -> str:
    """A YAML string in double quotes, in ASCII: nothing in it can end it."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    number = ord(character)
    if " " <= character <= "~":
        return f"\\{character}" if character in '"\\' else character
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
