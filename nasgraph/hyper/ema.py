"""The moving average of a hypernetwork's parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

PREFIX = "ema."
UPDATES = "ema_updates"


class WeightAverage:
    """Exponential moving average of parameters, with a warmed-up decay.

    After update t (from 1): `average = d average + (1 - d) parameters` with `d = min(decay, (1 + t) / (10 + t))`. So the
    average follows closely at first, and the random parameters at the start, from which it begins, leave no
    trace: they weigh less than t^-9. With a decay of 0 nothing is kept and `copy_to` changes nothing.

    Args:
        module: Its parameters are the first value of the average.
        decay: Largest decay, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._average = (
            {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
            if decay
            else {}
        )

    def update(self, module: nn.Module) -> None:
        """Take the present parameters in."""
        if not self._average:
            return
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        with torch.no_grad():
            now = [parameter.detach() for parameter in module.parameters()]
            mix = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            mix(list(self._average.values()), now, self._updates)

    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters with the average."""
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in self._average:
                    parameter.copy_(self._average[name])

    def state(self) -> dict[str, Tensor]:
        """Tensors that hold everything; `{}` if the average is off."""
        if not self._average:
            return {}
        tensors = {f"{PREFIX}{name}": tensor for name, tensor in self._average.items()}
        return {**tensors, UPDATES: torch.tensor(self._updates)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `state()`; names and shapes are not checked."""
        for name, tensor in self._average.items():
            tensor.copy_(tensors[f"{PREFIX}{name}"])
        if self._average:
            self._updates = int(tensors[UPDATES])
