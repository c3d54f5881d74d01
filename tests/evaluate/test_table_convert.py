"""Tables from CSV and JSON Lines: every form of a graph, and every mistake with its line."""

import csv
import gzip
import json
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.errors import UnknownNameError
from nasgraph.evaluate.table import TableError, convert, graph_of_labelled_dag, open_table
from nasgraph.files import Json
from nasgraph.ir import check_graph, graph_to_json
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample
from tests.modules.samples import sampled_graphs

DAG: dict[str, Json] = {"nodes": ["input", "conv3x3", "pool"], "edges": [[0, 1], [1, 2], [0, 2]]}


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chain(*labels: str) -> dict[str, Json]:
    return {"nodes": ["input", *labels], "edges": [[i, i + 1] for i in range(len(labels))]}


# ---- what is read


def test_csv_and_json_lines_packed_or_not_give_the_same_table(tmp_path: Path) -> None:
    graphs = list(sampled_graphs("convnet", 4))
    rows: list[dict[str, object]] = [
        {"key": f"k{i}", "graph": graph_to_json(graph), "accuracy": 0.1 * i, "note": "fine"}
        for i, graph in enumerate(graphs)
    ]
    plain = write_csv(tmp_path / "t.csv", rows)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    nested = [
        {"key": row["key"], "graph": json.loads(str(row["graph"])), "metrics": {"accuracy": row["accuracy"]}}
        for row in rows
    ]
    lines = write_lines(tmp_path / "t.jsonl", list(nested))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes()))
    for path in (plain, lines, tmp_path / "t.csv.gz", tmp_path / "t.jsonl.gz"):
        table = open_table(path)
        assert table.info.name == "t"
        assert table.graphs() == graphs
        assert [table.key(row) for row in range(4)] == ["k0", "k1", "k2", "k3"]
        assert table.column("accuracy").tolist() == [0.1 * i for i in range(4)]
        assert [metric.name for metric in table.info.metrics] == ["accuracy"]
    assert convert(plain).ignored == ("note",)


def test_a_direction_that_is_not_stated_stays_open(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv", [{"graph": json.dumps(DAG), "accuracy": i, "latency": -i} for i in range(3)]
    )
    assert [metric.higher_is_better for metric in convert(path).table.info.metrics] == [None, None]
    stated = convert(path, directions={"latency": False}).table
    assert [(m.name, m.higher_is_better) for m in stated.info.metrics] == [("latency", False)]


@pytest.mark.parametrize("space", ["nasbench201", "convnet", "vit"])
def test_architectures_of_a_space_become_its_graphs(space: str, tmp_path: Path) -> None:
    loaded = load_space(space, input_shape=(3, 32, 32), num_classes=10)
    found = [sample(loaded, generator(seed, "test")) for seed in range(3)]
    forms: list[object] = [
        json.loads(found[0].architecture.to_json()),
        found[1].architecture.to_json(),
        dict(found[2].architecture.choices),
    ]
    path = write_lines(
        tmp_path / "t.jsonl", [{"architecture": form, "accuracy": i} for i, form in enumerate(forms)]
    )
    assert convert(path, space=loaded).table.graphs() == [candidate.graph for candidate in found]


def test_strings_of_nas_bench_201_are_architectures_and_keys(tmp_path: Path) -> None:
    shipped = open_table("nasbench201")
    texts = [shipped.key(row) for row in (0, 100, 6111)]
    path = write_csv(
        tmp_path / "t.csv", [{"architecture": text, "accuracy": i} for i, text in enumerate(texts)]
    )
    space = load_space("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    table = convert(path, space=space).table
    assert [table.row_of(text) for text in texts] == [0, 1, 2]
    with pytest.raises(TableError, match="--space"):
        convert(path)


def test_missing_values_are_missing_and_truth_values_are_numbers(tmp_path: Path) -> None:
    cells = ["", "nan", "NULL", "0.5", "n/a", "1e-3"]
    path = write_csv(
        tmp_path / "t.csv", [{"graph": json.dumps(DAG), "a": cell, "b": "True"} for cell in cells]
    )
    table = convert(path).table
    assert np.array_equal(table.column("a"), [np.nan, np.nan, np.nan, 0.5, np.nan, 1e-3], equal_nan=True)
    assert table.column("b").tolist() == [1.0] * 6
    lines = tmp_path / "t.jsonl"
    lines.write_text(
        '{"graph": %s, "a": NaN}\n{"graph": %s, "a": 2}\n{"graph": %s}\n' % ((json.dumps(DAG),) * 3)
    )
    assert np.array_equal(convert(lines).table.column("a"), [np.nan, 2.0, np.nan], equal_nan=True)
    assert "'a' is missing in 2 of 3 rows" in convert(lines).warnings()[-2:]


def test_repeated_graphs_are_kept_and_counted(tmp_path: Path) -> None:
    other: dict[str, Json] = {"nodes": ["pool", "conv3x3", "input"], "edges": [[2, 0], [1, 0], [2, 1]]}
    rows = [(DAG, 0.5), (chain("conv3x3"), 0.4), (other, 0.6), (chain("conv3x3"), 0.4)]
    found = convert(write_csv(tmp_path / "t.csv", [{"graph": json.dumps(dag), "a": a} for dag, a in rows]))
    assert len(found.table) == 4
    assert (found.num_distinct, found.num_repeated, found.num_conflicting) == (2, 2, 1)
    assert (
        "2 rows have the graph of an earlier row; 1 graphs stand with different numbers"
        in found.warnings()[0]
    )


def test_constant_metrics_are_noticed(tmp_path: Path) -> None:
    found = convert(write_csv(tmp_path / "t.csv", [{"graph": json.dumps(DAG), "a": 0.5}] * 3))
    assert any("'a' is constant: 0.5" in warning for warning in found.warnings())


def test_numbers_that_single_precision_cannot_hold_stay_double(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 123456789.0]
    table = convert(
        write_csv(tmp_path / "t.csv", [{"graph": json.dumps(DAG), "a": a, "b": 0.5} for a in values])
    ).table
    assert table.column("a").tolist() == values
    assert [table.column(name).dtype.name for name in "ab"] == ["float64", "float32"]


def test_reading_a_csv_leaves_the_limit_of_the_csv_module_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = chain(*["conv3x3"] * 20_000)
    table = convert(write_csv(tmp_path / "t.csv", [{"graph": json.dumps(long), "a": 1}])).table
    assert len(json.dumps(long)) > before
    assert len(table.graph(0)) == 20_001
    assert csv.field_size_limit() == before


# ---- labelled DAGs


@st.composite
def dags(draw: st.DrawFn) -> dict[str, Json]:
    count = draw(st.integers(2, 7))
    labels: list[Json] = [
        "input",
        *(draw(st.sampled_from(["conv", "pool", "a/b", "skip"])) for _ in range(count - 1)),
    ]
    pairs = [(i, j) for j in range(count) for i in range(j)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True))
    edges: list[Json] = [[i, j] for i, j in chosen if labels[j] != "input"]
    return {"nodes": labels, "edges": edges}


@given(dag=dags(), data=st.data())
def test_numbering_and_order_of_edges_do_not_matter(dag: dict[str, Json], data: st.DataObject) -> None:
    nodes, edges = dag["nodes"], dag["edges"]
    assert isinstance(nodes, list)
    assert isinstance(edges, list)
    place = data.draw(st.permutations(range(len(nodes))))
    moved: list[Json] = [nodes[place.index(i)] for i in range(len(nodes))]
    renamed: list[Json] = [[place[edge[0]], place[edge[1]]] for edge in data.draw(st.permutations(edges))]  # type: ignore[index]  # each is a pair
    graph = graph_of_labelled_dag(dag)
    check_graph(graph)
    assert graph_of_labelled_dag({"nodes": moved, "edges": renamed}) == graph


@given(first=dags(), second=dags())
def test_graphs_are_equal_exactly_if_the_dags_are_isomorphic(
    first: dict[str, Json], second: dict[str, Json]
) -> None:
    """networkx decides. An input that nothing reads stays; so nothing of a DAG is lost."""

    def as_networkx(dag: dict[str, Json]) -> networkx.DiGraph:
        result = networkx.DiGraph()
        assert isinstance(dag["nodes"], list)
        assert isinstance(dag["edges"], list)
        for node, label in enumerate(dag["nodes"]):
            result.add_node(node, label=label)
        result.add_edges_from(dag["edges"])
        return result

    same = networkx.is_isomorphic(
        as_networkx(first), as_networkx(second), node_match=lambda a, b: a["label"] == b["label"]
    )
    assert (graph_of_labelled_dag(first) == graph_of_labelled_dag(second)) == same


def test_labels_become_names_that_tell_them_apart() -> None:
    names = [
        graph_of_labelled_dag(chain(label)).nodes[1].attr("name")
        for label in ("conv3x3", "a/b", "a[2f]b", "a_b", "é", "(1, 2)")
    ]
    assert names[:2] == ["conv3x3", "a[2f]b"]
    assert len(set(names)) == len(names)


def test_a_dag_without_input_gets_one_that_its_sources_read() -> None:
    graph = graph_of_labelled_dag({"nodes": ["a", "b", "c"], "edges": [[0, 2], [1, 2]]})
    assert [node.op for node in graph.nodes] == ["input", "opaque", "opaque", "opaque"]
    assert [node.inputs for node in graph.nodes] == [(), (0,), (0,), (1, 2)]


@pytest.mark.parametrize(
    ("dag", "reason"),
    [
        ({"nodes": ["input", "a"], "edges": [[0, 2]]}, "between nodes 0 to 1"),
        ({"nodes": ["input", "a"], "edges": [[0, -1]]}, "between nodes 0 to 1"),
        ({"nodes": ["input", "a"], "edges": [[0, True]]}, "between nodes 0 to 1"),
        ({"nodes": ["input", "a"], "edges": [[0, 1], [0, 1]]}, "is there twice"),
        ({"nodes": ["input", "a"], "edges": [[1, 1]]}, "is a loop"),
        ({"nodes": ["input", "a", "b"], "edges": [[0, 1], [1, 2], [2, 1]]}, "has a cycle"),
        ({"nodes": ["input", "a"], "edges": [[1, 0]]}, "labelled 'input' but reads node 1"),
        ({"nodes": ["input", 3], "edges": []}, "label of node 1 to be text"),
        ({"nodes": ["input", " "], "edges": []}, "label of node 1 to be text"),
        ({"nodes": [], "edges": []}, "1 to 100,000 nodes"),
        ({"nodes": ["input", "a" * 200], "edges": []}, "at most 120 characters"),
        ({"nodes": ["input"], "edges": [[0]]}, "as a pair of nodes"),
        ({"nodes": ["input"], "edges": [], "weights": []}, "nothing else"),
    ],
)
def test_a_dag_that_is_none_is_refused(dag: dict[str, Json], reason: str) -> None:
    with pytest.raises(TableError, match=reason):
        graph_of_labelled_dag(dag)


# ---- mistakes


GOOD = json.dumps(DAG).replace('"', '""')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at least one row"),
        ("graph,a\n", "at least one row"),
        ("a,b\n1,2\n", "Expected a column 'graph'"),
        ("graph,a,a\nx,1,2\n", "name the columns, all differently"),
        (f'graph,a\n"{GOOD}",0.5\n"{GOOD}",great\n', "'a' in line 3 .*got 'great'"),
        (f'graph,a\n"{GOOD}",0.5\n"{GOOD}",inf\n', "'a' in line 3 .*got 'inf'"),
        (f'graph,a\n"{GOOD}",0.5\n"{GOOD}",1e999\n', "'a' in line 3 .*got '1e999'"),
        (f'graph,a\n"{GOOD}",0.5,1\n', "Line 2 .*: expected 2 cells .got 3."),
        (f'graph,a\n"{GOOD}",0.5\n,0.5\n', "Line 3 .*: the cell 'graph' is empty"),
        (f'graph,a\n"{GOOD}",0.5\nx,0.5\n', "Line 3 .*: Not valid JSON"),
        (f'graph,a\n"{GOOD}",0.5\n{{}},0.5\n', "Line 3 .*: Expected a graph with schema"),
        (f'graph,a\n"{GOOD}",text\n', "no column of numbers"),
        (f'graph,a\n"{GOOD},0.5\n', "is no CSV"),
        (f'key,graph,a\nk,"{GOOD}",1\nk,"{GOOD}",2\n', "Two rows have the key 'k'"),
    ],
)
def test_a_mistake_in_a_csv_is_named_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=reason):
        open_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["[]"], "Expected an object in line 1"),
        (['{"graph": {}, "a": 1}'], "Line 1 .*: Expected a graph with schema"),
        (['{"a": 1'], "Not valid JSON in line 1"),
        (['{"graph": 1, "metrics": 3}'], "'metrics' as an object"),
        (['{"graph": 1, "a": 1, "metrics": {"a": 2}}'], "'metrics' as an object with names of its own"),
        ([json.dumps({"graph": DAG, "a": 1}), json.dumps({"graph": DAG, "a": [1]})], "'a' in line 2"),
        (
            [
                json.dumps({"graph": DAG, "a": 1}),
                json.dumps({"graph": DAG, "a": 1})[:-1] + ', "b": Infinity}',
            ],
            "line 2",
        ),
        ([json.dumps({"graph": DAG, "key": [1], "a": 1})], "Line 1: expected a key as text"),
        (["[" * 100_000], "nested too deeply"),
    ],
)
def test_a_mistake_in_json_lines_is_named_with_its_line(
    lines: list[str], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(TableError, match=reason):
        open_table(tmp_path / "t.jsonl")


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"graph,a\n\xff\xfe,1\n")
    with pytest.raises(TableError, match="UTF-8"):
        open_table(tmp_path / "t.csv")
    whole = gzip.compress(b"graph,a\n" * 1000)
    for content in (whole[: len(whole) // 2], b"no gzip"):
        (tmp_path / "t.csv.gz").write_bytes(content)
        with pytest.raises(TableError, match="Cannot read"):
            open_table(tmp_path / "t.csv.gz")


def test_a_metric_that_is_not_there_is_refused_with_the_columns(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"graph": json.dumps(DAG), "accuracy": 1}])
    with pytest.raises(TableError, match=r"no metric 'acc' .*Columns: accuracy"):
        convert(path, directions={"acc": True})
    with pytest.raises(UnknownNameError):
        convert(path).table.column("acc")
