"""`--around MODEL`: a search space around a user's own model."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import WrongUsageError

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.ir import Shape
    from nasgraph.spaces import SearchSpace
    from nasgraph.spaces.around import AroundGraph

AroundOption = Annotated[
    str | None,
    typer.Option(
        "--around",
        metavar="MODEL",
        help="Search around a model of your own in place of --space: model.py:factory or package.module:factory. Its code is run.",
        show_default=False,
    ),
]
AroundShapeOption = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        metavar="INT,..",
        help="With --around: shape of one example of the model's input.",
        show_default="that of the data",
    ),
]


def around_maker(
    model: str, *, input_shape: str | None = None
) -> "Callable[[tuple[int, ...], int], SearchSpace]":
    """What makes the space around a model for data of a shape and a number of classes. The model's code runs when it is called.

    Args:
        model: `file.py:factory` or `package.module:factory`, as `load_factory` takes it.
        input_shape: Shape of one example, as `--input-shape` takes it; None: that of the data.

    Returns:
        A function of the shape of one example and the number of classes. It raises `WrongUsageError` if the model cannot be
        loaded or does not fit the data, and `NasGraphError` if it cannot be traced or varied.
    """

    def make(data_shape: tuple[int, ...], num_classes: int) -> "SearchSpace":
        shape = input_shape or ",".join(map(str, data_shape))
        space = load_around(model, input_shape=shape)
        _check_fits(space, model, data_shape, num_classes)
        return space

    return make


def load_around(model: str, *, input_shape: str) -> "AroundGraph":
    """The space around a model that reads one real-valued input. See `around_maker` for errors."""
    from nasgraph.commands.factories import example_inputs, load_factory
    from nasgraph.modules.around import around

    module, python = load_factory(model)
    return around(module, example_inputs(python, (input_shape,), ()))


def _check_fits(space: "AroundGraph", model: str, data_shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse a model that cannot be trained on the data as it is.

    Raises:
        WrongUsageError: If so.
    """
    graph = space.graph
    reads = [graph.shapes[index] for index in graph.inputs]
    gives = [graph.shapes[index] for index in graph.outputs]
    if reads != [tuple(data_shape)] or gives != [(num_classes,)]:
        raise WrongUsageError(
            f"'{model}' reads {_listed(reads)} and gives {_listed(gives)}; the data has examples of shape "
            f"{tuple(data_shape)} and {num_classes} classes"
        )
    constants = sum(node.op == "constant" for node in graph.nodes)
    if constants:
        raise WrongUsageError(
            f"'{model}' holds {constants} constants, such as fixed positions or masks, whose content a graph does not hold, so its "
            "variants cannot be trained. Make them parameters, or search from Python: nasgraph.modules.around(..., "
            "learn_constants=True)"
        )


def _listed(shapes: "list[Shape]") -> str:
    return " and ".join(map(str, shapes))


def print_around(output: "Output", space: "AroundGraph") -> None:
    """Tables for people: the choices of a space around a model, and what stays as it is."""
    rows = [(offer.name, ", ".join(map(str, offer.options)), str(offer.original)) for offer in space.offers]
    output.table(["choice", "options", "the model's"], rows, title=space.name)
    if space.fixed:
        output.table(["stays as it is", "why"], [(part.what, part.reason) for part in space.fixed])
