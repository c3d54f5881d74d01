"""`nasgraph meta predict`, `embed`, `heritage`: what the weights of networks say about them."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.meta_networks import NetworksArgument, ShapeOption
from nasgraph.commands.options import JsonOption, TrackingUriOption, WrongUsageError

if TYPE_CHECKING:
    from torch import Tensor

    from nasgraph.commands.output import Cell
    from nasgraph.modelzoo.networks import Network

MetanetworkOption = Annotated[
    Path | None,
    typer.Option("--metanetwork", metavar="FOLDER", help="From 'nasgraph meta train'.", show_default="the one that ships"),
]  # fmt: skip


def predict(
    networks: NetworksArgument,
    metanetwork: MetanetworkOption = None,
    input_shape: ShapeOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Predict numbers of trained networks from their weights alone, such as their accuracy.

    No data are needed. Where data are at hand, measuring is better: the shipped metanetwork knows classifiers of digits only.
    """
    from nasgraph.commands.output import Output
    from nasgraph.meta.graph import parameter_graph
    from nasgraph.meta.networks import load_metanetwork, metanetwork_description

    output = Output(json_mode=json)
    opened = _opened(networks, input_shape, tracking_uri)
    folder = metanetwork or _shipped()
    reader, description = load_metanetwork(folder), metanetwork_description(folder)
    targets = description.get("targets")
    names = [str(name) for name in targets] if isinstance(targets, list) else []
    if not names:
        raise WrongUsageError(f"The metanetwork in '{folder}' predicts nothing: it edits or embeds")
    rows: list[list[Cell]] = []
    results = []
    import torch

    for network in opened:
        with torch.inference_mode():
            values = reader.predict(parameter_graph(network.graph, network.state))[0].tolist()
        measured = _measured(network)
        rows.append([network.name, *(round(value, 4) for value in values), measured])
        results.append(
            {
                "network": network.name,
                **dict(zip(names, values, strict=True)),
                "measured_test_accuracy": measured,
            }
        )
    if not json:
        output.table(["network", *(f"{name}, predicted" for name in names), "test accuracy, measured"], rows)
    recipe = description.get("recipe")
    seen = recipe.get("population") if isinstance(recipe, dict) else None
    if seen:
        output.message(f"Predicted from weights by a metanetwork that was trained on '{seen}'")
    output.result({"metanetwork": str(folder), "trained_on": seen, "predictions": results})


class View(StrEnum):
    """What an embedding is made of."""

    METANETWORK = "metanetwork"
    STATISTICS = "statistics"


def embed(
    networks: NetworksArgument,
    by: Annotated[
        View,
        typer.Option(
            "--by",
            help="metanetwork: its embedding. statistics: of all tensors, standardised over the networks given (three or more).",
        ),
    ] = View.METANETWORK,
    metanetwork: MetanetworkOption = None,
    input_shape: ShapeOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Give every network a unit vector by its weights, and compare them by cosine.

    The order of hidden units makes no difference, nor does the architecture have to be the same. To find the network that another was fine-tuned
    from, statistics do better than the shipped metanetwork in our benchmark.
    """
    from nasgraph.commands.output import Output

    output = Output(json_mode=json)
    opened = _opened(networks, input_shape, tracking_uri)
    if by is View.STATISTICS:
        if metanetwork is not None:
            raise WrongUsageError("'statistics' have no use for --metanetwork")
        if len(opened) < 3:
            raise WrongUsageError("Expected three networks or more, over which statistics are standardised")
        vectors = _by_statistics(opened)
    else:
        vectors = _by_metanetwork(opened, metanetwork or _shipped())
    cosines = (vectors @ vectors.T).tolist()
    if not json:
        rows: list[list[Cell]] = [
            [network.name, *(round(value, 3) for value in row)]
            for network, row in zip(opened, cosines, strict=True)
        ]
        output.table(["cosine", *(str(place + 1) for place in range(len(opened)))], rows)
    output.result(
        {
            "networks": [network.name for network in opened],
            "vectors": vectors.tolist(),
            "cosines": cosines,
        }
    )


def _by_metanetwork(networks: "Sequence[Network]", folder: Path) -> "Tensor":
    import torch

    from nasgraph.meta.graph import parameter_graph
    from nasgraph.meta.networks import load_metanetwork

    reader = load_metanetwork(folder)
    with torch.inference_mode():
        return torch.cat(
            [reader.embed(parameter_graph(network.graph, network.state)) for network in networks]
        )


def _by_statistics(networks: "Sequence[Network]") -> "Tensor":
    import torch

    from nasgraph.meta.views import pooled_statistics

    rows = torch.stack([pooled_statistics(network.graph, network.state) for network in networks]).double()
    rows = (rows - rows.mean(0)) / rows.std(0).clamp(min=1e-9)
    return torch.nn.functional.normalize(rows, dim=1)


def heritage(
    networks: NetworksArgument,
    align: Annotated[bool, typer.Option("--align/--no-align", help="Reorder units first: slower, for networks somebody has reordered.")] = False,
    trees: Annotated[int | None, typer.Option("--trees", min=1, help="How many trees there are.", show_default="found")] = None,
    input_shape: ShapeOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Guess which network was fine-tuned from which, by the distances of their weights.

    For networks of one architecture. It is a guess: in our benchmark nine arcs of ten are right where children saw moved pictures, four of ten
    where they learnt other classes. The first of a tree is the one that is nearest to all others.
    """
    from nasgraph.commands.output import Output
    from nasgraph.meta.heritage import aligned_weight_distances, recover_heritage, weight_distances
    from nasgraph.meta.views import stack_states

    output = Output(json_mode=json)
    opened = _opened(networks, input_shape, tracking_uri)
    if len(opened) < 2:
        raise WrongUsageError("Expected two networks or more")
    graph = opened[0].graph
    other = next((network for network in opened if network.graph != graph), None)
    if other is not None:
        raise WrongUsageError(
            f"'{opened[0].name}' and '{other.name}' are of different architectures: distances of weights mean nothing"
        )
    stacked = stack_states([network.state for network in opened])
    measure = aligned_weight_distances if align else weight_distances
    found = recover_heritage(measure(graph, stacked), num_trees=trees)
    rows: list[list[Cell]] = []
    arcs = []
    for place, network in enumerate(opened):
        parent = found.parents[place]
        name = opened[parent].name if parent >= 0 else None
        rows.append([network.name, name or "(first of its tree)", found.trees[place] + 1])
        arcs.append({"network": network.name, "parent": name, "tree": found.trees[place]})
    if not json:
        output.table(["network", "fine-tuned from", "tree"], rows)
    output.result({"networks": arcs, "aligned": align})


def _opened(networks: Sequence[str], input_shape: str | None, tracking_uri: str | None) -> "list[Network]":
    from nasgraph.commands.meta_networks import open_network
    from nasgraph.modelzoo.store import Zoo

    zoo = Zoo(tracking_uri)
    return [open_network(zoo, text, input_shape=input_shape) for text in networks]


def _shipped() -> Path:
    from nasgraph.modelzoo.builtin import builtin_entries

    found = [entry.path for entry in builtin_entries().values() if entry.kind == "metanetwork"]
    if not found:
        raise WrongUsageError(
            "No installed package ships a metanetwork: train one with 'nasgraph meta train'"
        )
    return found[0]


def _measured(network: "Network") -> float | None:
    """Test accuracy in the card of an entry."""
    if network.entry is None:
        return None
    found = network.entry.card.measured("test")
    return None if found is None else found.value
