"""Reading pages as a browser would, with the standard library."""

from collections.abc import Sequence
from html.parser import HTMLParser

_VOID = frozenset({"img", "input", "link", "meta", "br", "hr"})


class Page(HTMLParser):
    """A page as its elements: tag, attributes and the text inside, in the order in which they begin.

    Args:
        text: The HTML.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.unclosed = [element.tag for element in self._open]

    def handle_starttag(self, tag: str, attrs: "list[tuple[str, str | None]]") -> None:
        element = Element(
            tag, {name: value or "" for name, value in attrs}, [outer.tag for outer in self._open]
        )
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> "list[Element]":
        """Elements of a kind with these attributes. `_` in a name stands for `-`, and one at its end for nothing."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            element
            for element in self.elements
            if element.tag == tag
            and all(element.attributes.get(name) == value for name, value in wanted.items())
        ]

    def one(self, tag: str, **attributes: str) -> "Element":
        """The only such element."""
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"Expected one <{tag}> with {attributes} (got {len(found)})"
        return found[0]


class Element:
    """One element.

    Attributes:
        tag: Its kind.
        attributes: Its attributes.
        path: Kinds of the elements around it.
        text: All text inside.
    """

    def __init__(self, tag: str, attributes: dict[str, str], path: Sequence[str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.path = tuple(path)
        self.text = ""

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())
