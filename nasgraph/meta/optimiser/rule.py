"""The rule of a learned optimiser: how a small network turns gradients into steps.

The rule is applied to every number of every tensor alike, so it serves networks of any size. It starts as Adam and learns to differ:
`step = -exp(c + w f + m) (a + d)`, where `a` is Adam's direction (the nominal term of Harrison et al. 2022, "A closer look at learned optimization:
stability, robustness, and inductive biases"), `c` a learnt logarithm of the step size, `f` the features of the tensor (so that steps follow power laws of its width, which
reach beyond the widths seen), and `d` and `m` what a perceptron with one hidden layer answers
for the features of Metz et al. 2022 ("VeLO") that are cheap: momenta at several time scales, normalised by second moments, the number itself,
and, per tensor, its size, shape, the agreement of gradient and momentum, and the time.

Letters: K = rules (and networks) side by side, n = numbers in a tensor, M = momenta, S = second moments, F = features, H = hidden size, Q = numbers of a rule.
"""

import hashlib
from dataclasses import dataclass
from math import log, prod, sqrt

import torch
from torch import Tensor

from nasgraph.errors import ConfigError, NasGraphError

MOMENTUM_DECAYS = (0.5, 0.9, 0.99)
SECOND_DECAYS = (0.9, 0.999)
TIMES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
NUM_ELEMENT_FEATURES = 2 * len(MOMENTUM_DECAYS) + len(SECOND_DECAYS) + 2
NUM_TENSOR_FEATURES = 7 + len(TIMES)
NOMINAL = 1
"""Which momentum Adam's direction is made of: 0.9."""
FAN_IN = 6
"""Place of the logarithm of the fan-in among the features of a tensor, which is zero at `USUAL_FAN_IN` and for vectors."""
USUAL_FAN_IN = 32
EPS = 1e-8
MAX_EXPONENT = 2.0
CHUNK = 2**18
"""Numbers whose features are held in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class RuleConfig:
    """Shape of a rule.

    Attributes:
        hidden_dim: Size of the hidden layer.
        initial_step: Step size of the Adam that an untrained rule is.

    Raises:
        ConfigError: If a value is out of its range.
    """

    hidden_dim: int = 16
    initial_step: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.hidden_dim <= 4096:
            raise ConfigError(f"Expected 'hidden_dim' from 1 to 4096 (got {self.hidden_dim})")
        if not 0 < self.initial_step <= 1:
            raise ConfigError(f"Expected 'initial_step' above 0, at most 1 (got {self.initial_step})")


@dataclass(frozen=True, slots=True)
class Moments:
    """What is remembered of a tensor's gradients: `momentum` `[K, M, n]` and `second` `[K, S, n]`."""

    momentum: Tensor
    second: Tensor


@dataclass(frozen=True)
class LearnedRule:
    """A rule: its shape and its numbers `[Q]`.

    Raises:
        NasGraphError: If the numbers are not as many as the shape needs, or not finite.
    """

    config: RuleConfig
    numbers: Tensor

    def __post_init__(self) -> None:
        wanted = num_numbers(self.config)
        if tuple(self.numbers.shape) != (wanted,) or not torch.isfinite(self.numbers).all():
            raise NasGraphError(
                f"Expected {wanted} finite numbers for a rule with a hidden layer of {self.config.hidden_dim} "
                f"(got shape {tuple(self.numbers.shape)})"
            )

    @property
    def fingerprint(self) -> str:
        """A short hash of the numbers: two rules with one fingerprint step alike."""
        content = self.numbers.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


def num_numbers(config: RuleConfig) -> int:
    """How many numbers a rule has."""
    return sum(prod(shape) for shape in _shapes(config).values())


def _shapes(config: RuleConfig) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_dim
    return {
        "element": (NUM_ELEMENT_FEATURES, hidden),
        "tensor": (NUM_TENSOR_FEATURES, hidden),
        "bias": (hidden,),
        "out": (hidden, 2),
        "skip": (NUM_TENSOR_FEATURES,),
        "out_bias": (2,),
    }


def initial_rule(config: RuleConfig | None = None, *, seed: int = 0) -> LearnedRule:
    """A rule that is Adam, its step size that which is configured times `sqrt(32 / fan-in)`: the hidden layer is random, its output zero."""
    config = config or RuleConfig()
    rng = torch.Generator().manual_seed(seed)
    fan_in = NUM_ELEMENT_FEATURES + NUM_TENSOR_FEATURES
    parts = []
    for name, shape in _shapes(config).items():
        if name in ("element", "tensor"):
            parts.append(torch.randn(shape, generator=rng).flatten() / sqrt(fan_in))
        else:
            parts.append(torch.zeros(prod(shape)))
    parts[-1][1] = log(config.initial_step)
    parts[-2][FAN_IN] = -2.5  # the features are divided by five: steps fall with the root of the fan-in
    return LearnedRule(config, torch.cat(parts))


def no_moments(rules: int, numbers: int, like: Tensor) -> Moments:
    """What is remembered before the first gradient: nothing."""
    return Moments(
        like.new_zeros(rules, len(MOMENTUM_DECAYS), numbers),
        like.new_zeros(rules, len(SECOND_DECAYS), numbers),
    )


def learned_step(
    config: RuleConfig,
    rules_KQ: Tensor,
    values_Kn: Tensor,
    gradients_Kn: Tensor,
    moments: Moments,
    steps_K: Tensor,
    *,
    shape: tuple[int, ...],
) -> tuple[Tensor, Moments]:
    """The change of one tensor under each of K rules, and what is remembered after it.

    Pure. Networks side by side do not influence each other.

    Args:
        config: Shape of the rules.
        rules_KQ: Their numbers.
        values_Kn: The tensor in each network, flat.
        gradients_Kn: Its gradient.
        moments: What is remembered; see `no_moments`.
        steps_K: Steps done before this one.
        shape: Shape of the tensor in one network.

    Returns:
        What to add to the values, `[K, n]`, and the new moments.
    """
    decay_M = values_Kn.new_tensor(MOMENTUM_DECAYS)
    decay_S = values_Kn.new_tensor(SECOND_DECAYS)
    gradients_K1n = gradients_Kn.unsqueeze(1)
    momentum_KMn = torch.lerp(gradients_K1n, moments.momentum, decay_M.unsqueeze(-1))
    second_KSn = torch.lerp(gradients_K1n.square(), moments.second, decay_S.unsqueeze(-1))
    after_K1 = (steps_K.to(values_Kn) + 1).unsqueeze(1)
    mean_KMn = momentum_KMn / (1 - decay_M**after_K1).unsqueeze(-1)
    root_KSn = (second_KSn / (1 - decay_S**after_K1).unsqueeze(-1)).sqrt()
    parts, start = {}, 0
    for name, form in _shapes(config).items():
        parts[name] = rules_KQ[:, start : start + prod(form)].reshape(-1, *form)
        start += prod(form)
    tensor_KF = _tensor_features(values_Kn, gradients_Kn, mean_KMn, root_KSn, after_K1, shape)
    hidden_KH = torch.einsum("kf,kfh->kh", tensor_KF, parts["tensor"]) + parts["bias"]
    power_K1 = (tensor_KF * parts["skip"]).sum(1, keepdim=True)
    sizes = (_size(values_Kn).unsqueeze(-1), _size(mean_KMn), _size(root_KSn[:, -1]).unsqueeze(-1))
    changes = []
    for begin in range(0, values_Kn.shape[1], CHUNK):
        part = slice(begin, begin + CHUNK)
        mean, root = mean_KMn[..., part], root_KSn[..., part] + EPS
        features_KFn = _element_features(values_Kn[:, part], gradients_Kn[:, part], mean, root, sizes)
        hidden_KnH = torch.baddbmm(hidden_KH.unsqueeze(1), features_KFn.transpose(1, 2), parts["element"])
        answer_Kn2 = torch.baddbmm(parts["out_bias"].unsqueeze(1), torch.relu(hidden_KnH), parts["out"])
        direction = mean[:, NOMINAL] / root[:, -1] + answer_Kn2[..., 0]
        changes.append(-(answer_Kn2[..., 1] + power_K1).clamp(max=MAX_EXPONENT).exp() * direction)
    return torch.cat(changes, dim=1), Moments(momentum_KMn, second_KSn)


def _size(tensor: Tensor) -> Tensor:
    """Root mean square over the last axis."""
    return tensor.square().mean(-1).sqrt() + EPS


def _element_features(
    values: Tensor, gradients: Tensor, mean: Tensor, root: Tensor, sizes: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Features `[K, F, n]` of each number: relative to its own history, and to the rest of its tensor."""
    value_size, mean_size, root_size = sizes
    found = torch.cat(
        [
            mean / root[:, -1:],
            mean / mean_size.unsqueeze(-1),
            gradients.unsqueeze(1) / root,
            (values / value_size).unsqueeze(1),
            (root[:, -1] / root_size).log().unsqueeze(1) / 2,
        ],
        dim=1,
    )
    return found.clamp(-5, 5)


def _tensor_features(
    values: Tensor, gradients: Tensor, mean: Tensor, root: Tensor, after_K1: Tensor, shape: tuple[int, ...]
) -> Tensor:
    """Features `[K, F]` that are the same for all numbers of a tensor."""
    size, gradient_size, mean_size = _size(values), _size(gradients), _size(mean)
    agreement = (gradients.unsqueeze(1) * mean).mean(-1) / (gradient_size.unsqueeze(-1) * mean_size)
    constant = (
        1.0 if len(shape) < 2 else 0.0,
        log(max(prod(shape), 1)) / 10,
        log(max(prod(shape[1:]), 1) / USUAL_FAN_IN) / 5 if len(shape) > 1 else 0.0,
    )
    return torch.cat(
        [
            size.log().clamp(-7, 7).unsqueeze(1) / 2,
            agreement[:, NOMINAL:],
            (mean_size[:, -1] / _size(root[:, -1])).unsqueeze(1),
            values.new_tensor(constant).expand(len(values), -1),
            torch.tanh(after_K1 / values.new_tensor(TIMES)),
        ],
        dim=1,
    )
