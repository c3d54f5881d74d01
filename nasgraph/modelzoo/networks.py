"""Networks to work on, from wherever they are: an entry of the zoo, an MLflow run, or files of one's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nasgraph.errors import ZooError
from nasgraph.files import sha256_of
from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.entry import ZooEntry
from nasgraph.modelzoo.importing import state_of, traced_of
from nasgraph.modelzoo.store import Zoo
from nasgraph.modelzoo.weights import read_weights
from nasgraph.modules import build
from nasgraph.modules.trace import ExampleInputs


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network and where it is from.

    Attributes:
        name: What messages call it.
        graph: Its architecture.
        state: Its parameters, running statistics and constants.
        reference: Its entry in the zoo, such as `name/3`; empty for files of one's own.
        entry: That entry; None for files of one's own.
        source: Where files of one's own are from, with their hash; empty for an entry.
    """

    name: str
    graph: ComputationalGraph
    state: Mapping[str, Tensor]
    reference: str = ""
    entry: ZooEntry | None = None
    source: str = ""


def network_of_entry(zoo: Zoo, reference: str) -> Network:
    """The network of an entry.

    Args:
        zoo: The zoo.
        reference: `name`, `name/3` or `name@alias`.

    Raises:
        UnknownNameError: If there is no such model.
        ZooError: If it is no model, or damaged; see `Zoo.load`.
    """
    found = zoo.catalogue.row(reference).reference
    entry = zoo.load(found)
    return Network(found, entry.graph, entry.state, reference=found, entry=entry)


def network_of_run(zoo: Zoo, run_id: str) -> Network:
    """The network that an MLflow run registered, by the newest version if there are several.

    Raises:
        ZooError: If the run registered none.
    """
    versions = zoo.registry.versions() if zoo.registry.exists else []
    of_run = [version for version in versions if version.run_id == run_id]
    if not of_run:
        raise ZooError(
            f"The run '{run_id:.60}' registered no model in '{zoo.uri}'. 'nasgraph zoo list' shows what is there"
        )
    newest = max(of_run, key=lambda version: (version.changed_ms, version.number))
    return network_of_entry(zoo, f"{newest.name}/{newest.number}")


def network_of_module(
    module: nn.Module, weights: Path, example_inputs: ExampleInputs, *, source: str
) -> Network:
    """A torch module with weights from a safetensors file by the module's own names. The module's weights are replaced.

    Args:
        module: Any module that can be traced completely.
        weights: The file.
        example_inputs: See `nasgraph.modules.trace`.
        source: Where the module is from.

    Raises:
        ZooError: If the file is missing, damaged, or does not fit, or a graph cannot express the module.
        TraceError: If the module cannot be traced.
    """
    if not weights.is_file():
        raise ZooError(f"There is no file '{weights}'")
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ZooError(f"Cannot read '{weights}' as safetensors: {error}") from error
    _load(module, tensors, weights)
    traced = traced_of(module, example_inputs)
    state = state_of(traced, module)
    return Network(
        source, traced.graph, state, source=f"{source}, {weights.name}, sha256 {sha256_of(weights)}"
    )


def network_of_graph(graph: ComputationalGraph, weights: Path, *, source: str) -> Network:
    """A graph with weights from a safetensors file by the graph's names.

    Raises:
        ZooError: If the file is missing, damaged, or does not fit.
    """
    if not weights.is_file():
        raise ZooError(f"There is no file '{weights}'")
    digest = sha256_of(weights)
    state = read_weights(weights, build(graph, device="meta"), sha256_expected=digest)
    return Network(source, graph, state, source=f"{source}, {weights.name}, sha256 {digest}")


def _load(module: nn.Module, tensors: Mapping[str, Tensor], weights: Path) -> None:
    """Put weights into a module. Names that share one tensor may be there once."""
    own = module.state_dict(keep_vars=True)
    foreign = sorted(set(tensors) - set(own))
    if foreign:
        raise ZooError(f"'{weights}' has '{foreign[0]}', which the model does not have")
    given = {id(own[name]) for name in tensors}
    missing = sorted(name for name, tensor in own.items() if id(tensor) not in given)
    if missing:
        raise ZooError(f"'{weights}' has no '{missing[0]}', which the model needs")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise ZooError(
                f"Expected '{name}' in '{weights}' to have shape {tuple(own[name].shape)} (got {tuple(tensor.shape)})"
            )
        if own[name].is_floating_point() != tensor.is_floating_point():
            raise ZooError(
                f"'{name}' in '{weights}' holds {tensor.dtype} numbers, the model {own[name].dtype}"
            )
    module.load_state_dict(dict(tensors), strict=False)
