"""Context-free grammars whose derivations are made of choices.

Each step of a derivation replaces a symbol by one of its rules; which one is a choice, named after the path from the start:
`first.second block` is the symbol `block` in the slot `second` of the rule in the slot `first`. So mutation changes a subtree:
another rule at one place, below it new choices, and what has the same place, symbol and depth stays. Crossover exchanges
subtrees in the same way.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

from nasgraph.errors import NasGraphError
from nasgraph.spaces.space import Chooser


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to replace a symbol.

    Attributes:
        name: What the choice says. Different for the rules of one symbol.
        children: Slots by name, and the symbol in each. None: the rule ends the derivation there.
    """

    name: str
    children: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Derivation:
    """A derivation tree.

    Attributes:
        symbol: What was replaced.
        rule: Name of the rule that replaced it.
        path: Slots from the start to here.
        children: One for each slot of the rule, in order.
    """

    symbol: str
    rule: str
    path: tuple[str, ...]
    children: tuple["Derivation", ...] = ()

    def __iter__(self) -> Iterator["Derivation"]:
        """All nodes of the tree, each before its children."""
        yield self
        for child in self.children:
            yield from child

    @property
    def depth(self) -> int:
        """Rules on the longest path."""
        return 1 + max((child.depth for child in self.children), default=0)


class Grammar:
    """A context-free grammar that always ends.

    A rule is offered only where its derivation can end within what is left of `max_depth`. Whether a rule is offered depends on
    the symbol and the depth alone, so a choice has the same options whenever it is asked for. With `max_expected`, the depth is
    limited further, until a derivation with uniform answers has at most so many steps in expectation: a grammar whose rules
    have more than one recursive slot on average would else grow with the depth like 2 to its power.

    Args:
        rules: Rules by symbol.
        start: The symbol with which derivations start.
        max_depth: Most rules on a path.
        max_expected: Most steps of a uniform derivation in expectation; None: no such limit.

    Attributes:
        max_depth: The depth limit that holds.

    Raises:
        NasGraphError: If a symbol has no rules or two of one name, or cannot end within the limits.
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[Rule]],
        *,
        start: str,
        max_depth: int,
        max_expected: float | None = None,
    ) -> None:
        self.rules = {symbol: tuple(each) for symbol, each in rules.items()}
        self.start = start
        self.max_depth = max_depth
        self._check()
        self._heights = self._shortest()
        if self._heights[start] > max_depth:
            raise NasGraphError(
                f"No derivation of '{start}' ends within depth {max_depth} (the shortest has {self._heights[start]:.0f})"
            )
        while (
            max_expected is not None
            and self.max_depth > self._heights[start]
            and self.expected_size(depth=self.max_depth) > max_expected
        ):
            self.max_depth -= 1

    def _check(self) -> None:
        for symbol in (self.start, *(s for each in self.rules.values() for r in each for _, s in r.children)):
            if not self.rules.get(symbol):
                raise NasGraphError(f"The grammar has no rule for the symbol '{symbol}'")
        for symbol, rules in self.rules.items():
            for names, what in (
                ([rule.name for rule in rules], f"rules of '{symbol}'"),
                *(
                    ([slot for slot, _ in rule.children], f"slots of the rule '{rule.name}'")
                    for rule in rules
                ),
            ):
                if len(set(names)) < len(names):
                    raise NasGraphError(f"Expected different names for the {what} (got {', '.join(names)})")

    def _shortest(self) -> dict[str, float]:
        """Depth of the shortest derivation of every symbol."""
        heights = dict.fromkeys(self.rules, inf)
        for _ in self.rules:
            for symbol, rules in self.rules.items():
                heights[symbol] = min(
                    1 + max((heights[s] for _, s in rule.children), default=0) for rule in rules
                )
        return heights

    def offered(self, symbol: str, depth: int) -> tuple[Rule, ...]:
        """The rules of a symbol with which a derivation can end within `depth`, itself included."""
        return tuple(
            rule
            for rule in self.rules[symbol]
            if 1 + max((self._heights[child] for _, child in rule.children), default=0) <= depth
        )

    def derive(self, choose: Chooser, *, at: str = "") -> Derivation:
        """Derive a tree. Where a single rule is offered, nothing is asked.

        Args:
            choose: Decides.
            at: What the names of the choices begin with, for several derivations in one space.
        """
        return self._derive(choose, self.start, (at,) if at else (), self.max_depth)

    def _derive(self, choose: Chooser, symbol: str, path: tuple[str, ...], depth: int) -> Derivation:
        offered = {rule.name: rule for rule in self.offered(symbol, depth)}
        name = next(iter(offered))
        if len(offered) > 1:
            place = f"{'.'.join(path)} {symbol}" if path else symbol
            name = choose.categorical(place, tuple(offered))
        children = tuple(
            self._derive(choose, child, (*path, slot), depth - 1) for slot, child in offered[name].children
        )
        return Derivation(symbol, name, path, children)

    def expected_size(self, symbol: str | None = None, *, depth: int | None = None) -> float:
        """Steps of a derivation with uniform answers, in expectation."""
        levels: dict[str, float] = dict.fromkeys(self.rules, inf)
        for level in range(1, (self.max_depth if depth is None else depth) + 1):
            levels = {
                each: 1 + sum(levels[child] for rule in rules for _, child in rule.children) / len(rules)
                for each in self.rules
                if (rules := self.offered(each, level))
            }
        return levels.get(self.start if symbol is None else symbol, inf)

    def num_derivations(self, symbol: str | None = None, *, depth: int | None = None) -> int:
        """Number of different derivations."""
        counts: dict[str, int] = {}
        for level in range(1, (self.max_depth if depth is None else depth) + 1):
            counts = {
                each: sum(prod(counts[child] for _, child in rule.children) for rule in rules)
                for each in self.rules
                if (rules := self.offered(each, level))
            }
        return counts.get(self.start if symbol is None else symbol, 0)
