"""Errors that callers may want to tell apart. Each is also the builtin error it resembles."""

from collections.abc import Iterable
from difflib import get_close_matches


class NasGraphError(Exception):
    """Root of all errors that nasgraph raises on purpose. Its text is one clear message for a user."""


class InvalidGraphError(NasGraphError, ValueError):
    """A computational graph breaks a rule of the graph language."""


class InvalidChoiceError(NasGraphError, ValueError):
    """An architecture does not fit its search space."""


class UnknownNameError(NasGraphError, LookupError):
    """A name that is not registered. The message offers the closest known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        known = sorted(known)
        close = get_close_matches(name, known, n=3, cutoff=0.5)
        text = f"No {kind} named '{name}'."
        if close:
            text += f" Close: {', '.join(repr(n) for n in close)}."
        elif known:
            text += f" Known: {', '.join(repr(n) for n in known[:12])}{' ...' if len(known) > 12 else ''}."
        super().__init__(f"{text} {hint}".rstrip())


class DataError(NasGraphError, ValueError):
    """A data set is missing, damaged, or does not have the expected form."""


class CheckpointError(NasGraphError, ValueError):
    """A file with weights is truncated, foreign, or does not fit the model it is loaded into."""


class ConfigError(NasGraphError, ValueError):
    """A configuration has an unknown, missing or wrong field."""


class CandidateError(NasGraphError, RuntimeError):
    """One candidate could not be evaluated. The search records the reason and goes on."""


class TrackingError(NasGraphError, RuntimeError):
    """The tracking server cannot be reached or refuses a write."""


class ZooError(NasGraphError, ValueError):
    """A zoo entry is missing, damaged, or has been tampered with."""


class UnsupportedOpError(NasGraphError, NotImplementedError):
    """An operator outside the graph language stands where it cannot be passed over. The message names it."""


class TraceError(NasGraphError, RuntimeError):
    """A module cannot be traced: its forward pass fails, or returns nothing that depends on its inputs."""
