"""The graph of ghn3 (github.com/SamsungSAILMontreal/ghn3, commit b3289ac; needs facebookresearch/ppuda), for measuring beside ours.

Both are brought beside the checkout, never into it. `torchvision` and `einops`, which ghn3 imports for names, need not be there:
an empty stand-in takes its place, which changes nothing for networks that are not torchvision's.
"""

import importlib
import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

from torch import nn


class _StandIn(types.ModuleType):
    """A module of classes that nothing is an instance of."""

    __path__: list[str] = []  # noqa: RUF012  as in every module

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "0.20"
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (nn.Module,), {}) if name[0].isupper() else _StandIn(f"{self.__name__}.{name}")
        setattr(self, name, made)
        return made


class _Finder:
    """Finds stand-ins for a library that is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name.split(".")[0] in ("torchvision", "h5py", "einops"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]  # has both methods
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def load_ghn3(folder: Path) -> type[Any] | None:
    """The class `Graph` of ghn3, or None if `ghn3` and `ppuda` do not lie in `folder`."""
    if not all((folder / name).is_dir() for name in ("ghn3", "ppuda")):
        return None
    for name in ("ghn3", "ppuda"):
        sys.path.insert(0, str(folder / name))
    sys.meta_path.append(_Finder())
    for name in ("ghn3", "ppuda.deepnets1m"):  # without the packages' own imports, of trainers and data sets
        package = types.ModuleType(name)
        package.__path__ = [str(folder / name.split(".")[0] / name.replace(".", "/"))]
        sys.modules[name] = package
    graph_class: type[Any] = importlib.import_module("ghn3.graph").Graph
    return graph_class
