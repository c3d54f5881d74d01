"""Pictures of lineages."""

import xml.etree.ElementTree as ElementTree

import pytest

from nasgraph.draw.tree import MAX_TEXT, Ancestor, draw_tree

ITEMS = (
    Ancestor(key="this", title="winner v1", text="74 %", kind="this", url="/entry/winner/1"),
    Ancestor(key="study", title='a <study> & "more"', kind="search"),
    Ancestor(key="trial", title="trial 3", kind="trial"),
    Ancestor(key="child", title="x" * 80, url="/entry/child"),
)
LINKS = (("study", "trial"), ("trial", "this"), ("this", "child"))


def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(draw_tree(ITEMS, LINKS, label="Lineage"))


def place(root: ElementTree.Element, kind: str) -> float:
    group = next(g for g in root.iter("g") if g.attrib.get("data-kind") == kind)
    rect = group.find("rect")
    assert rect is not None
    return float(rect.attrib["y"])


def test_what_came_first_stands_above() -> None:
    root = drawn()
    heights = [place(root, kind) for kind in ("search", "trial", "this", "entry")]
    assert heights == sorted(heights)


def test_boxes_with_an_address_are_links_and_others_are_not() -> None:
    assert [a.attrib["href"] for a in drawn().iter("a")] == ["/entry/winner/1", "/entry/child"]


def test_text_is_escaped_and_cut_but_told_in_full() -> None:
    root = drawn()
    texts = [text.text or "" for text in root.iter("text")]
    assert 'a <study> & "more"' in texts
    assert max(map(len, texts)) == MAX_TEXT
    assert "x" * 80 in [(title.text or "").strip() for title in root.iter("title")]


def test_a_single_box_is_a_tree() -> None:
    assert len(list(ElementTree.fromstring(draw_tree(ITEMS[:1], (), label="")).iter("rect"))) == 1


def test_circles_and_links_to_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        draw_tree(ITEMS, (*LINKS, ("child", "study")), label="")
    with pytest.raises(ValueError, match="between boxes"):
        draw_tree(ITEMS, (("study", "nobody"),), label="")
    with pytest.raises(ValueError, match="Expected 'kind'"):
        Ancestor(key="a", title="a", kind="friend")
