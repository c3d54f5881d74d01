"""The six expansions of transformers keep the function in any composition, and go on to learn more."""

import pytest
import torch
from torch.nn import functional as F

from nasgraph.edits import (
    Edited,
    EditError,
    add_units,
    add_zero_units,
    expand_heads,
    expand_keys,
    expand_layers,
    expand_values,
)
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext, initial_parameters
from nasgraph.seeding import generator
from nasgraph.symmetry import symmetry_table
from tests.edits.networks import EXACT, FLOAT, State, change, gradients, language_model, live_state
from tests.merge.networks import sampled


def _attention(graph: ComputationalGraph) -> int:
    return next(i for i, node in enumerate(graph.nodes) if node.op == "attention")


def _stream(graph: ComputationalGraph) -> str:
    """The group of the residual stream: that of the embedding."""
    return next(group.name for group in symmetry_table(graph).groups if group.name == "n1.weight/1")


def _hidden(graph: ComputationalGraph) -> str:
    gelu = next(i for i, node in enumerate(graph.nodes) if node.op == "gelu")
    return f"n{graph.nodes[gelu].inputs[0]}.weight/0"


def _expand(graph: ComputationalGraph, state: State, kind: int, seed: int) -> Edited:
    node = _attention(graph)
    heads = int(str(dict(graph.nodes[node].attrs)["num_heads"]))
    query, _, value = (shape[-1] // heads for shape in graph.input_shapes(node))
    table = symmetry_table(graph)
    match kind:
        case 0:
            return add_units(graph, state, _hidden(graph), table.group(_hidden(graph)).size + 5, seed=seed)
        case 1:
            return expand_heads(graph, state, node, heads + 2, seed=seed)
        case 2:
            return expand_values(graph, state, node, value + 3, seed=seed)
        case 3:
            return expand_keys(graph, state, node, query + 2, seed=seed)
        case 4:
            return add_zero_units(
                graph, state, _stream(graph), table.group(_stream(graph)).size + 4, seed=seed
            )
        case _:
            return expand_layers(graph, state, seed=seed)


@pytest.mark.parametrize("kind", range(6))
def test_each_expansion_keeps_the_logits_and_its_new_weights_get_gradients(kind: int) -> None:
    graph = language_model()
    for dtype, bound in ((torch.float64, EXACT), (torch.float32, FLOAT)):
        state = live_state(graph, dtype=dtype)
        edited = _expand(graph, state, kind, seed=0)
        assert change(graph, state, edited) < bound
    state = live_state(graph)
    edited = _expand(graph, state, kind, seed=0)
    gradient = gradients(edited.graph, edited.state)
    moved = 0
    for name, tensor in gradient.items():
        owner, short = int(name[1:].split(".")[0]), name.split(".")[1]
        before = state.get(f"n{edited.nodes[owner]}.{short}")
        if before is None:
            moved += bool(tensor.abs().max() > 0)
        elif before.shape != tensor.shape:
            inside = torch.zeros_like(tensor, dtype=torch.bool)
            inside[tuple(slice(size) for size in before.shape)] = True
            moved += bool(tensor[~inside].abs().max() > 0)
    assert moved


def test_random_compositions_of_all_six_keep_the_logits_within_1e_5() -> None:
    for seed in range(2):
        graph = language_model(layers=1)
        state = live_state(graph, dtype=torch.float32)
        edited = Edited(graph, dict(state), "", True, tuple(range(len(graph))))
        for kind in generator(seed, "six").permutation(6).tolist():
            edited = _expand(edited.graph, edited.state, kind, seed=seed)
        final = Edited(edited.graph, edited.state, "", True, tuple(range(len(edited.graph))))
        assert change(graph, state, final) < FLOAT


def test_expanded_keys_leave_the_attention_with_its_usual_scale() -> None:
    graph = language_model()
    state = live_state(graph)
    edited = expand_keys(graph, state, _attention(graph), 9)
    assert dict(edited.graph.nodes[_attention(graph)].attrs)["scale"] == 0.0
    assert change(graph, state, edited) < EXACT


def test_the_width_of_a_model_with_layer_norm_is_refused_with_the_way_out() -> None:
    graph = language_model(norm="layer_norm")
    with pytest.raises(EditError, match=r"subtracts the mean.*rms_norm"):
        add_zero_units(graph, live_state(graph), _stream(graph), 16)


def test_sampled_vision_and_language_models_can_be_expanded() -> None:
    for space in ("vit", "gpt"):
        for graph in sampled(space, 1):
            state = live_state(graph)
            node = _attention(graph)
            heads = int(str(dict(graph.nodes[node].attrs)["num_heads"]))
            sizes = [shape[-1] // heads for shape in graph.input_shapes(node)]
            assert change(graph, state, expand_values(graph, state, node, sizes[2] + 1)) < EXACT
            assert change(graph, state, expand_keys(graph, state, node, sizes[0] + 1)) < EXACT
            assert change(graph, state, expand_layers(graph, state)) < EXACT
            if heads > 1:
                assert change(graph, state, expand_heads(graph, state, node, heads + 1)) < EXACT


def _train(graph: ComputationalGraph, state: State, *, steps: int) -> tuple[dict[str, torch.Tensor], float]:
    """Learn the next letter of a sequence in which each letter follows from the two before it. Returns the last losses' mean."""
    rng = torch.Generator().manual_seed(0)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    optimizer = torch.optim.AdamW(list(leaves.values()), lr=3e-3)
    program, losses = Program(graph), []
    for _ in range(steps):
        rows = [torch.randint(0, 7, (64,), generator=rng) for _ in range(2)]
        for _ in range(4):
            rows.append((2 * rows[-1] + 3 * rows[-2]) % 7)
        text = torch.stack(rows, dim=1)
        (logits,) = program(leaves, [text[:, :5]], RunContext(batch_size=64))
        loss = F.cross_entropy(logits[:, 1:].flatten(0, 1), text[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        losses.append(float(loss.detach()))
    return {name: tensor.detach() for name, tensor in leaves.items()}, sum(losses[-10:]) / 10


def test_an_expanded_model_goes_on_to_a_lower_loss_than_the_old_one_at_equal_steps() -> None:
    graph = language_model(layers=1, dim=6)
    state, _ = _train(graph, initial_parameters(graph, seed=0), steps=60)
    _, unexpanded = _train(graph, state, steps=100)
    edited = Edited(graph, state, "", True, ())
    for kind in (0, 4, 3, 5):
        edited = _expand(edited.graph, edited.state, kind, seed=0)
    _, expanded = _train(edited.graph, edited.state, steps=100)
    assert expanded < unexpanded - 0.02


def test_what_is_no_attention_or_has_one_head_is_refused() -> None:
    graph = language_model(heads=1)
    state = live_state(graph)
    with pytest.raises(EditError, match="is no attention"):
        expand_heads(graph, state, 1, 4)
    with pytest.raises(EditError, match="one head"):
        expand_heads(graph, state, _attention(graph), 2)
    (mlp,) = sampled("mlp", 1)
    with pytest.raises(EditError, match="no attention"):
        expand_layers(mlp, live_state(mlp))
