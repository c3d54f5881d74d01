"""A user's own model: `model.py:factory` or `package.module:factory`, and what to call it with."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nasgraph.commands.options import WrongUsageError, parse_shape
from nasgraph.errors import NasGraphError

if TYPE_CHECKING:
    from torch import nn

    from nasgraph.modules.trace import ExampleInputs

EXAMPLES = "example_inputs"
"""Name of the function in the model's file that gives example inputs."""


def is_factory(text: str) -> bool:
    """Whether a TARGET names a Python object: `file.py:name` or `package.module:name`."""
    source, colon, name = text.rpartition(":")
    return (
        bool(colon)
        and name.isidentifier()
        and (source.endswith(".py") or source.replace(".", "").isidentifier())
    )


def load_factory(text: str) -> "tuple[nn.Module, ModuleType]":
    """Make the module that `file.py:factory` names. Runs the user's code.

    Args:
        text: A Python file or an importable module, a colon, and a function without required arguments, a class, or
            an `nn.Module`.

    Returns:
        The module, and the Python module that it comes from.

    Raises:
        WrongUsageError: If there is no such file or name, or it gives no `nn.Module`.
        NasGraphError: If the user's code raises an error.
    """
    from torch import nn

    source, _, name = text.rpartition(":")
    try:
        python = _from_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except WrongUsageError:
        raise
    except ModuleNotFoundError as error:
        raise WrongUsageError(f"Cannot import '{source}': {error}") from error
    except Exception as error:
        raise NasGraphError(f"'{source}' fails: {type(error).__name__}: {error}") from error
    if not hasattr(python, name):
        offered = (
            ", ".join(sorted(n for n, value in vars(python).items() if _defined_here(value, python)))
            or "nothing"
        )
        raise WrongUsageError(f"'{source}' has no '{name}'. It defines: {offered:.300}")
    found = getattr(python, name)
    try:
        module = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise NasGraphError(f"'{text}' fails: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise WrongUsageError(f"Expected '{text}' to give a torch.nn.Module (got {type(module).__name__})")
    return module, python


def _defined_here(value: object, python: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == python.__name__


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise WrongUsageError(f"There is no file '{path}'")
    name = f"nasgraph_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WrongUsageError(f"'{path}' is no Python file")
    python = importlib.util.module_from_spec(spec)
    sys.modules[name] = python  # dataclasses look their module up there
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # so that the file can import its neighbours
        sys.path.insert(0, folder)
    spec.loader.exec_module(python)
    return python


def example_inputs(python: ModuleType, shapes: Sequence[str], tokens: Sequence[str]) -> "ExampleInputs":
    """Example inputs: those that the command line describes, or what the file's `example_inputs()` gives.

    Args:
        python: The Python module that the model comes from.
        shapes: Shapes of real-valued inputs, as `--input-shape` takes them.
        tokens: Integer inputs as `LENGTH:VOCABULARY` (a longer shape works, too: `8,8:100`). They follow the others.

    Raises:
        WrongUsageError: If neither is there, or a description cannot be read.
    """
    import torch

    if shapes or tokens:
        rng = torch.Generator().manual_seed(0)
        real = [torch.randn(2, *parse_shape(text), generator=rng) for text in shapes]
        return [*real, *(_random_tokens(text, rng) for text in tokens)]
    give: Callable[[], ExampleInputs] | None = getattr(python, EXAMPLES, None)
    if give is None:
        raise WrongUsageError(
            f"Describe the inputs with --input-shape or --tokens, or write a function '{EXAMPLES}()' into the model's file"
        )
    try:
        return give()
    except Exception as error:
        raise NasGraphError(f"'{EXAMPLES}()' fails: {type(error).__name__}: {error}") from error


def _random_tokens(text: str, rng: object) -> "object":
    import torch

    shape, _, size = text.partition(":")
    if not size.isdecimal() or int(size) < 1:
        raise WrongUsageError(
            f"Expected '--tokens' as LENGTH:VOCABULARY such as 128:50257 (got '{text:.60}')"
        )
    assert isinstance(rng, torch.Generator)
    return torch.randint(int(size), (2, *parse_shape(shape)), generator=rng)
