"""A learned rule as a torch optimiser."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.meta.optimiser.rule import (
    MOMENTUM_DECAYS,
    SECOND_DECAYS,
    LearnedRule,
    Moments,
    learned_step,
    no_moments,
)


class OptimiserError(NasGraphError, RuntimeError):
    """A step that cannot be done. The message names the parameter; no parameter has been changed."""


class LearnedOptimiser(torch.optim.Optimizer):
    """Steps by a learned rule; used like any optimiser of torch.

    Nothing needs tuning: `lr` multiplies the learned step, and is there for schedulers. Guaranteed: a step either changes all parameters that
    have a gradient, or, where it raises, none. Parameters without a gradient are left alone. A run that goes on from `state_dict`
    goes on bit by bit. Memory: five numbers per parameter.

    Args:
        params: Tensors, or groups of them, as torch takes them; float32 or float64.
        rule: From `load_rule` or `meta_train`.
        lr: Factor of the learned step.
        weight_decay: Share of each parameter that is taken away per step, times `lr`; decoupled, as in AdamW.

    Raises:
        ValueError: If `lr` or `weight_decay` is negative.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        rule: LearnedRule,
        *,
        lr: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"Expected 'lr' and 'weight_decay' of at least 0 (got {lr} and {weight_decay})")
        self.rule = rule
        self._numbers = rule.numbers.detach().clone()
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "rule": rule.fingerprint})

    def __getstate__(
        self,
    ) -> dict[str, Any]:  # torch's leaves out what a subclass has: copies would lack the rule
        return {**super().__getstate__(), "rule": self.rule, "_numbers": self._numbers}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change all parameters that have a gradient.

        Args:
            closure: Computes the loss and the gradients anew.

        Returns:
            What the closure returned.

        Raises:
            OptimiserError: If a gradient is sparse, not finite, or a parameter has another type or another shape than the state that was
                loaded for it, or the state is that of another rule. Nothing has been changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        todo = []
        for number, group in enumerate(self.param_groups):
            if group["rule"] != self.rule.fingerprint:
                raise OptimiserError(
                    f"The state of group {number} is that of the learned rule {group['rule']}, but the optimiser has {self.rule.fingerprint}: "
                    "load that rule, or begin with a new state"
                )
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    self._check(parameter, f"parameter {place} of group {number}")
                    todo.append((parameter, group))
        for parameter, group in todo:
            self._change(parameter, group["lr"], group["weight_decay"])
        return loss

    def _check(self, parameter: Tensor, name: str) -> None:
        gradient = parameter.grad
        assert gradient is not None
        shape = tuple(parameter.shape)
        if gradient.layout != torch.strided:
            raise OptimiserError(
                f"The gradient of {name} (shape {shape}) is sparse: make its embedding with 'sparse=False'"
            )
        if parameter.dtype not in (torch.float32, torch.float64):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise OptimiserError(f"Expected {name} (shape {shape}) as float32 or float64 (got {kind})")
        if not torch.isfinite(gradient).all():
            raise OptimiserError(
                f"The gradient of {name} (shape {shape}) has numbers that are not finite. No parameter was changed: "
                "skip this batch, or look for its cause"
            )
        momentum = self.state[parameter].get("momentum") if parameter in self.state else None
        if momentum is not None and tuple(momentum.shape) != (len(MOMENTUM_DECAYS), *shape):
            raise OptimiserError(
                f"The state of {name} is of shape {tuple(momentum.shape[1:])}, the parameter of {shape}: it is the state of another model"
            )

    def _change(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        gradient, state, shape = parameter.grad, self.state[parameter], tuple(parameter.shape)
        assert gradient is not None
        if parameter.numel() == 0:
            return
        flat = parameter.reshape(1, -1)
        if not state:
            empty = no_moments(1, parameter.numel(), parameter)
            state["step"] = torch.zeros(())
            state["momentum"] = empty.momentum.reshape(len(MOMENTUM_DECAYS), *shape)
            state["second"] = empty.second.reshape(len(SECOND_DECAYS), *shape)
        before = Moments(
            state["momentum"].reshape(1, len(MOMENTUM_DECAYS), -1),
            state["second"].reshape(1, len(SECOND_DECAYS), -1),
        )
        change, after = learned_step(
            self.rule.config,
            self._numbers.to(parameter).unsqueeze(0),
            flat,
            gradient.reshape(1, -1),
            before,
            state["step"].to(parameter).reshape(1),
            shape=shape,
        )
        state["momentum"] = after.momentum.reshape(state["momentum"].shape)
        state["second"] = after.second.reshape(state["second"].shape)
        state["step"] = state["step"] + 1
        if weight_decay:
            parameter.mul_(1 - lr * weight_decay)
        parameter.add_(change.reshape(shape), alpha=lr)
