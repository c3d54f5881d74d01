"""`nasgraph ghn train`: train a hypernetwork on search spaces and a data set, in one process or under `torchrun`."""

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
    import torch

    from nasgraph.commands.output import Bar, Output
    from nasgraph.data import DataSet
    from nasgraph.hyper import GHNConfig, GHNTrainConfig, TrainStep
    from nasgraph.spaces import SearchSpace
    from nasgraph.tracking import TrainingRecorder

_EVALUATED = 20
"""Held-out architectures per space that are measured at the end."""


class Encoder(StrEnum):
    """How a hypernetwork reads graphs."""

    TRANSFORMER = "transformer"
    GATED = "gated"


class Decoder(StrEnum):
    """How a hypernetwork writes tensors."""

    TILED = "tiled"
    CONV = "conv"
    LOW_RANK = "low_rank"


class Precision(StrEnum):
    """Arithmetic of the target networks."""

    FP32 = "fp32"
    BF16 = "bf16"


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
    meta_batch: Annotated[
        int, typer.Option("--meta-batch", min=1, help="Architectures per step, over all ranks.")
    ] = 8,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images per step.")] = 32,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")] = 1.2e-3,
    label_smoothing: Annotated[
        float, typer.Option("--label-smoothing", help="Share of each target spread over all classes.")
    ] = 0.0,
    norm_penalty: Annotated[
        float,
        typer.Option(
            "--norm-penalty", help="Factor of the norms of predicted tensors in the loss (GHN-3: 3e-5)."
        ),
    ] = 0.0,
    ema_decay: Annotated[
        float,
        typer.Option(
            "--ema-decay", help="Decay of the moving average that is saved, such as 0.999; 0: none."
        ),
    ] = 0.0,
    precision: Annotated[
        Precision, typer.Option("--precision", help="Arithmetic of the target networks.")
    ] = Precision.FP32,
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=256, help="Processes that draw architectures ahead.")
    ] = 0,
    encoder: Annotated[
        Encoder, typer.Option("--encoder", help="As in GHN-3 (transformer) or GHN-2 (gated).")
    ] = Encoder.TRANSFORMER,
    dim: Annotated[int, typer.Option("--dim", min=1, help="Size of a node state.")] = 64,
    layers: Annotated[
        int, typer.Option("--layers", min=1, help="Layers, or passes of the gated encoder.")
    ] = 3,
    decoder: Annotated[
        Decoder,
        typer.Option("--decoder", help="Tiled blocks, as in GHN-3 (conv), or as in LoGAH (low_rank)."),
    ] = Decoder.TILED,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Rank of the low-rank decoder.")] = 32,
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

    Architectures of the evaluation splits and the first hundred held-out ones of each space are never trained on; 'nasgraph
    ghn eval' measures on them. Ctrl-C is safe: --resume continues from the last checkpoint, bit by bit as if nothing had
    happened. For several GPUs or machines: torchrun --nproc-per-node 4 --no-python nasgraph ghn train ...
    """
    from nasgraph.commands.output import Output
    from nasgraph.data import load_dataset
    from nasgraph.hyper import GHNConfig, GHNTrainConfig
    from nasgraph.spaces import load_space

    names = space or ["convnet"]
    dataset = load_dataset(data, data_dir=data_dir, image_size=image_size, num_train=num_train)
    shape, classes = dataset.input_shape, dataset.num_classes
    config = GHNTrainConfig(
        steps=steps,
        meta_batch=meta_batch,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=min(200, steps // 5),
        seed=seed,
        flip=flip,
        noise_std=noise,
        label_smoothing=label_smoothing,
        norm_penalty=norm_penalty,
        ema_decay=ema_decay,
        precision=precision.value,
    )
    shaped = {
        "encoder": encoder.value,
        "dim": dim,
        "num_layers": layers,
        "mip": mip,
        "decoder": decoder.value,
        "rank": rank,
    }
    source = {"data": dataset.name, "image_size": image_size, "num_train": num_train, "spaces": names}
    _train(
        [load_space(name, input_shape=shape, num_classes=classes) for name in names],
        dataset,
        config,
        GHNConfig(**shaped),  # type: ignore[arg-type]  # checked there
        out=out,
        resume=resume,
        workers=workers,
        device=_device(device),
        recipe=_recipe(dataset, config, source),
        facts=shaped,
        tracking_uri=tracking_uri,
        output=Output(json_mode=json),
    )


def _recipe(dataset: "DataSet", config: "GHNTrainConfig", source: Mapping[str, object]) -> dict[str, object]:
    """Everything that the weights depend on, as it is kept beside them."""
    from nasgraph.hyper import split_list
    from nasgraph.hyper.splits import TRAINING_SIZE

    return {
        **source,
        "data_sha256": dataset.sha256,
        "split_seed": dataset.split_seed,
        "input_shape": list(dataset.input_shape),
        "num_classes": dataset.num_classes,
        "training_architectures": TRAINING_SIZE,
        "split_list": split_list().version,
        "train": vars(config),
    }


def _train(
    spaces: "list[SearchSpace]",
    dataset: "DataSet",
    config: "GHNTrainConfig",
    shape: "GHNConfig",
    *,
    out: Path,
    resume: bool,
    workers: int,
    device: "torch.device",
    recipe: Mapping[str, object],
    facts: Mapping[str, object],
    tracking_uri: str | None,
    output: "Output",
) -> None:
    """Train; the first rank alone writes, records, measures and prints."""
    from functools import partial

    from nasgraph.hyper import (
        Execution,
        GraphHyperNetwork,
        held_out_fingerprints,
        joined_ranks,
        save_ghn,
        train_ghn,
    )
    from nasgraph.tracking import TrainingRecorder

    ghn = GraphHyperNetwork(shape, seed=config.seed).to(device)
    distinct = {each.name: each for each in spaces}
    held_out = held_out_fingerprints(
        list(distinct.values()), input_shape=dataset.input_shape, num_classes=dataset.num_classes
    )
    with joined_ranks(device) as ranks:
        execution = Execution(workers=workers, ranks=ranks)
        run = partial(
            train_ghn,
            ghn,
            spaces,
            dataset.search,
            config,
            folder=out,
            resume=resume,
            held_out=held_out,
            execution=execution,
        )
        if ranks.rank > 0:
            run()
            return
        _check_recipe(out / "recipe.json", recipe, resume=resume)
        placed = {"workers": workers, "ranks": ranks.size, "device": str(device)}
        recorder = TrainingRecorder(tracking_uri, name=out.name, facts={**recipe, **facts, **placed})
        with (
            _recorded(recorder, out, output),
            output.progress("Training the hypernetwork", total=config.steps) as bar,
        ):
            run(on_step=_show_steps(bar, recorder, output))
            save_ghn(ghn, out, recipe=recipe)  # type: ignore[arg-type]  # plain JSON values
    from nasgraph.commands.ghn_eval import held_out_of, measure_candidates, print_evaluation

    report = measure_candidates(ghn, held_out_of(list(distinct), dataset, count=_EVALUATED), dataset, output)
    if not output.json_mode:
        print_evaluation(output, report, title=f"Trained in {out}")
    output.result(
        {"folder": str(out), "steps": config.steps, "run_id": recorder.run_id, "evaluation": report}
    )


def _device(wanted: str) -> "torch.device":
    """The device of this process; under `torchrun` each process of a machine has a GPU of its own."""
    import torch

    from nasgraph.hyper.distributed import launched_together, local_rank
    from nasgraph.pipeline import pick_device

    device = pick_device(wanted)
    if device.type == "cuda" and launched_together():
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    return device


def _check_recipe(path: Path, recipe: Mapping[str, object], *, resume: bool) -> None:
    """Write what a training is made with beside its checkpoint; refuse to resume it with something else."""
    from nasgraph.errors import CheckpointError
    from nasgraph.files import canonical_json, parse_json, read_json, write_json
    from nasgraph.hyper.progress import STATE

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
