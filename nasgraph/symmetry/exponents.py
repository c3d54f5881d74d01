"""Exponents of a unit's factor: the linear equations that operators set up between them, and their solution.

Multiply what a hidden unit gives by a factor q. Each tensor in which the unit stands then has to be multiplied by a power of q. The
powers are unknowns; every operator relates those of what it reads, owns and gives by homogeneous linear equations.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

Unknown = Hashable
Scaling = Literal["positive", "sign", "none"]


@dataclass
class Equations:
    """What is known of the exponents of one group of units.

    `rows` are sums that are zero. `positive` and `odd`: exponents of what passes an operator that commutes with positive factors only, or
    with a change of sign only.
    """

    rows: list[dict[Unknown, int]] = field(default_factory=list)
    positive: set[Unknown] = field(default_factory=set)
    odd: set[Unknown] = field(default_factory=set)

    def zero(self, terms: Iterable[tuple[Unknown, int]]) -> None:
        """Demand that a weighted sum of exponents is zero."""
        row: dict[Unknown, int] = {}
        for unknown, weight in terms:
            row[unknown] = row.get(unknown, 0) + weight
        self.rows.append(row)

    def solve(self) -> tuple[Scaling, dict[Unknown, int]]:
        """The kind of factors that a unit allows, and the exponents. Unknowns that are left out are zero.

        Where several solutions are independent, as behind each of several norms, their sum is taken: all that can be scaled is.
        """
        found = self._exponents(())
        meets_positive, meets_odd = (any(found.get(u) for u in each) for each in (self.positive, self.odd))
        if meets_positive and meets_odd:
            found, meets_odd = self._exponents(self.odd), False
            if not any(found.values()):
                found, meets_odd = self._exponents(self.positive), True
        if not any(found.values()):
            return "none", {}
        return ("sign" if meets_odd else "positive"), found

    def _exponents(self, zero: Iterable[Unknown]) -> dict[Unknown, int]:
        """Exponents where those in `zero` vanish; empty if there is none but the trivial solution in small whole numbers."""
        classes = _Classes()
        for unknown in zero:
            classes.vanish(unknown)
        rest = []
        for row in self.rows:
            terms = [(unknown, weight) for unknown, weight in row.items() if weight]
            if len(terms) == 1:
                classes.vanish(terms[0][0])
            elif len(terms) == 2 and terms[0][1] == -terms[1][1]:
                classes.join(terms[0][0], terms[1][0])
            elif terms:
                rest.append(terms)
        rows = [classes.reduced(terms) for terms in rest]
        known = {unknown for row in self.rows for unknown in row}
        roots = sorted({classes.root(unknown) for unknown in known}, key=repr)
        values = _solution([row for row in rows if row], [r for r in roots if not classes.vanished(r)])
        found = {}
        for unknown in known:
            value = values.get(classes.root(unknown), Fraction(0))
            if value.denominator != 1 or abs(value) > 2:
                return {}
            found[unknown] = int(value)
        return found


class _Classes:
    """Unknowns that are equal, and those that are zero."""

    def __init__(self) -> None:
        self._parent: dict[Unknown, Unknown] = {}
        self._zero: set[Unknown] = set()

    def root(self, unknown: Unknown) -> Unknown:
        path = []
        while self._parent.get(unknown, unknown) != unknown:
            path.append(unknown)
            unknown = self._parent[unknown]
        for each in path:
            self._parent[each] = unknown
        return unknown

    def join(self, first: Unknown, second: Unknown) -> None:
        a, b = sorted((self.root(first), self.root(second)), key=_values_first)
        if a != b:
            self._parent[b] = a
            if b in self._zero:
                self._zero.add(a)

    def vanish(self, unknown: Unknown) -> None:
        self._zero.add(self.root(unknown))

    def vanished(self, unknown: Unknown) -> bool:
        return self.root(unknown) in self._zero

    def reduced(self, terms: Iterable[tuple[Unknown, int]]) -> dict[Unknown, Fraction]:
        row: dict[Unknown, Fraction] = {}
        for unknown, weight in terms:
            root = self.root(unknown)
            if root not in self._zero:
                row[root] = row.get(root, Fraction(0)) + weight
        return {unknown: weight for unknown, weight in row.items() if weight}


def _values_first(unknown: Unknown) -> tuple[bool, str]:
    """Exponents of parameters follow from those of values, so the values stand first."""
    return (isinstance(unknown, tuple) and unknown[0] == "parameter", repr(unknown))


def _solution(rows: list[dict[Unknown, Fraction]], unknowns: Iterable[Unknown]) -> Mapping[Unknown, Fraction]:
    """One for every unknown that the rows leave free, and what follows for the others."""
    pivots: dict[Unknown, dict[Unknown, Fraction]] = {}  # a row has no pivot of a row before it
    for row in rows:
        left = dict(row)
        while bound := next((unknown for unknown in left if unknown in pivots), None):
            left = _minus(left, pivots[bound], left[bound])
        if left:
            pivot = max(left, key=_values_first)
            pivots[pivot] = {unknown: weight / left[pivot] for unknown, weight in left.items()}
    found = {unknown: Fraction(1) for unknown in unknowns if unknown not in pivots}
    for pivot, row in reversed(pivots.items()):
        rest = (weight * found.get(u, Fraction(0)) for u, weight in row.items() if u != pivot)
        found[pivot] = -sum(rest, Fraction(0))
    return found


def _minus(
    row: Mapping[Unknown, Fraction], other: Mapping[Unknown, Fraction], factor: Fraction
) -> dict[Unknown, Fraction]:
    result = dict(row)
    for unknown, weight in other.items():
        result[unknown] = result.get(unknown, Fraction(0)) - factor * weight
    return {unknown: weight for unknown, weight in result.items() if weight}
