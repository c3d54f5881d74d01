"""Which sizes of a graph may change together: sizes as sums of unknowns, and equations between them.

An axis is a sum of terms, such as `16 + w3 + 2 w7`: the concatenation of a fixed part, a part of width `w3` and two of
width `w7`. Every layer that makes a new axis makes an unknown; adding two tensors equates two axes; splitting one at a
place inside an unknown makes two of it. What cannot be said in this form is fixed at the size that it has, which is always
right, since all equations hold for the sizes that the graph has.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd, lcm

Term = tuple[int, int]
"""A factor and the number of an unknown, or a length and `FIXED`."""
Axis = tuple[Term, ...]
FIXED = -1


@dataclass
class Widths:
    """A system of equations between the sizes of axes.

    Attributes:
        sizes: The size that each unknown has in the graph.
        divisors: What each unknown has to be a multiple of.
        reasons: Why an unknown keeps its size, for those that do.
    """

    sizes: list[int] = field(default_factory=list)
    divisors: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    _replaced: dict[int, Axis] = field(default_factory=dict)

    def new(self, size: int) -> Axis:
        """An axis of this size that may change. Axes of size one stay: they are repeated where others are not."""
        if size == 1:
            return ((1, FIXED),)
        self.sizes.append(size)
        self.divisors.append(1)
        return ((1, len(self.sizes) - 1),)

    def resolve(self, axis: Axis) -> Axis:
        """The axis in unknowns that are not known to be sums of others."""
        if not any(unknown in self._replaced for _, unknown in axis):
            return axis
        terms: list[Term] = []
        for factor, unknown in axis:
            inner = self._replaced.get(unknown)
            if inner is None:
                terms.append((factor, unknown))
            else:
                terms += [(factor * f, u) for f, u in self.resolve(inner)]
        return tuple(terms)

    def size(self, axis: Axis) -> int:
        """The size of an axis in the graph."""
        return sum(factor * (1 if u == FIXED else self.sizes[u]) for factor, u in axis)

    def freeze(self, axis: Axis, reason: str) -> None:
        """Fix every unknown of an axis."""
        for _, unknown in self.resolve(axis):
            if unknown != FIXED:
                self.reasons.setdefault(unknown, reason)

    def require(self, axis: Axis, divisor: int, reason: str) -> None:
        """Keep every part of an axis a multiple of `divisor`; fix the axis if some part is none today."""
        axis = self.resolve(axis)
        for factor, unknown in axis:
            needed = divisor // gcd(divisor, factor)
            if needed > 1 and (unknown == FIXED or self.sizes[unknown] % needed):
                self.freeze(axis, reason)
                return
        for factor, unknown in axis:
            if unknown != FIXED:
                self.divisors[unknown] = lcm(self.divisors[unknown], divisor // gcd(divisor, factor))

    def divided(self, axis: Axis, divisor: int) -> Axis | None:
        """An axis of which this one is `divisor` times as long. None if there is none."""
        terms: list[Term] = []
        axis = self.resolve(axis)
        for factor, unknown in axis:
            needed = divisor // gcd(divisor, factor)
            if needed > 1 and (unknown == FIXED or self.sizes[unknown] % needed):
                return None
        for factor, unknown in axis:
            common = gcd(divisor, factor)
            needed = divisor // common
            if needed == 1:
                terms.append((factor // divisor, unknown))
                continue
            if unknown not in self._replaced:
                part = self.new(self.sizes[unknown] // needed)
                self._replace(unknown, scaled(part, needed))
            inner = self.resolve(((factor, unknown),))
            if any(f % divisor for f, _ in inner):  # the unknown stands twice with factors that do not agree
                return None
            terms += [(f // divisor, u) for f, u in inner]
        return tuple(terms)

    def equate(self, first: Axis, second: Axis, reason: str) -> None:
        """Make two axes of one size the same for ever; fix both if that cannot be said otherwise."""
        first, second = self.resolve(first), self.resolve(second)
        if _counted(first) == _counted(second):
            return
        for one, other in ((first, second), (second, first)):
            if not _unknowns(one):
                self.freeze(other, reason)
                return
        for one, other in ((first, second), (second, first)):
            factor, unknown = one[0]
            if len(one) > 1 or unknown in _unknowns(other):
                continue
            part = self.divided(other, factor)
            if part is not None:
                self._replace(unknown, part)
                return
        if [self.size((term,)) for term in first] == [self.size((term,)) for term in second]:
            for one_term, other_term in zip(first, second, strict=True):
                self.equate((one_term,), (other_term,), reason)
            return
        self.freeze(first, reason)
        self.freeze(second, reason)

    def cut(self, axis: Axis, place: int) -> tuple[Axis, Axis] | None:
        """The axis up to `place` and from there on. None if the place lies inside a part that cannot be divided."""
        before: list[Term] = []
        terms = list(self.resolve(axis))
        while terms and place >= self.size((terms[0],)):
            place -= self.size((terms[0],))
            before.append(terms.pop(0))
        if place:
            halves = self._cut_term(terms.pop(0), place)
            if halves is None:
                return None
            before.append(halves[0])
            terms.insert(0, halves[1])
        return tuple(before), tuple(terms)

    def _cut_term(self, term: Term, place: int) -> tuple[Term, Term] | None:
        factor, unknown = term
        if unknown == FIXED:
            return (place, FIXED), (factor - place, FIXED)
        size = self.sizes[unknown]
        if place % size == 0:
            return (place // size, unknown), (factor - place // size, unknown)
        if factor > 1:
            return None
        (first,), (second,) = self.new(place), self.new(size - place)
        self._replace(unknown, (first, second))
        return first, second

    def _replace(self, unknown: int, axis: Axis) -> None:
        self._replaced[unknown] = axis
        if unknown in self.reasons:
            self.freeze(axis, self.reasons[unknown])
        if self.divisors[unknown] > 1:
            self.require(axis, self.divisors[unknown], "its parts are not multiples of the number of groups")


def fixed(size: int) -> Axis:
    """An axis that keeps its size."""
    return ((size, FIXED),)


def scaled(axis: Axis, factor: int) -> Axis:
    """An axis `factor` times as long."""
    return tuple((factor * f, unknown) for f, unknown in axis)


def length(axis: Axis, value: Callable[[int], int]) -> int:
    """Size of an axis for given values of its unknowns."""
    return sum(factor * (1 if unknown == FIXED else value(unknown)) for factor, unknown in axis)


def _unknowns(axis: Axis) -> set[int]:
    return {unknown for _, unknown in axis if unknown != FIXED}


def _counted(axis: Axis) -> Counter[int]:
    counted: Counter[int] = Counter()
    for factor, unknown in axis:
        counted[unknown] += factor
    return counted
