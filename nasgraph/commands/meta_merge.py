"""`nasgraph meta merge`: one network of several by arithmetic on their weights."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.meta_networks import DataOption, NetworksArgument, OutOption, ShapeOption
from nasgraph.commands.options import (
    DataDirOption,
    JsonOption,
    SeedOption,
    TrackingUriOption,
    WrongUsageError,
)

if TYPE_CHECKING:
    from torch import Tensor

    from nasgraph.commands.output import Cell
    from nasgraph.ir import ComputationalGraph
    from nasgraph.modelzoo.networks import Network
    from nasgraph.spaces import Choice


class Operator(StrEnum):
    """Arithmetic on weights."""

    LINEAR = "linear"
    SLERP = "slerp"
    KARCHER = "karcher"
    TASK_ARITHMETIC = "task-arithmetic"
    TIES = "ties"
    DARE = "dare"
    MODEL_STOCK = "model-stock"


_ON_A_BASE = (Operator.TASK_ARITHMETIC, Operator.TIES, Operator.DARE, Operator.MODEL_STOCK)


def merge(
    networks: NetworksArgument,
    method: Annotated[Operator, typer.Option("--method", help="How weights are combined.")] = Operator.LINEAR,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="NETWORK", help="What all were fine-tuned from; task-arithmetic, ties, dare and model-stock need it.", show_default=False),
    ] = None,
    out: OutOption = None,
    align: Annotated[bool, typer.Option("--align/--no-align", help="Reorder units to match the first (git re-basin).")] = True,
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="slerp: share of the second network.")] = 0.5,
    scale: Annotated[float, typer.Option("--scale", help="task-arithmetic, ties, dare: factor of what is added to the base.")] = 1.0,
    density: Annotated[float, typer.Option("--density", min=0.01, max=1, help="ties: share of each change that is kept.")] = 0.2,
    drop: Annotated[float, typer.Option("--drop", min=0, max=0.99, help="dare: chance of each change to be dropped.")] = 0.5,
    data: DataOption = None,
    input_shape: ShapeOption = None,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Merge networks of one architecture by arithmetic on their weights, and measure the result beside them.

    Batch norms are measured anew on the training data. To choose ingredients by validation accuracy use 'nasgraph zoo soup'.
    """
    from nasgraph.commands.meta_networks import accuracy_on, data_for, keep, open_network
    from nasgraph.commands.output import Output
    from nasgraph.merge import check_states, recompute_batch_norm
    from nasgraph.modelzoo.store import Zoo

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    if len(networks) < 2 and method not in (Operator.TASK_ARITHMETIC, Operator.TIES, Operator.DARE):
        raise WrongUsageError(f"Expected two networks or more for '{method}' (got {len(networks)})")
    if (base is None) == (method in _ON_A_BASE):
        raise WrongUsageError(
            f"'{method}' needs --base" if base is None else f"'{method}' has no use for --base"
        )
    if method is Operator.SLERP and len(networks) != 2:
        raise WrongUsageError(f"Expected two networks for 'slerp' (got {len(networks)})")
    opened = [open_network(zoo, text, input_shape=input_shape) for text in networks]
    root = None if base is None else open_network(zoo, base, input_shape=input_shape)
    everyone = opened if root is None else [root, *opened]
    graph = _one_graph(everyone)
    check_states(graph, {f"{place}: {each.name}": each.state for place, each in enumerate(everyone)})
    states, notes = _aligned(everyone, align=align and root is None, seed=seed)
    arithmetic = _arithmetic(method, share=share, scale=scale, density=density, drop=drop, seed=seed)
    merged = arithmetic(states[0] if root is not None else None, states[1:] if root is not None else states)
    prepared = data_for(opened[0], data, data_dir, required=False)
    accuracies: dict[str, float] = {}
    if prepared is not None:
        merged = recompute_batch_norm(graph, merged, prepared[0].search.train)
        states_by_name = {**{each.name: each.state for each in everyone}, "merged": merged}
        accuracies = {n: accuracy_on(graph, state, prepared[0]) for n, state in states_by_name.items()}
    reference = None
    if out is not None:
        settings: dict[str, Choice] = {"method": method.value, "aligned": align and root is None, "share": share, "scale": scale, "density": density, "drop": drop}  # fmt: skip
        reference = keep(
            zoo, out, everyone, graph, merged, kind="merge", notes=[f"{method} of {len(opened)}", *notes],
            settings=settings, metrics={f"accuracy of {name}": value for name, value in accuracies.items()}, data=prepared, seed=seed,
        )  # fmt: skip
    if not output.json_mode and accuracies:
        rows: list[list[Cell]] = [[name, value] for name, value in accuracies.items()]
        output.table(["network", "validation accuracy"], rows)
    for note in notes:
        output.message(note)
    output.message(f"Added '{reference}'" if reference else "Not kept: name the result with --out")
    output.result(
        {
            "reference": reference,
            "method": method.value,
            "networks": [each.name for each in everyone],
            "validation_accuracy": accuracies or None,
            "notes": notes,
        }
    )


def _one_graph(networks: "Sequence[Network]") -> "ComputationalGraph":
    first = networks[0]
    for other in networks[1:]:
        if other.graph != first.graph:
            raise WrongUsageError(
                f"'{first.name}' and '{other.name}' are of different architectures ({first.graph.fingerprint} and "
                f"{other.graph.fingerprint}): weights can be merged within one architecture only"
            )
    return first.graph


def _aligned(
    networks: "Sequence[Network]", *, align: bool, seed: int
) -> "tuple[list[dict[str, Tensor]], list[str]]":
    """States with their units reordered to match the first network's, and what that gained."""
    from nasgraph.merge import match_weights

    states = [dict(networks[0].state)]
    notes = []
    for other in networks[1:]:
        if not align:
            states.append(dict(other.state))
            continue
        found = match_weights(networks[0].graph, other.state, to=networks[0].state, seed=seed)
        states.append(found.state)
        if found.moved:
            notes.append(
                f"'{other.name}' was reordered: cosine with '{networks[0].name}' {found.similarity_before:.3f} -> "
                f"{found.similarity_after:.3f}"
            )
    return states, notes


def _arithmetic(
    method: Operator, *, share: float, scale: float, density: float, drop: float, seed: int
) -> "Callable[[Mapping[str, Tensor] | None, Sequence[Mapping[str, Tensor]]], dict[str, Tensor]]":
    from nasgraph import merge
    from nasgraph.seeding import derive_seed

    def run(
        base: "Mapping[str, Tensor] | None", states: "Sequence[Mapping[str, Tensor]]"
    ) -> "dict[str, Tensor]":
        if base is None:
            match method:
                case Operator.SLERP:
                    return merge.slerp(states[0], states[1], share)
                case Operator.KARCHER:
                    return merge.karcher_mean(states)
                case _:
                    return merge.linear(states)
        match method:
            case Operator.TIES:
                return merge.ties(base, states, density=density, scale=scale)
            case Operator.MODEL_STOCK:
                return merge.model_stock(base, states)
            case Operator.DARE:
                thinned = [
                    merge.dare(state, base, drop=drop, seed=derive_seed(seed, "dare", place))
                    for place, state in enumerate(states)
                ]
                return merge.task_arithmetic(base, thinned, scale=scale / len(thinned))
            case _:
                return merge.task_arithmetic(base, states, scale=scale)

    return run
