"""The picture as a document."""

import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from nasgraph.draw import draw_svg, picture_of
from nasgraph.draw.labels import FAMILIES, family_of, label_of
from nasgraph.draw.svg import MAX_BOXES
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, make_node
from nasgraph.ir.graph import Node
from tests.draw.networks import dense, mlp, residual, tangled, transformer, wide

SVG = "{http://www.w3.org/2000/svg}"


def parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def boxes(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [element for element in root.iter(f"{SVG}g") if "data-node" in element.attrib]


def texts(element: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in element.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    "graph", [mlp(), residual(3), residual(60), transformer(3), dense(6), wide(12), tangled(100)], ids=len
)
@pytest.mark.parametrize("fold", [True, False])
def test_pictures_are_well_formed_and_show_one_box_per_folded_group(
    graph: ComputationalGraph, fold: bool
) -> None:
    root = parse(draw_svg(graph, fold=fold))
    picture = picture_of(graph, fold=fold)
    assert [tuple(map(int, box.attrib["data-node"].split())) for box in boxes(root)] == [
        b.nodes for b in picture.boxes
    ]
    assert root.attrib["role"] == "img"
    assert f"{len(graph):,} nodes" in root.attrib["aria-label"]


def test_a_box_names_operators_shape_and_parameters() -> None:
    graph = GraphBuilder()
    x = graph("conv2d", graph("input", shape=(8, 9, 9)), out_channels=8, kernel_size=3, stride=2, groups=8)
    root = parse(draw_svg(graph.finish(graph("relu", graph("batch_norm", x)))))
    assert texts(boxes(root)[1]) == ["conv 3x3 / 2 depthwise", "batch norm", "relu", "8x4x4 · 88 params"]
    title = boxes(root)[1].find(f"{SVG}title")
    assert title is not None
    assert "kernel_size=(3, 3)" in (title.text or "")


def test_the_legend_has_the_families_that_are_drawn_and_no_others() -> None:
    shown = texts(parse(draw_svg(mlp())))
    assert FAMILIES["linear"] in shown
    assert FAMILIES["conv"] not in shown


def test_repeated_blocks_carry_a_frame_and_the_picture_says_so() -> None:
    root = parse(draw_svg(transformer(12)))
    frames = [rect.attrib["data-repeat"] for rect in root.iter(f"{SVG}rect") if "data-repeat" in rect.attrib]
    assert frames == ["12"]
    assert "x 12" in texts(root)
    assert any("drawn once" in text for text in texts(root))


@pytest.mark.parametrize(
    "title", ['<script>alert("&")</script>', "]]>", "a'b\"c", "\x00\x1f\ud800 \uffff", "é漢😀"]
)
def test_titles_are_escaped(title: str) -> None:
    text = draw_svg(mlp(1), title=title)
    root = parse(text)
    assert root.find(f".//{SVG}script") is None
    if title.isprintable() and "\uffff" not in title:
        assert texts(root)[0] == title


def test_pictures_load_nothing_and_serve_light_and_dark() -> None:
    text = draw_svg(residual(2))
    assert "prefers-color-scheme:dark" in text
    assert text.count("http") == 1  # the namespace
    assert "url(" not in text
    assert "@import" not in text


def test_pictures_do_not_depend_on_hash_seeds() -> None:
    code = (
        "from tests.draw.networks import *; from nasgraph.draw import draw_svg; print(draw_svg(tangled(80)))"
    )
    pictures = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(pictures) == 1


@pytest.mark.timeout(60)  # each takes well below a second
@pytest.mark.parametrize(
    ("graph", "fold"),
    [
        (tangled(5000), True),
        (tangled(5000), False),
        (residual(700), True),
        (wide(3000), True),
        (dense(150), True),
    ],
    ids=["tangled", "tangled, unfolded", "deep", "wide", "dense"],
)
def test_large_graphs_are_drawn_in_groups_and_in_time(graph: ComputationalGraph, fold: bool) -> None:
    root = parse(draw_svg(graph, fold=fold))
    assert len(boxes(root)) <= MAX_BOXES
    assert any("are drawn" in text for text in texts(root))


def test_several_outputs_are_numbered() -> None:
    graph = GraphBuilder()
    x = graph("linear", graph("input", shape=(4,)), out_features=3)
    shown = texts(parse(draw_svg(graph.finish(x, graph("relu", x), x))))
    assert [text for text in shown if text.startswith("output ")] == ["output 1", "output 2", "output 3"]


def test_very_many_outputs_share_a_pill_and_long_titles_are_cut() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    shown = texts(
        parse(
            draw_svg(
                graph.finish(*[graph("linear", x, out_features=n) for n in range(1, 31)]), title="a" * 9999
            )
        )
    )
    assert "30 outputs" in shown
    assert shown[0] == "a" * 97 + "..."
    assert any("(30)" in text for text in shown)


def test_a_graph_that_returns_its_input_can_be_drawn() -> None:
    graph = GraphBuilder()
    assert len(boxes(parse(draw_svg(graph.finish(graph("input", shape=(3,))))))) == 1


@pytest.mark.parametrize("op", sorted(OPS))
def test_every_operator_has_a_family_and_a_label_without_underscores(op: str) -> None:
    assert family_of(op) in FAMILIES
    values: dict[str, object] = {
        "int": 1,
        "pair": 1,
        "triple": 1,
        "single": 1,
        "float": 1.0,
        "name": "a->a",
        "axes": (0,),
    }
    needed = {
        name: attr.options[0] if attr.options else values.get(attr.kind, (1, 1))
        for name, attr in OPS[op].attrs.items()
        if attr.default is None
    }
    node: Node = make_node(op, (), **needed)
    assert "_" not in label_of(node, ((4, 4, 4),))


@pytest.mark.parametrize(
    ("attrs", "text"),
    [
        ({"kernel_size": (1, 7), "padding": (0, 3)}, "conv 1x7"),
        ({"kernel_size": 3, "stride": 2}, "conv 3x3 / 2"),
        ({"kernel_size": 3, "stride": (2, 1)}, "conv 3x3 / 2x1"),
        ({"kernel_size": 3, "groups": 2}, "conv 3x3 groups 2"),
        ({"kernel_size": 3, "dilation": 2}, "conv 3x3 dilation 2"),
    ],
)
def test_convolutions_are_named_by_what_is_unusual(attrs: dict[str, object], text: str) -> None:
    assert label_of(make_node("conv2d", (0,), out_channels=8, **attrs), ((8, 9, 9),)) == text
