"""`nasgraph spaces analyse`: judge search spaces by the errors of random networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import DataDirOption, DeviceOption, JsonOption, SeedOption, WrongUsageError

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.data import DataSet
    from nasgraph.evaluate import TrainConfig
    from nasgraph.evaluate.design_space import DesignSpaceAnalysis
    from nasgraph.evaluate.design_space_models import SampledModel
    from nasgraph.evaluate.design_space_sampling import SampleConfig

_REPORT = "report.html"


def analyse(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SPACE]...", help="Search spaces to compare.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=2, help="Networks that are drawn of each space.")
    ] = 50,
    data: Annotated[str, typer.Option("--data", help="Data set by name, or a path.")] = "digits",
    num_train: Annotated[
        int | None, typer.Option("--num-train", min=2, help="Training examples to keep.", show_default="all")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Epochs of training per network.")] = 3,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Examples per step.")] = 64,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak of AdamW's.")] = 3e-3,
    multiply_adds: Annotated[
        str | None,
        typer.Option(
            "--multiply-adds",
            metavar="LOW,HIGH",
            help="Draw networks with so many only, such as 1e5,2e6.",
            show_default=False,
        ),
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option(
            "--parameters",
            metavar="LOW,HIGH",
            help="Draw networks with so many only.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            "-t",
            help="Take rows of this table as one more space, and train nothing for it; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Column of the tables.", show_default="as predictors are judged by"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the report, and for every trained network as it comes: a second call goes on from there.",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compare search spaces by the errors of random networks: distributions, KS statistic, and which choices are good."""
    from nasgraph.commands.output import Output
    from nasgraph.evaluate import TrainConfig
    from nasgraph.evaluate.design_space import analyse_design_spaces
    from nasgraph.evaluate.design_space_sampling import SampleConfig

    spaces, tables = list(dict.fromkeys(names or ())), list(dict.fromkeys(table or ()))
    if not spaces and not tables:
        raise WrongUsageError("Name at least one search space, or a table with '--table'")
    limits = {
        name: _limits(option, text)
        for name, option, text in (
            ("multiply_adds", "--multiply-adds", multiply_adds),
            ("num_parameters", "--parameters", parameters),
        )
        if text is not None
    }
    config = SampleConfig(num_models=count, seed=seed, limits=limits)
    training = TrainConfig(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    output = Output(json_mode=json)
    populations: dict[str, tuple[SampledModel, ...]] = {}
    if spaces:
        from nasgraph.data import load_dataset

        dataset = load_dataset(data, data_dir=data_dir, num_train=num_train)
        for space in spaces:
            populations[space] = _train(
                space, dataset, config, training, output, out=out, device=device, data=data
            )
    for name in tables:
        populations.update(_read(name, metric, config, output))
    analysis = analyse_design_spaces(populations, seed=seed)
    if not json:
        _print(output, analysis)
    files = _write(out, analysis, populations, _settings(data, num_train, training, config, spaces))
    for file in files:
        output.message(f"Wrote '{file}'")
    output.result({**analysis.to_json(), "files": [str(file) for file in files]})


def _limits(option: str, text: str) -> tuple[int, int]:
    try:
        low, high = (int(float(part)) for part in text.split(","))
    except (ValueError, OverflowError) as error:
        raise WrongUsageError(
            f"Expected '{option}' as two numbers such as 1e5,2e6 (got '{text:.60}')"
        ) from error
    return low, high


def _settings(
    data: str, num_train: int | None, training: "TrainConfig", config: "SampleConfig", spaces: list[str]
) -> dict[str, str]:
    limits = ", ".join(f"{name} {low:,} to {high:,}" for name, (low, high) in config.limits.items())
    facts = {
        "networks per space": str(config.num_models),
        "seed": str(config.seed),
        "limits": limits or "none",
    }
    if spaces:
        examples = "all" if num_train is None else f"{num_train:,}"
        facts |= {"data": data, "training examples": examples, "training": repr(training)}
    return facts


def _train(
    name: str,
    dataset: "DataSet",
    config: "SampleConfig",
    training: "TrainConfig",
    output: "Output",
    *,
    out: Path | None,
    device: str,
    data: str,
) -> "tuple[SampledModel, ...]":
    """Draw networks of a space and train them, those of an earlier call aside."""
    from dataclasses import asdict

    from nasgraph.evaluate import TrainEvaluator
    from nasgraph.evaluate.design_space_sampling import ModelRecord, draw_candidates, train_candidates
    from nasgraph.pipeline import pick_device
    from nasgraph.spaces import load_space

    space = load_space(name, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    candidates = draw_candidates(space, config)
    # What is drawn first does not depend on how many are drawn, so a larger count goes on from a smaller one.
    facts = {
        "data": data,
        "num_train": len(dataset.search.train),
        "training": asdict(training),
        "seed": config.seed,
        "limits": {key: list(value) for key, value in config.limits.items()},
    }
    record = None if out is None else ModelRecord(out, facts)
    evaluate = TrainEvaluator(dataset.search.to(pick_device(device)), training)
    with output.progress(f"Training networks of '{name}'", total=len(candidates)) as bar:
        known = {} if record is None else record.known(name)
        bar.advance(sum(index < len(candidates) for index in known))

        def on_model(model: "SampledModel") -> None:
            if record is not None:
                record.add(model)
            bar.advance()

        return train_candidates(candidates, evaluate, seed=config.seed, known=known, on_model=on_model)


def _read(
    name: str, metric: str | None, config: "SampleConfig", output: "Output"
) -> "dict[str, tuple[SampledModel, ...]]":
    from nasgraph.commands.table_option import open_for_command
    from nasgraph.evaluate.design_space_sampling import table_population

    opened = open_for_command(output, name)
    column = metric or opened.info.test_metric or opened.info.train_metric
    if not column:
        names = ", ".join(each.name for each in opened.info.metrics)
        raise WrongUsageError(f"Name a column with '--metric': the table '{name}' has {names:.600}")
    return {f"{opened.info.name} ({column})": table_population(opened, metric=column, config=config)}


def _print(output: "Output", analysis: "DesignSpaceAnalysis") -> None:
    from nasgraph.evaluate.design_space_report import label_of, number_text

    rows = [
        (
            each.name,
            each.num_models,
            each.num_failed,
            each.distribution.min,
            each.distribution.mean,
            each.distribution.quantile(0.5),
        )
        for each in analysis.populations
    ]
    output.table(
        ["space", "models", "failed", "least error", "mean error", "median error"], rows, title="Errors"
    )
    if analysis.comparisons:
        pairs = [
            (f"{each.first}, {each.second}", each.ks, each.p_value, each.ks_at_equal_cost)
            for each in analysis.comparisons
        ]
        output.table(["spaces", "KS statistic", "p", "KS at equal multiply-adds"], pairs, title="Comparisons")
    for each in analysis.populations:
        strongest = sorted(each.ranges, key=lambda found: -found.explained)[:10]
        ranges = [
            (
                label_of(found),
                found.num_models,
                found.explained,
                found.shares[0][0] if found.median is None else number_text(found.median),
                ", ".join(f"{option} {share:.0%}" for option, share in found.shares[:4])
                if found.low is None or found.high is None
                else f"{number_text(found.low)} to {number_text(found.high)}",
            )
            for found in strongest
        ]
        columns = ["choice or cost", "models", "explains", "best value", "good range"]
        output.table(columns, ranges, title=f"What is good in {each.name}")


def _write(
    out: Path | None,
    analysis: "DesignSpaceAnalysis",
    populations: "dict[str, tuple[SampledModel, ...]]",
    settings: dict[str, str],
) -> tuple[Path, ...]:
    """The report as HTML and as Markdown, and the numbers."""
    if out is None:
        return ()
    from nasgraph.commands.machine import command_line, machine_facts
    from nasgraph.draw.report import write_report
    from nasgraph.evaluate.design_space_report import design_space_report
    from nasgraph.files import write_json

    facts = {**settings, **machine_facts()}
    report = design_space_report(analysis, populations, command=command_line(), facts=facts)
    numbers = out / "analysis.json"
    write_json(numbers, {"settings": facts, **analysis.to_json()})
    return (
        numbers,
        *write_report(report, out / _REPORT),
        *write_report(report, (out / _REPORT).with_suffix(".md")),
    )
