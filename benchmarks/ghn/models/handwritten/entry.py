"""How the files of hand-written networks name their networks, and the inputs that many of them share."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.ghn.models import Inputs, Model, enliven, seeded


def entry(
    name: str,
    family: str,
    make: Callable[[], nn.Module],
    inputs: Callable[[], Inputs],
    *,
    training: bool = False,
) -> Model:
    """A model made by a class, a function or a `partial` of one, whose docstring says what is special."""

    def build() -> nn.Module:
        return enliven(make()).train(training)

    documented = make.func if isinstance(make, partial) else make
    special = (inspect.getdoc(documented) or "").splitlines()[0]
    return Model(name, family, seeded(build), seeded(inputs), special)


def image(channels: int = 3, size: int = 16) -> Callable[[], Inputs]:
    """One argument `x`: two images."""
    return lambda: {"x": torch.randn(2, channels, size, size)}


def tokens(length: int = 8, vocabulary: int = 50) -> Callable[[], Inputs]:
    """One argument `tokens`: two rows of token numbers, none of them 0."""
    return lambda: {"tokens": torch.randint(1, vocabulary, (2, length))}


def sequence(length: int = 8, dim: int = 16) -> Callable[[], Inputs]:
    """One argument `x`: two sequences of vectors."""
    return lambda: {"x": torch.randn(2, length, dim)}


def vector(dim: int = 16) -> Callable[[], Inputs]:
    """One argument `x`: two vectors."""
    return lambda: {"x": torch.randn(2, dim)}
