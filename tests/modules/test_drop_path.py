"""Stochastic depth as an operator (Huang et al. 2016, "Deep Networks with Stochastic Depth"; Zoph et al. 2018)."""

import pytest
import torch
from torch import Tensor

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program, RunContext

BATCH = 4000


def branch(p: float, *, scheduled: bool = False) -> ComputationalGraph:
    g = GraphBuilder()
    return g.finish(g("drop_path", g("input", shape=(2, 3)), p=p, scheduled=scheduled))


def run(
    p: float,
    *,
    seed: int | None = 0,
    training: bool = True,
    scheduled: bool = False,
    progress: float = 1.0,
) -> Tensor:
    rng = None if seed is None else torch.Generator().manual_seed(seed)
    context = RunContext(batch_size=BATCH, training=training, generator=rng, progress=progress)
    (result,) = Program(branch(p, scheduled=scheduled))({}, [torch.ones(BATCH, 2, 3)], context)
    return result


def share_of_zeros(result: Tensor) -> float:
    return float((result == 0).flatten(1).all(1).float().mean())


def test_it_equals_a_plain_mask_per_example() -> None:
    x = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(1))
    context = RunContext(batch_size=50, training=True, generator=torch.Generator().manual_seed(2))
    (ours,) = Program(branch(0.3))({}, [x], context)
    alive = torch.rand(50, generator=torch.Generator().manual_seed(2)) >= 0.3
    theirs = torch.stack([row / 0.7 if lives else row * 0 for row, lives in zip(x, alive, strict=True)])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("seed", [0, None])
def test_whole_examples_are_dropped_and_the_mean_is_kept(seed: int | None) -> None:
    result = run(0.25, seed=seed).flatten(1)
    assert torch.equal(result.amin(1), result.amax(1))
    assert share_of_zeros(result) == pytest.approx(0.25, abs=0.05)  # 7 standard deviations
    assert sorted(set(result.flatten().tolist())) == pytest.approx([0.0, 1 / 0.75])


def test_a_generator_makes_it_reproducible_and_the_global_one_is_left_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(run(0.5), run(0.5))
    assert not torch.equal(run(0.5), run(0.5, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("scheduled", [False, True])
def test_nothing_is_dropped_in_inference(scheduled: bool) -> None:
    assert torch.equal(run(0.9, training=False, scheduled=scheduled), torch.ones(BATCH, 2, 3))


@pytest.mark.parametrize(("progress", "chance"), [(0.0, 0.0), (0.5, 0.2), (1.0, 0.4)])
def test_the_scheduled_chance_grows_linearly_over_the_training(progress: float, chance: float) -> None:
    assert share_of_zeros(run(0.4, scheduled=True, progress=progress)) == pytest.approx(chance, abs=0.06)
    assert share_of_zeros(run(0.4, progress=progress)) == pytest.approx(0.4, abs=0.06)


def test_a_chance_of_one_drops_everything() -> None:
    assert not run(1.0).any()


def test_no_gradient_reaches_a_dropped_example() -> None:
    x = torch.ones(BATCH, 2, 3, requires_grad=True)
    context = RunContext(batch_size=BATCH, training=True, generator=torch.Generator().manual_seed(0))
    (result,) = Program(branch(0.5))({}, [x], context)
    result.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert x.grad is not None
    assert torch.equal(x.grad != 0, result != 0)
