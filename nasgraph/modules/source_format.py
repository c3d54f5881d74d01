"""Python expressions, laid out as `ruff format` and `black` lay them out."""

from collections.abc import Sequence
from dataclasses import dataclass

LINE_LENGTH = 110


@dataclass(frozen=True, slots=True)
class Call:
    """`head(items)tail`, or another bracketed list: `head` ends with the opening bracket, `tail` begins with the closing one."""

    head: str
    items: tuple["Expression", ...]
    tail: str = ")"

    def __str__(self) -> str:
        comma = "," if self.head.endswith("(") and self.head[:-1] == "" and len(self.items) == 1 else ""
        return f"{self.head}{', '.join(map(str, self.items))}{comma}{self.tail}"


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms joined by `+`."""

    terms: tuple[str, ...]

    def __str__(self) -> str:
        return " + ".join(self.terms)


Expression = str | Call | Sum


class Quoted(str):
    """A text that is written with double quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f'"{self}"'


def call(head: str, /, *items: object, **named: object) -> Call:
    """`head(items, name=value)`. Expressions stay as they are; settings are written by `repr`."""
    written = [item if isinstance(item, Call) else str(item) for item in items]
    return Call(f"{head}(", (*written, *(f"{key}={value!r}" for key, value in named.items())))


def statement(before: str, expression: Expression, *, indent: int) -> list[str]:
    """`before` and an expression as lines: one line, or more where one would be too long."""
    return _lines(before, expression, "", indent)


def _lines(before: str, expression: Expression, after: str, indent: int) -> list[str]:
    space = " " * indent
    whole = f"{space}{before}{expression}{after}"
    if len(whole) <= LINE_LENGTH or isinstance(expression, str):
        return [whole]
    if isinstance(expression, Sum):
        first, *rest = expression.terms
        return [
            f"{space}{before}(",
            f"{space}    {first}",
            *(f"{space}    + {t}" for t in rest),
            f"{space}){after}",
        ]
    head, tail = f"{space}{before}{expression.head}", f"{space}{expression.tail}{after}"
    joined = f"{space}    {', '.join(map(str, expression.items))}"
    if len(joined) <= LINE_LENGTH and not (expression.head == "(" and len(expression.items) == 1):
        return [head, joined, tail]
    inner = [line for item in expression.items for line in _lines("", item, ",", indent + 4)]
    return [head, *inner, tail]


def signature(name: str, parameters: Sequence[str], returns: str, *, indent: int) -> list[str]:
    """The first line or lines of a function."""
    return _lines("def ", Call(f"{name}(", tuple(parameters)), f" -> {returns}:", indent)
