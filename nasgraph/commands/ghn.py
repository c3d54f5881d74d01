"""`nasgraph ghn`: train graph hypernetworks, measure them, list them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import (
    DataDirOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    TrackingUriOption,
)

if TYPE_CHECKING:
    from nasgraph.commands.output import Bar, Output
    from nasgraph.data import DataSet
    from nasgraph.hyper import GraphHyperNetwork, TrainStep
    from nasgraph.spaces import SearchSpace
    from nasgraph.tracking import TrainingRecorder


class Encoder(StrEnum):
    """How a hypernetwork reads graphs."""

    TRANSFORMER = "transformer"
    GATED = "gated"


app = typer.Typer(help="Graph hypernetworks: train, evaluate, list.")


@app.command("train")
def train(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for checkpoints and the result.")],
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space", help="Search space to train on; repeat it for several.", show_default="convnet"
        ),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", help="Data set, or path of .npz, .csv or image folder.")
    ] = "digits",
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Resize images to this size.")
    ] = None,
    num_train: Annotated[
        int | None, typer.Option("--num-train", help="Keep so many training examples.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 3000,
    meta_batch: Annotated[int, typer.Option("--meta-batch", min=1, help="Architectures per step.")] = 8,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images per step.")] = 32,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")] = 1.2e-3,
    encoder: Annotated[
        Encoder, typer.Option("--encoder", help="As in GHN-3 (transformer) or GHN-2 (gated).")
    ] = Encoder.TRANSFORMER,
    dim: Annotated[int, typer.Option("--dim", min=1, help="Size of a node state.")] = 64,
    layers: Annotated[
        int, typer.Option("--layers", min=1, help="Layers, or passes of the gated encoder.")
    ] = 3,
    mip: Annotated[bool, typer.Option("--mip", help="Magnitude-invariant decoder input.")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror training images.")] = False,
    noise: Annotated[float, typer.Option("--noise", min=0, help="Noise on training images.")] = 0.1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in --out.")] = False,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Train a graph hypernetwork to predict the weights of a space's architectures on a data set.

    The first hundred held-out architectures of each space are never trained on; 'nasgraph ghn eval' measures on them.
    Ctrl-C is safe: --resume continues from the last checkpoint, bit by bit as if nothing had happened.
    """
    from nasgraph.commands.output import Output
    from nasgraph.data import load_dataset
    from nasgraph.hyper import (
        GHNConfig,
        GHNTrainConfig,
        GraphHyperNetwork,
        held_out_candidates,
        save_ghn,
        train_ghn,
    )
    from nasgraph.pipeline import pick_device
    from nasgraph.spaces import load_space
    from nasgraph.tracking import TrainingRecorder

    output = Output(json_mode=json)
    names = space or ["convnet"]
    dataset = load_dataset(data, data_dir=data_dir, image_size=image_size, num_train=num_train)
    shape, classes = dataset.input_shape, dataset.num_classes
    spaces = [load_space(name, input_shape=shape, num_classes=classes) for name in names]
    config = GHNTrainConfig(
        steps=steps,
        meta_batch=meta_batch,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=min(200, steps // 5),
        seed=seed,
        flip=flip,
        noise_std=noise,
    )
    shaped = {"encoder": encoder.value, "dim": dim, "num_layers": layers, "mip": mip}
    ghn = GraphHyperNetwork(GHNConfig(**shaped), seed=seed).to(pick_device(device))  # type: ignore[arg-type]  # checked there
    distinct = {each.name: each for each in spaces}
    held_out = frozenset(
        item.graph.fingerprint for item in held_out_candidates(list(distinct.values()), count=100)
    )
    recipe = {
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "split_seed": dataset.split_seed,
        "image_size": image_size,
        "num_train": num_train,
        "input_shape": list(shape),
        "num_classes": classes,
        "spaces": names,
        "train": vars(config),
    }
    _check_recipe(out / "recipe.json", recipe, resume=resume)
    recorder = TrainingRecorder(tracking_uri, name=out.name, facts={**recipe, **shaped})
    with _recorded(recorder, out, output), output.progress("Training the hypernetwork", total=steps) as bar:
        train_ghn(
            ghn,
            spaces,
            dataset.search,
            config,
            folder=out,
            resume=resume,
            held_out=held_out,
            on_step=_show_steps(bar, recorder, output),
        )
        save_ghn(ghn, out, recipe=recipe)  # type: ignore[arg-type]  # plain JSON values
    report = _evaluate(ghn, list(distinct.values()), dataset, count=20)
    if not json:
        _print_evaluation(output, report, title=f"Trained in {out}")
    output.result({"folder": str(out), "steps": steps, "run_id": recorder.run_id, "evaluation": report})


def _check_recipe(path: Path, recipe: "Mapping[str, object]", *, resume: bool) -> None:
    """Write what a training is made with beside its checkpoint; refuse to resume it with something else."""
    from nasgraph.errors import CheckpointError
    from nasgraph.files import canonical_json, parse_json, read_json, write_json
    from nasgraph.hyper.train import STATE

    wanted = parse_json(canonical_json(recipe))
    if not path.with_name(STATE).exists():
        write_json(path, wanted)
        return
    if not resume:
        return  # which the training refuses, with the reason
    known = read_json(path)
    assert isinstance(wanted, dict)
    differs = [name for name in wanted if not isinstance(known, dict) or known.get(name) != wanted[name]]
    if differs:
        raise CheckpointError(
            f"The training in '{path.parent}' was begun with another '{differs[0]}'. Repeat the command as it was, "
            "or use another folder"
        )


@contextmanager
def _recorded(recorder: "TrainingRecorder", out: Path, output: "Output") -> Iterator[None]:
    """Close the training's run in the record, however the training ends."""
    status, files = "FAILED", list[Path]()
    try:
        yield
        status, files = "FINISHED", [out / "config.json", out / "weights.safetensors"]
    except KeyboardInterrupt:
        status = "KILLED"
        output.message(f"Stopped. Continue with the same command and --resume (checkpoint in '{out}')")
        raise
    finally:
        recorder.end(files, status=status)


def _show_steps(bar: "Bar", recorder: "TrainingRecorder", output: "Output") -> "Callable[[TrainStep], None]":
    """A listener that moves the bar, feeds the record, and prints a line every 500 steps."""
    recent: list[float] = []

    def on_step(step: "TrainStep") -> None:
        recorder.on_step(step)
        recent.append(step.accuracy)
        bar.update(completed=step.step + 1, description=f"Training the hypernetwork, loss {step.loss:.3f}")
        if (step.step + 1) % 500 == 0:
            mean = sum(recent) / len(recent)
            output.message(f"step {step.step + 1:,}: training accuracy with predicted weights {mean:.3f}")
            recent.clear()

    return on_step


@app.command("eval")
def evaluate(
    ghn: Annotated[str, typer.Argument(metavar="GHN", help="Shipped hypernetwork by name, or a folder.")],
    count: Annotated[
        int, typer.Option("--count", min=1, max=100, help="Held-out architectures per space.")
    ] = 50,
    space: Annotated[
        list[str] | None,
        typer.Option("--space", help="Search space.", show_default="those it was trained on"),
    ] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure predicted weights on held-out architectures, beside random weights, on validation data."""
    from nasgraph.commands.output import Output
    from nasgraph.data import load_dataset
    from nasgraph.errors import UnknownNameError
    from nasgraph.hyper import load_ghn
    from nasgraph.pipeline import pick_device, shipped_ghns
    from nasgraph.spaces import load_space

    shipped = shipped_ghns()
    folder = shipped.get(ghn, Path(ghn))
    if not folder.is_dir():
        raise UnknownNameError("graph hypernetwork", ghn, shipped, hint="A folder works, too.")
    network, recipe = load_ghn(folder, device=pick_device(device))
    dataset = load_dataset(
        str(recipe["data"]),
        data_dir=data_dir,
        image_size=_whole(recipe.get("image_size")),
        num_train=_whole(recipe.get("num_train")),
    )
    trained_on = recipe["spaces"]
    assert isinstance(trained_on, list)
    names = space or [str(name) for name in dict.fromkeys(map(str, trained_on))]
    shape, classes = dataset.input_shape, dataset.num_classes
    spaces = [load_space(name, input_shape=shape, num_classes=classes) for name in names]
    report = _evaluate(network, spaces, dataset, count=count)
    output = Output(json_mode=json)
    if not json:
        _print_evaluation(output, report, title=f"{ghn} on {count} held-out architectures of each space")
    output.result({"ghn": ghn, "data": dataset.name, "count": count, "evaluation": report})


@app.command("list")
def list_ghns(json: JsonOption = False) -> None:
    """List the hypernetworks that are shipped."""
    from nasgraph.commands.output import Output
    from nasgraph.pipeline import recipe_of, shipped_ghns

    output = Output(json_mode=json)
    found, rows = [], []
    for name, folder in shipped_ghns().items():
        recipe = recipe_of(folder)
        trained_on = recipe.get("spaces")
        assert isinstance(trained_on, list)
        spaces = sorted(set(map(str, trained_on)))
        data, shape = recipe.get("data"), recipe.get("input_shape")
        found.append(
            {"name": name, "data": data, "input_shape": shape, "spaces": spaces, "folder": str(folder)}
        )
        rows.append([name, str(data), str(shape), ", ".join(spaces)])
    if not json:
        output.table(["name", "data", "input shape", "spaces"], rows)
    output.result({"ghns": found})


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _evaluate(
    ghn: "GraphHyperNetwork", spaces: "list[SearchSpace]", dataset: "DataSet", *, count: int
) -> dict[str, dict[str, float]]:
    """Mean and spread of the validation accuracy of held-out architectures, by space."""
    from statistics import mean, pstdev

    from nasgraph.evaluate import measure
    from nasgraph.hyper import held_out_candidates
    from nasgraph.modules import Program, initial_parameters

    validation = dataset.search.validation.to(ghn.device)
    report = {}
    for space in spaces:
        predicted, random = [], []
        for candidate in held_out_candidates([space], count=count):
            program = Program(candidate.graph)
            own = initial_parameters(candidate.graph, seed=0)
            start = {name: tensor.to(ghn.device) for name, tensor in own.items()}
            random.append(measure(program, start, validation, batch_size=256)[1])
            predicted.append(
                measure(program, ghn.predict([candidate.graph])[0], validation, batch_size=256)[1]
            )
        report[space.name] = {
            "predicted_weights": mean(predicted),
            "predicted_weights_std": pstdev(predicted),
            "predicted_weights_best": max(predicted),
            "random_weights": mean(random),
        }
    return report


def _print_evaluation(output: "Output", report: dict[str, dict[str, float]], *, title: str) -> None:
    columns = ["space", "predicted weights", "spread", "best", "random weights"]
    keys = ("predicted_weights", "predicted_weights_std", "predicted_weights_best", "random_weights")
    output.table(columns, [[name, *(row[key] for key in keys)] for name, row in report.items()], title=title)
