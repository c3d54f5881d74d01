"""`nasgraph spaces`: which search spaces there are, what they ask, samples of them, and how large they are."""

from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.design_space import analyse
from nasgraph.commands.options import (
    DEFAULT_CLASSES,
    DEFAULT_INPUT_SHAPE,
    ClassesOption,
    InputShapeOption,
    JsonOption,
    SeedOption,
    parse_shape,
)

if TYPE_CHECKING:
    from nasgraph.ir import ComputationalGraph
    from nasgraph.spaces import Question, SearchSpace

app = typer.Typer(help="Search spaces: list, show, sample, count.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Search space.")]

_SAMPLES_TO_DESCRIBE = 100


@app.command("list")
def list_spaces(json: JsonOption = False) -> None:
    """List the installed search spaces."""
    from nasgraph.commands.output import Output
    from nasgraph.spaces import space_names

    output = Output(json_mode=json)
    summaries = {name: _summary(name) for name in space_names()}
    if not json:
        output.table(["space", "what it is"], list(summaries.items()))
    output.result({"spaces": [{"name": name, "summary": text} for name, text in summaries.items()]})


@app.command("show")
def show_space(
    name: NameArgument,
    input_shape: InputShapeOption = DEFAULT_INPUT_SHAPE,
    classes: ClassesOption = DEFAULT_CLASSES,
    json: JsonOption = False,
) -> None:
    """Show the choices of a search space, and how large its networks are."""
    from nasgraph.commands.output import Output
    from nasgraph.ir import cost_of

    space = _load(name, input_shape, classes)
    questions, graphs = _explore(space)
    costs = sorted((cost_of(graph).num_parameters, len(graph)) for graph in graphs)
    quantiles = {"least": costs[0], "median": costs[len(costs) // 2], "most": costs[-1]}
    output = Output(json_mode=json)
    if not json:
        rows = [(q.name, ", ".join(map(str, q.options))) for q in questions]
        output.table(["choice", "options"], rows, title=f"{name}: {_summary(name)}")
        size_rows = [(word, *cost) for word, cost in quantiles.items()]
        output.table(["", "parameters", "nodes"], size_rows, title=f"{len(costs)} samples")
    output.result(
        {
            "name": name,
            "summary": _summary(name),
            "choices": [{"name": q.name, "options": list(q.options)} for q in questions],
            "samples": len(costs),
            "num_parameters": {word: cost[0] for word, cost in quantiles.items()},
        }
    )


@app.command("sample")
def sample_space(
    name: NameArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many.")] = 1,
    seed: SeedOption = 0,
    input_shape: InputShapeOption = DEFAULT_INPUT_SHAPE,
    classes: ClassesOption = DEFAULT_CLASSES,
    json: JsonOption = False,
) -> None:
    """Draw architectures at random. Sample i is the target NAME:(seed + i) of other commands."""
    from nasgraph.commands.output import Output
    from nasgraph.commands.targets import sample_of
    from nasgraph.ir import cost_of

    space = _load(name, input_shape, classes)
    output = Output(json_mode=json)
    rows, samples = [], []
    with output.progress(f"Sampling '{name}'", total=count) as bar:
        for each_seed in range(seed, seed + count):
            candidate = sample_of(space, seed=each_seed)
            cost = cost_of(candidate.graph)
            target, fingerprint = f"{name}:{each_seed}", candidate.graph.fingerprint
            rows.append((target, fingerprint, len(candidate.graph), cost.num_parameters, cost.multiply_adds))
            choices = dict(candidate.architecture.choices)
            names = ("target", "fingerprint", "num_nodes", "num_parameters", "multiply_adds")
            samples.append({**dict(zip(names, rows[-1], strict=True)), "choices": choices})
            bar.advance()
    if not json:
        output.table(["target", "fingerprint", "nodes", "parameters", "multiply-adds"], rows)
    output.result({"space": name, "seed": seed, "samples": samples})


@app.command("count")
def count_space(
    name: NameArgument,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Stop after so many architectures.")] = 100_000,
    input_shape: InputShapeOption = DEFAULT_INPUT_SHAPE,
    classes: ClassesOption = DEFAULT_CLASSES,
    json: JsonOption = False,
) -> None:
    """Count the architectures of a search space, and how many different graphs they make."""
    from nasgraph.commands.output import Output
    from nasgraph.spaces import enumerate_candidates

    space = _load(name, input_shape, classes)
    output = Output(json_mode=json)
    num_architectures, is_complete = 0, True
    fingerprints: set[str] = set()
    with output.progress(f"Counting '{name}'") as bar:
        for candidate in enumerate_candidates(space):
            if num_architectures == limit:
                is_complete = False
                break
            num_architectures += 1
            fingerprints.add(candidate.graph.fingerprint)
            bar.advance()
    at_least = "" if is_complete else "at least "
    if not json:
        facts = {
            "architectures": f"{at_least}{num_architectures:,}",
            "distinct graphs": f"{at_least}{len(fingerprints):,}",
        }
        output.facts(facts, title=name)
    if not is_complete:
        output.message(f"Stopped after {limit:,} architectures; raise --limit to go on")
    output.result(
        {
            "space": name,
            "num_architectures": num_architectures,
            "num_graphs": len(fingerprints),
            "complete": is_complete,
        }
    )


def _load(name: str, input_shape: str, classes: int) -> "SearchSpace":
    from nasgraph.spaces import load_space

    return load_space(name, input_shape=parse_shape(input_shape), num_classes=classes)


def _summary(name: str) -> str:
    """First line of a search space's description; why it cannot be loaded, if it cannot."""
    from inspect import getdoc

    from nasgraph.plugins import load_plugin
    from nasgraph.spaces.registry import GROUP

    try:
        plugin = load_plugin(GROUP, name, kind="search space")
    except Exception as error:  # noqa: BLE001  a broken plug-in must not hide the others
        return f"cannot be loaded: {error}"
    return (getdoc(plugin) or "").partition("\n")[0].replace("`", "")


def _explore(space: "SearchSpace") -> "tuple[list[Question], list[ComputationalGraph]]":
    """Every question that some samples of the space are asked, in order of appearance, and their graphs."""
    from nasgraph.seeding import generator
    from nasgraph.spaces import SamplingChooser, realise

    questions: dict[str, Question] = {}
    graphs = []
    for seed in range(_SAMPLES_TO_DESCRIBE):
        candidate, asked = realise(space, SamplingChooser(generator(seed, "describe", space.name)))
        graphs.append(candidate.graph)
        for question in asked:
            questions.setdefault(question.name, question)
    return list(questions.values()), graphs


app.command("analyse")(analyse)
