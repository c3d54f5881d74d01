"""How much a search may spend: wall time, trials, training operations, or whichever of them ends first.

10min      2h      1h30min      45s      100      100 trials      1e15flops      2h, 500 trials
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nasgraph.errors import ConfigError

UNITS: Mapping[str, float] = MappingProxyType(
    {
        "s": 1,
        "sec": 1,
        "min": 60,
        "h": 3600,
        "d": 86_400,
        "second": 1,
        "minute": 60,
        "hour": 3600,
        "day": 86_400,
    }
)
"""Seconds of each unit of time; a plural s is allowed."""
_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?"
_DURATION = re.compile(rf"((?:{_NUMBER})\s*[a-z]+\s*)+")
_PIECE = re.compile(rf"({_NUMBER})\s*([a-z]+)")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a search has used.

    Attributes:
        seconds: Wall time, that of earlier processes of the same search included.
        trials: Evaluated candidates, failures among them.
        flops: Floating-point operations of all trainings, the metric `train_flops` (see `nasgraph.evaluate.costs.training_flops`).
    """

    seconds: float = 0.0
    trials: int = 0
    flops: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may use. It is exhausted as soon as one of the parts is.

    Attributes:
        seconds: Wall time; None: no limit.
        trials: Evaluated candidates; None: no limit.
        flops: Floating-point operations of all trainings; None: no limit.

    Raises:
        ConfigError: If there is no limit at all, or one is not above zero.
    """

    seconds: float | None = None
    trials: int | None = None
    flops: float | None = None

    def __post_init__(self) -> None:
        limits = {"seconds": self.seconds, "trials": self.trials, "flops": self.flops}
        if all(limit is None for limit in limits.values()):
            raise ConfigError("Expected a budget of time, trials or flops (got none)")
        for name, limit in limits.items():
            if limit is not None and not 0 < limit < float("inf"):
                raise ConfigError(f"Expected a finite budget of {name} above 0 (got {limit})")

    def remaining(self, spent: Spent) -> "Budget | None":
        """What is left; None if nothing is."""
        if self.is_exhausted(spent):
            return None
        return Budget(
            None if self.seconds is None else self.seconds - spent.seconds,
            None if self.trials is None else self.trials - spent.trials,
            None if self.flops is None else self.flops - spent.flops,
        )

    def is_exhausted(self, spent: Spent) -> bool:
        """Whether no further trial may start."""
        return self.exhausted_part(spent) is not None

    def exhausted_part(self, spent: Spent) -> str | None:
        """What is used up: "time limit", "trials" or "flops"; None if nothing is."""
        if self.seconds is not None and spent.seconds >= self.seconds:
            return "time limit"
        if self.trials is not None and spent.trials >= self.trials:
            return "trials"
        if self.flops is not None and spent.flops >= self.flops:
            return "flops"
        return None

    def share_spent(self, spent: Spent) -> float:
        """How much of the budget is used, from 0 to 1: the largest share of any part. For progress bars."""
        pairs = ((self.seconds, spent.seconds), (self.trials, spent.trials), (self.flops, spent.flops))
        return min(1.0, max(used / limit for limit, used in pairs if limit is not None))

    def __str__(self) -> str:
        """Text that `parse_budget` reads back."""
        parts = []
        if self.seconds is not None:
            parts.append(_duration(self.seconds))
        if self.trials is not None:
            parts.append(f"{self.trials} trials")
        if self.flops is not None:
            parts.append(f"{self.flops!r} flops")
        return ", ".join(parts)


def parse_budget(text: str) -> Budget:
    """Read a budget: parts separated by commas, each a duration, a number of trials or a number of flops.

    Raises:
        ConfigError: If a part is no such thing, or two parts limit the same.
    """
    limits: dict[str, float | int] = {}
    for part in text.split(","):
        name, limit = _part(part.strip(), text)
        if name in limits:
            raise ConfigError(f"The budget '{text}' limits the {name} twice")
        limits[name] = limit
    trials = limits.get("trials")
    return Budget(limits.get("seconds"), None if trials is None else int(trials), limits.get("flops"))


def _part(part: str, text: str) -> tuple[str, float | int]:
    lowered = part.lower()
    if re.fullmatch(r"\d+(\s*trials?)?", lowered):
        return "trials", int(re.match(r"\d+", lowered)[0])  # type: ignore[index]  # it matched above
    if match := re.fullmatch(rf"({_NUMBER})\s*flops?", lowered):
        return "flops", float(match[1])
    if _DURATION.fullmatch(lowered):
        pieces = [(float(number), _unit(unit)) for number, unit in _PIECE.findall(lowered)]
        if all(unit is not None for _, unit in pieces):
            return "seconds", sum(number * unit for number, unit in pieces if unit is not None)
    raise ConfigError(
        f"Expected a budget such as '10min', '1h30min', '100 trials', '1e15flops', or several with commas (got '{text}')"
    )


def _unit(word: str) -> float | None:
    return UNITS.get(word, UNITS.get(word.removesuffix("s")))


def _duration(seconds: float) -> str:
    for unit in ("h", "min"):
        count = seconds / UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds!r}s" if seconds != int(seconds) else f"{int(seconds)}s"
