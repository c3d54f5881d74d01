"""`nasgraph zoo`: which models there are, what is known of them, and getting them out."""

from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands import zoo_add, zoo_ask, zoo_out, zoo_serve, zoo_soup
from nasgraph.commands.options import DataDirOption, JsonOption, NameArgument, TrackingUriOption
from nasgraph.errors import NasGraphError, ZooError

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell, Output
    from nasgraph.modelzoo import ModelCard, Verification, ZooEntry
    from nasgraph.modelzoo.store import Listing, Zoo

app = typer.Typer(help="The model zoo: browse it, ask it, add to it, and get models out.")
app.command("add")(zoo_add.add)
app.command("alias")(zoo_add.alias)
app.command("similar")(zoo_ask.similar)
app.command("compare")(zoo_ask.compare)
app.command("soup")(zoo_soup.soup)
app.command("for-data")(zoo_ask.for_data)
app.command("measure")(zoo_out.measure)
app.command("export")(zoo_out.export)
app.command("push-hub")(zoo_out.push_hub)
app.command("serve")(zoo_serve.serve)

_NOUNS = {
    "ghn": "a graph hypernetwork",
    "curves": "a network that extrapolates learning curves",
    "performance": "measured architectures that predictions rest on",
    "prior-fitted": "a network that predicts from a few labels",
    "architecture-encoder": "a network that finds similar architectures",
    "metanetwork": "a network that reads the weights of networks",
    "learned-optimiser": "a network that writes updates of weights",
    "population": "many small trained networks",
}


@app.command("list")
def list_models(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Names with * and ?, quoted.")] = "*",
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """List registered and shipped models."""
    from nasgraph.commands.output import Output

    output = Output(json_mode=json)
    listings = _zoo(tracking_uri).list_models(pattern)
    if not json:
        columns = [
            "name",
            "version",
            "kind",
            "data",
            "test accuracy",
            "parameters",
            "multiply-adds",
            "aliases",
            "from",
        ]
        output.table(columns, [_row(listing) for listing in listings])
        if not listings:
            output.message(f"No model matches '{pattern}'. 'nasgraph search' makes one")
    output.result({"models": [_summary(listing) for listing in listings]})


@app.command("show")
def show_model(name: NameArgument, tracking_uri: TrackingUriOption = None, json: JsonOption = False) -> None:
    """Show the card of a model."""
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo import card_to_json

    zoo, output = _zoo(tracking_uri), Output(json_mode=json)
    if (kind := zoo.kind(name)) != "model":
        facts = zoo.facts(name)
        if not json:
            flat: dict[str, Cell] = {key: _flat(value) for key, value in facts.items()}
            output.facts(flat, title=f"{name}: {_NOUNS[kind]}")
        output.result({"name": name, **facts})
        return
    card = zoo.card(name)
    if not json:
        _print_card(card, output)
    output.result({"name": name, "kind": "model", "card": loads(card_to_json(card))})


@app.command("load")
def load_model(
    name: NameArgument,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Load a model, check its files, and measure its recorded accuracy again if its data set is at hand."""
    from nasgraph.commands.output import Output

    output = Output(json_mode=json)
    entry = _zoo(tracking_uri).load(name)
    output.message(
        f"Loaded '{name}': {entry.card.num_parameters:,} parameters, the files are those of its card"
    )
    results: tuple[Verification, ...] = ()
    try:
        results = _verify(entry, data_dir, download=False)
    except NasGraphError as error:
        output.message(f"Its accuracy was not measured again: {error}")
    _report(name, entry, results, output)


@app.command("verify")
def verify_model(
    name: NameArgument,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model's recorded numbers again. Fails if one differs."""
    from nasgraph.commands.output import Output

    output = Output(json_mode=json)
    entry = _zoo(tracking_uri).load(name)
    results = _verify(entry, data_dir, download=True)
    if not results:
        raise ZooError(f"The card of '{name}' records no measurement, so there is nothing to verify")
    _report(name, entry, results, output)
    if not all(result.agrees for result in results):
        raise typer.Exit(1)


def _zoo(tracking_uri: str | None) -> "Zoo":
    from nasgraph.modelzoo.store import Zoo

    return Zoo(tracking_uri)


def _row(listing: "Listing") -> "list[Cell]":
    card = listing.card
    aliases = ", ".join(f"{alias} -> {number}" for alias, number in listing.aliases)
    if card is None:
        return [listing.name, listing.version, listing.kind, None, None, None, None, aliases, listing.source]
    test = card.measured("test")
    return [
        listing.name,
        listing.version,
        listing.kind,
        None if card.data is None else card.data.name,
        None if test is None else test.value,
        card.num_parameters,
        card.multiply_adds,
        aliases,
        listing.source,
    ]


def _summary(listing: "Listing") -> dict[str, object]:
    names = ("name", "version", "kind", "data", "test_accuracy", "num_parameters", "multiply_adds")
    row = dict(zip(names, _row(listing), strict=False))
    return {**row, "aliases": dict(listing.aliases), "source": listing.source}


def _print_card(card: "ModelCard", output: "Output") -> None:
    data = card.data
    facts: dict[str, Cell] = {
        "task": card.task,
        "licence": card.licence,
        "created": card.created,
        "data": ""
        if data is None
        else f"{data.name} (split seed {data.split_seed}, sha256 {data.sha256[:16]})",
        "search space": card.architecture.space,
        "architecture": ", ".join(f"{name}={choice}" for name, choice in card.architecture.choices),
        "fingerprint": card.fingerprint,
        "parameters": card.num_parameters,
        "multiply-adds": card.multiply_adds,
        "seed": card.seed,
        "study": card.lineage.study,
        "trial": card.lineage.trial,
        "MLflow run": card.lineage.run_id,
        "graph hypernetwork": card.lineage.ghn,
        "origin": card.lineage.origin,
        "parent": card.lineage.parent,
        "nearest earlier trial": card.lineage.parent_trial,
        "changed": ", ".join(f"{name}: {old} -> {new}" for name, old, new in card.lineage.mutation),
        "made of": ", ".join(card.lineage.ingredients),
        "note": card.lineage.note,
        "made with": f"nasgraph {card.nasgraph_version}, torch {card.torch_version}, Python {card.python_version}",
        "sha256 of the weights": card.weights_sha256,
    }
    output.facts({name: value for name, value in facts.items() if value not in (None, "")}, title=card.name)
    if card.measurements:
        splits = list(dict.fromkeys(m.split for m in card.measurements))
        metrics = list(dict.fromkeys(m.metric for m in card.measurements))
        values = {(m.split, m.metric): m.value for m in card.measurements}
        rows: list[list[Cell]] = [
            [metric, *(values.get((split, metric)) for split in splits)] for metric in metrics
        ]
        output.table(["metric", *splits], rows, title="Measured")
    if card.latencies:
        times: list[list[Cell]] = [
            [
                fact.hardware,
                fact.threads,
                fact.batch_size,
                fact.median_s * 1e3,
                f"{fact.low_s * 1e3:.3g} to {fact.high_s * 1e3:.3g}",
            ]
            for fact in card.latencies
        ]
        output.table(
            ["hardware", "threads", "batch size", "median ms", "95 % interval"], times, title="Latency"
        )
    if card.scores:
        output.table(["score", "value"], card.scores, title="Predicted before training")


def _flat(value: object) -> "Cell":
    return value if isinstance(value, str | int | float | bool | None) else dumps(value)


def _verify(entry: "ZooEntry", data_dir: Path | None, *, download: bool) -> "tuple[Verification, ...]":
    """Measure again on the data of the card."""
    from nasgraph.modelzoo import dataset_of, verify

    return verify(entry, dataset_of(entry, data_dir, download=download))


def _report(name: str, entry: "ZooEntry", results: "tuple[Verification, ...]", output: "Output") -> None:
    if results and not output.json_mode:
        rows = [(r.split, r.metric, repr(r.recorded), repr(r.measured), r.agrees) for r in results]
        output.table(["split", "metric", "recorded", "measured", "equal"], rows)
    checks = [
        {
            "split": r.split,
            "metric": r.metric,
            "recorded": r.recorded,
            "measured": r.measured,
            "equal": r.agrees,
        }
        for r in results
    ]
    facts = {"fingerprint": entry.card.fingerprint, "num_parameters": entry.card.num_parameters}
    verified = all(result.agrees for result in results) if results else None
    output.result({"name": name, **facts, "verified": verified, "checks": checks})
