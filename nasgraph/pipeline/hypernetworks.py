"""Which graph hypernetwork serves a search: a folder, a shipped one by name, or whichever fits the data."""

from pathlib import Path

import torch

from nasgraph.data import SearchData
from nasgraph.errors import CheckpointError, NasGraphError, UnknownNameError
from nasgraph.files import Json, read_json
from nasgraph.hyper import GraphHyperNetwork, load_ghn
from nasgraph.hyper.checkpoint import CONFIG
from nasgraph.modelzoo.builtin import builtin_entries


def shipped_ghns() -> dict[str, Path]:
    """Folders of the graph hypernetworks that installed zoo packages ship, by name."""
    return {entry.name: entry.path for entry in builtin_entries().values() if entry.kind == "ghn"}


def recipe_of(folder: Path) -> dict[str, Json]:
    """How the hypernetwork in a folder was trained, without reading its weights.

    Raises:
        CheckpointError: If the folder holds none.
    """
    try:
        document = read_json(folder / CONFIG)
    except NasGraphError as error:
        raise CheckpointError(f"No graph hypernetwork in '{folder}': {error}") from error
    recipe = document.get("recipe") if isinstance(document, dict) else None
    if not isinstance(recipe, dict):
        raise CheckpointError(f"No graph hypernetwork in '{folder}'")
    return recipe


def find_ghn(wanted: str, data: SearchData, space: str) -> Path | None:
    """Folder of the hypernetwork to use.

    Args:
        wanted: "none"; "auto": the shipped one that was trained on this data set at this size and on this space, if there is
            one; the name of a shipped one; or the path of a folder.
        data: What it has to predict for.
        space: Name of the search space.

    Raises:
        UnknownNameError: If `wanted` is neither a known name nor a folder.
        CheckpointError: If the one named was trained on other shapes or classes.
    """
    if wanted == "none":
        return None
    shipped = shipped_ghns()
    if wanted == "auto":
        return next(
            (path for path in shipped.values() if _misfit(recipe_of(path), data, space) is None), None
        )
    folder = named_ghn(wanted)
    recipe = recipe_of(folder)
    if recipe.get("input_shape") != list(data.input_shape) or recipe.get("num_classes") != data.num_classes:
        raise CheckpointError(
            f"The hypernetwork '{wanted}' predicts for inputs {recipe.get('input_shape')} and {recipe.get('num_classes')} "
            f"classes; '{data.name}' has {list(data.input_shape)} and {data.num_classes}. Train one with 'nasgraph ghn train'"
        )
    return folder


def named_ghn(wanted: str) -> Path:
    """Folder of a shipped hypernetwork by its name, or the folder that is named itself.

    Raises:
        UnknownNameError: If it is neither.
    """
    shipped = shipped_ghns()
    folder = shipped.get(wanted, Path(wanted))
    if not folder.is_dir():
        raise UnknownNameError(
            "graph hypernetwork", wanted, shipped, hint="A folder works, too: see 'nasgraph ghn list'."
        )
    return folder


def _misfit(recipe: dict[str, Json], data: SearchData, space: str) -> str | None:
    """The first fact in which a recipe differs from what is needed, or None."""
    spaces = recipe.get("spaces")
    facts = {
        "data": recipe.get("data") == data.name,
        "input_shape": recipe.get("input_shape") == list(data.input_shape),
        "num_classes": recipe.get("num_classes") == data.num_classes,
        "spaces": isinstance(spaces, list) and space in spaces,
    }
    return next((name for name, fits in facts.items() if not fits), None)


def open_ghn(folder: Path, *, device: str | torch.device) -> GraphHyperNetwork:
    """Load a hypernetwork for prediction. See `nasgraph.hyper.load_ghn` for errors."""
    return load_ghn(folder, device=device)[0]
