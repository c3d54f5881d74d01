"""Graphs to torch modules."""

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasgraph.ir import ComputationalGraph, ParameterSpec
from nasgraph.modules.functional import BatchNormBuffers, Program, RunContext


def initial_parameters(graph: ComputationalGraph, *, seed: int) -> dict[str, Tensor]:
    """Random parameters on the CPU, as torch's own layers draw them.

    Weights and biases are uniform in +-1/sqrt(fan-in) (He et al. 2015 with slope sqrt(5), torch's default for
    `Linear` and `Conv2d`), norms start at one and zero, embeddings are standard normal, free parameters
    normal with standard deviation 0.02. A `parameter` node that is a bias starts at zero unless it says how many inputs
    its weight sums over. Torch's global generator is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters: dict[str, Tensor] = {}
    owner, fan_in = "", 0
    for name, spec in graph.parameters.items():
        node = name.split(".")[0]
        if spec.role == "weight":
            owner, fan_in = node, spec.fan_in  # a bias follows its weight in the table
        elif node != owner:
            fan_in = spec.fan_in if spec.fan_in > 1 else 0
        parameters[name] = _initial(spec, fan_in, generator)
    return parameters


def _initial(spec: ParameterSpec, fan_in: int, generator: torch.Generator) -> Tensor:
    tensor = torch.empty(spec.shape)
    match spec.role:
        case "weight" | "bias" if fan_in > 0:
            return tensor.uniform_(-1 / sqrt(fan_in), 1 / sqrt(fan_in), generator=generator)
        case "weight" | "bias":
            return tensor.zero_()
        case "scale":
            return tensor.fill_(1.0)
        case "shift":
            return tensor.zero_()
        case "embedding":
            return tensor.normal_(generator=generator)
        case "position":
            return tensor.normal_(std=0.02, generator=generator)


def initial_buffers(graph: ComputationalGraph) -> dict[str, Tensor]:
    """Running statistics of the batch norms by name: `n<node>.running_mean` at 0, `n<node>.running_var` at 1."""
    buffers: dict[str, Tensor] = {}
    for index, node in enumerate(graph.nodes):
        if node.op == "batch_norm":
            size = graph.shapes[index][0]
            buffers[f"n{index}.running_mean"] = torch.zeros(size)
            buffers[f"n{index}.running_var"] = torch.ones(size)
    return buffers


def buffers_by_node(buffers: Mapping[str, Tensor]) -> dict[int, BatchNormBuffers]:
    """Pairs of running mean and variance by node index, as a `RunContext` wants them. Tensors are shared."""
    means = {
        name[1:].split(".")[0]: tensor for name, tensor in buffers.items() if name.endswith("running_mean")
    }
    return {int(node): (mean, buffers[f"n{node}.running_var"]) for node, mean in means.items()}


def constants_by_node(state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Values of constant nodes by node index, as a `RunContext` wants them, from a module's state. Tensors are shared."""
    return {int(name[1:].split(".")[0]): tensor for name, tensor in state.items() if name.endswith(".value")}


def _checked_constants(
    graph: ComputationalGraph, constants: Mapping[str, Tensor], *, device: torch.device
) -> dict[str, Tensor]:
    """Values of all `constant` nodes as buffers `n<node>.value`. On "meta" those left out are made up."""
    shapes = {
        f"n{index}.value": graph.shapes[index]
        for index, node in enumerate(graph.nodes)
        if node.op == "constant"
    }
    unknown = sorted(set(constants) - set(shapes))
    if unknown:
        raise ValueError(f"The graph has no constant named '{unknown[0]}'")
    checked: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        is_integer = graph.dtypes[int(name[1:].split(".")[0])] == "int"
        if name not in constants and device.type != "meta":
            raise ValueError(f"The constant '{name}' of shape {shape} is missing: pass it in 'constants'")
        value = constants.get(name)
        if value is None:
            value = torch.empty(shape, device=device, dtype=torch.int64 if is_integer else None)
        if tuple(value.shape) != shape:
            raise ValueError(f"Expected constant '{name}' to have shape {shape} (got {tuple(value.shape)})")
        if value.is_floating_point() == is_integer or value.is_complex():
            kind = "integers" if is_integer else "real numbers"
            raise ValueError(f"Expected constant '{name}' to consist of {kind} (got {value.dtype})")
        checked[name] = value.detach()
    return checked


class GraphModule(nn.Module):
    """A graph as a torch module. Parameter names equal those of `ComputationalGraph.parameters`.

    The forward pass takes one tensor per input node and returns the output, or a tuple if the graph has several.
    """

    def __init__(
        self, graph: ComputationalGraph, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.graph = graph
        self._program = Program(graph)
        self._batch_norms = tuple(index for index, node in enumerate(graph.nodes) if node.op == "batch_norm")
        self._constants = tuple(index for index, node in enumerate(graph.nodes) if node.op == "constant")
        for name, tensor in parameters.items():
            self._holder(name).register_parameter(name.split(".")[1], nn.Parameter(tensor))
        for name, tensor in buffers.items():
            self._holder(name).register_buffer(name.split(".")[1], tensor)

    def _holder(self, name: str) -> nn.Module:
        node = name.split(".")[0]
        if node not in self._modules:
            self.add_module(node, nn.Module())
        return self.get_submodule(node)

    def forward(self, *inputs: Tensor, edges: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Run the graph on `[batch, *shape]` tensors.

        Args:
            inputs: One tensor per input node.
            edges: Source and target of each edge between examples, `[2, edges]`, for graphs that pass messages.
        """
        buffers = {}
        for index in self._batch_norms:
            holder = self.get_submodule(f"n{index}")
            buffers[index] = (holder.get_buffer("running_mean"), holder.get_buffer("running_var"))
        constants = {index: self.get_submodule(f"n{index}").get_buffer("value") for index in self._constants}
        context = RunContext(
            batch_size=inputs[0].shape[0],
            training=self.training,
            buffers=buffers,
            constants=constants,
            edges=edges,
        )
        outputs = self._program(dict(self.named_parameters()), inputs, context)
        return outputs[0] if len(outputs) == 1 else outputs

    def extra_repr(self) -> str:
        return f"fingerprint={self.graph.fingerprint}, nodes={len(self.graph)}"


def build(
    graph: ComputationalGraph,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    constants: Mapping[str, Tensor] | None = None,
) -> GraphModule:
    """Make a module with random parameters.

    Args:
        graph: A checked graph.
        device: Where parameters live. On "meta" nothing is allocated or drawn.
        seed: Seed of the random parameters; the same on every device.
        constants: Values of the graph's `constant` nodes by name, `n<node>.value`. On "meta" they may be left out.

    Returns:
        The module, in training mode. Its `state_dict` has exactly the graph's parameters, the running
        statistics of its batch norms and its constants.

    Raises:
        UnsupportedOpError: If a node is `opaque`; the message names it.
        ValueError: If a constant is missing, unknown, or of another shape or type.
    """
    buffers = {
        **initial_buffers(graph),
        **_checked_constants(graph, constants or {}, device=torch.device(device)),
    }
    if torch.device(device).type == "meta":
        parameters = {name: torch.empty(spec.shape, device="meta") for name, spec in graph.parameters.items()}
    else:
        parameters = initial_parameters(graph, seed=seed)
    module = GraphModule(graph, parameters, buffers)
    return module.to(device)


def call_with(module: nn.Module, parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """Call any module with these parameters in place of its own.

    The module is left untouched: its parameters, its buffers (batch norms update copies) and its mode. Gradients
    flow to `parameters`.

    Args:
        module: A module built by `build`, or any other.
        parameters: New values by parameter name; a parameter that is left out keeps its own value.
        inputs: Inputs of the forward pass.

    Raises:
        ValueError: If a name is no parameter of the module, or a shape differs.
    """
    own = dict(module.named_parameters())
    for name, tensor in parameters.items():
        if name not in own:
            raise ValueError(f"The module has no parameter named '{name}'")
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"Expected '{name}' to have shape {tuple(own[name].shape)} (got {tuple(tensor.shape)})"
            )
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    output: Tensor = functional_call(module, {**buffers, **parameters}, inputs)
    return output
