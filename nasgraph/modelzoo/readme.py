"""A card as the README that people and the Hugging Face hub read: YAML front matter, then measured facts."""

import re
from collections.abc import Sequence

from nasgraph.modelzoo.card import LatencyFact, Measurement, ModelCard

SOURCE_USAGE = """\
```python
from load import load, normalise  # in this folder; needs torch and safetensors

network = load()
logits = network(normalise(raw))  # raw inputs of the published range, `[batch, ...]`
```

`python load.py` runs the network on stored inputs and compares what comes out with what the original gave.
"""
"""How a folder with source is used."""

HUB_LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "lppl-1.3c",
        "ms-pl",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "unknown",
        "other",
    ]
)
"""Licences that the hub knows by name."""
_OTHER_NAMES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl", "cc-pddc": "pddl"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?", re.ASCII)


def card_markdown(
    card: ModelCard, *, has_picture: bool = False, usage: str | None = None, for_hub: bool = False
) -> str:
    """The README of a zoo entry. Says nothing that the card does not.

    Args:
        card: The card.
        has_picture: Whether `architecture.svg` lies beside it.
        usage: How the folder is used, in Markdown; None: as an entry.
        for_hub: Whether the front matter may have only what the hub accepts: a licence that it does not know becomes `other`
            with a `license_name`.
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
    parts = [_front_matter(card, for_hub=for_hub), f"# {card.name}\n", _table(("fact", "value"), cells)]
    if has_picture:
        parts.append("![Architecture](architecture.svg)\n")
    usage = _entry_usage(card) if usage is None else usage
    parts += [
        _measurements(card),
        _latencies(card.latencies),
        _data(card),
        _origin(card),
        f"## Use\n\n{usage}",
    ]
    return "\n".join(part for part in parts if part)


def hub_licence(licence: str) -> str | None:
    """The hub's name of a licence, from an SPDX identifier; None if the hub has none."""
    name = re.sub(r"-(only|or-later)$", "", licence.strip().lower())
    name = _OTHER_NAMES.get(name, name)
    return name if name in HUB_LICENCES else None


def _front_matter(card: ModelCard, *, for_hub: bool) -> str:
    tags = dict.fromkeys(("nasgraph", "neural-architecture-search", card.architecture.space))
    lines = ["---", *_licence(card.licence, for_hub=for_hub), "library_name: nasgraph"]
    if re.fullmatch(r"[a-z0-9-]+", card.task) and card.task != "other":
        lines.append(f"pipeline_tag: {_quoted(card.task)}")
    lines += ["tags:", *(f"- {_quoted(tag)}" for tag in tags)]
    if card.data is not None and (not for_hub or _HUB_NAME.fullmatch(card.data.name)):
        lines += ["datasets:", f"- {_quoted(card.data.name)}"]
    if card.measurements:
        kinds = sorted({_kind(measurement) for measurement in card.measurements})
        lines += ["metrics:", *(f"- {_quoted(name)}" for name in kinds)]
        lines += ["model-index:", f"- name: {_quoted(card.name)}", "  results:"]
        for split in dict.fromkeys(measurement.split for measurement in card.measurements):
            lines += _results(card, split)
    return "\n".join([*lines, "---", ""])


def _licence(licence: str, *, for_hub: bool) -> list[str]:
    known = hub_licence(licence)
    if known is not None:
        return [f"license: {_quoted(known)}"]
    if not for_hub:
        return [f"license: {_quoted(licence)}"]
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-.")[:80] or "unnamed"
    return ["license: other", f"license_name: {_quoted(slug)}"]


def _kind(measurement: Measurement) -> str:
    """What is measured, without the condition: the hub groups results by it."""
    return measurement.metric.partition("@")[0]


def _results(card: ModelCard, split: str) -> list[str]:
    """All numbers of one split, as the hub's client itself groups them."""
    assert card.data is not None
    lines = [
        "  - task:",
        f"      type: {_quoted(card.task)}",
        "    dataset:",
        f"      name: {_quoted(card.data.name)}",
        f"      type: {_quoted(card.data.name)}",
        f"      split: {split}",
        "    metrics:",
    ]
    for measurement in card.measurements:
        if measurement.split == split:
            lines += [f"    - type: {_quoted(_kind(measurement))}", f"      value: {measurement.value!r}"]
            lines += [f"      name: {_quoted(measurement.metric)}"] if "@" in measurement.metric else []
    return lines


def _measurements(card: ModelCard) -> str:
    text = ""
    if card.measurements:
        rows = [
            (m.split, m.metric, repr(m.value), f"{m.num_examples:,}", str(m.batch_size), m.protocol)
            for m in card.measurements
        ]
        header = ("split", "metric", "value", "examples", "batch size", "protocol")
        text = "## Measured\n\n" + _table(header, rows)
    if card.scores:
        scores = [(name, repr(value)) for name, value in card.scores]
        text += f"{chr(10) if text else ''}## Predicted before training\n\n" + _table(
            ("score", "value"), scores
        )
    return text


def _latencies(latencies: Sequence[LatencyFact]) -> str:
    if not latencies:
        return ""
    rows = [
        (
            f"{1e3 * fact.median_s:.4g} ms",
            f"{1e3 * fact.low_s:.4g} to {1e3 * fact.high_s:.4g} ms",
            f"{fact.hardware} ({fact.device})",
            str(fact.threads),
            str(fact.batch_size),
            fact.dtype,
            fact.protocol,
        )
        for fact in latencies
    ]
    header = ("median", "95 % interval", "hardware", "threads", "batch size", "type", "protocol")
    return "## Latency of one forward pass\n\n" + _table(header, rows)


def _data(card: ModelCard) -> str:
    data = card.data
    if data is None:
        return "## Data\n\nWhat it was trained on is not known.\n"
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
        ("origin", lineage.origin),
        ("study", lineage.study),
        ("trial", "" if lineage.trial is None else str(lineage.trial)),
        ("MLflow run", lineage.run_id),
        ("graph hypernetwork", lineage.ghn),
        ("made from", lineage.parent),
        ("compared with the architecture", lineage.parent_fingerprint),
        ("of trial", "" if lineage.parent_trial is None else str(lineage.parent_trial)),
        *(
            (f"changed: {name}", f"{before or '(absent)'} → {after or '(absent)'}")
            for name, before, after in lineage.mutation
        ),
        ("merged of", ", ".join(lineage.ingredients)),
        ("note", lineage.note),
    ]
    rows = [row for row in rows if row[1]]
    rows += [(f"training: {name}", str(value)) for name, value in card.training]
    rows += [(f"choice: {name}", str(value)) for name, value in card.architecture.choices]
    return "## Origin\n\n" + _table(("fact", "value"), rows)


def _entry_usage(card: ModelCard) -> str:
    shape = "..." if card.data is None else ", ".join(map(str, card.data.input_shape))
    normalised = (
        ""
        if card.data is None
        else ' Inputs are expected normalised; pass\n`params={"raw": True}` to `predict` to have the constants in '
        "`card.json` applied."
    )
    return f"""\
```python
from nasgraph.modelzoo import load_entry

entry = load_entry("path/to/{card.name}")
logits = entry.module()(inputs)  # normalised inputs, [batch, {shape}]
```

`mlflow.pyfunc.load_model` loads the same folder.{normalised}
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
