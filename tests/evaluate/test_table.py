"""Tables: what goes in comes out, and what strangers hand in is refused with a reason."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from nasgraph.errors import UnknownNameError
from nasgraph.evaluate.table import (
    Metric,
    Table,
    TableError,
    TableInfo,
    make_table,
    open_table,
    read_table,
    table_names,
    write_table,
)
from nasgraph.files import canonical_json
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from tests.modules.samples import sampled_graphs

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasbench201.npz"
ACCURACY = Metric(
    name="accuracy", higher_is_better=True, unit="fraction", split="test", protocol="12 epochs", licence="MIT"
)
LATENCY = Metric(name="latency_ms", higher_is_better=False, unit="ms", training_free=True)


def graphs_of_all_spaces() -> list[ComputationalGraph]:
    return [graph for space in ("convnet", "mlp", "vit", "nasbench201") for graph in sampled_graphs(space, 3)]


@pytest.fixture
def table() -> Table:
    graphs = graphs_of_all_spaces()
    count = len(graphs)
    columns: dict[str, np.ndarray] = {
        "accuracy": np.linspace(0.1, 0.9, count),
        "latency_ms": np.where(np.arange(count) % 3 == 0, np.nan, np.arange(count)).astype(np.float32),
    }
    info = TableInfo(
        name="mixed",
        metrics=(ACCURACY, LATENCY),
        description="A few of each.",
        licence="MIT",
        test_metric="accuracy",
    )
    return make_table(graphs, columns, info, keys=[f"row ✓ {i}" for i in range(count)])


@pytest.fixture
def path(table: Table, tmp_path: Path) -> Path:
    write_table(tmp_path / "mixed.safetensors", table)
    return tmp_path / "mixed.safetensors"


# ---- what goes in comes out


def test_a_table_comes_back_from_its_file_unchanged(table: Table, path: Path) -> None:
    back = read_table(path)
    assert back.info == table.info
    assert back.graphs() == graphs_of_all_spaces()
    assert [back.key(row) for row in range(len(back))] == [f"row ✓ {i}" for i in range(len(table))]
    for name in ("accuracy", "latency_ms"):
        assert back.column(name).dtype == table.column(name).dtype
        assert np.array_equal(back.column(name), table.column(name), equal_nan=True)
    back.verify()


def test_attributes_of_every_kind_come_back_with_their_types(tmp_path: Path) -> None:
    g = GraphBuilder()
    x = g("linear", g("flatten", g("input", shape=(1, 8, 8))), out_features=16, bias=False)
    x = g(
        "pad",
        g("opaque", g("dropout", x, p=0.1), name="a b.c", shape=(4, 4), dtype="float"),
        amounts=(1, 1, 0, 0),
    )
    graph = g.finish(x, g("relu", x))
    info = TableInfo(name="one", metrics=(ACCURACY,))
    write_table(tmp_path / "one.safetensors", make_table([graph], {"accuracy": np.array([0.5])}, info))
    back = read_table(tmp_path / "one.safetensors").graph(0)
    assert back == graph
    assert [[type(v) for _, v in node.attrs] for node in back.nodes] == [
        [type(v) for _, v in node.attrs] for node in graph.nodes
    ]


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=20)
)
def test_every_finite_number_is_kept_and_missing_ones_stay_missing(values: list[float | None]) -> None:
    g = GraphBuilder()
    graph = g.finish(g("relu", g("input", shape=(3,))))
    numbers = np.array([np.nan if value is None else value for value in values])
    made = make_table([graph] * len(values), {"accuracy": numbers}, TableInfo(name="t", metrics=(ACCURACY,)))
    assert made.num_graphs == 1
    assert [
        None if np.isnan(v) else v for v in (made.value(row, "accuracy") for row in range(len(made)))
    ] == values


def test_equal_tables_give_equal_bytes(table: Table, path: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "again.safetensors", table)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_file_is_plain_safetensors(path: Path, table: Table) -> None:
    tensors = load_file(path)
    assert np.array_equal(tensors["metric.accuracy"], table.column("accuracy"))
    assert all(array.dtype.kind in "uf" for array in tensors.values())


def test_a_key_finds_its_row(table: Table) -> None:
    assert table.row_of("row ✓ 7") == 7
    assert table.value("row ✓ 7", "accuracy") == table.column("accuracy")[7]
    with pytest.raises(TableError, match="no row with the key 'row 99'"):
        table.row_of("row 99")


def test_a_fingerprint_finds_all_rows_with_an_isomorphic_graph() -> None:
    def graph(*, first: str, second: str) -> ComputationalGraph:
        g = GraphBuilder()
        x = g("input", shape=(3,))
        one, two = g(first, x), g(second, x)
        return g.finish(g("add", one, two))

    info = TableInfo(name="t", metrics=(ACCURACY,))
    rows = [
        graph(first="relu", second="tanh"),
        graph(first="relu", second="relu"),
        graph(first="tanh", second="relu"),
    ]
    made = make_table(rows, {"accuracy": np.zeros(3)}, info)
    assert made.rows_of_fingerprint(rows[0].fingerprint) == (0, 2)
    assert made.rows_of_fingerprint(rows[1].fingerprint) == (1,)
    assert (
        made.rows_of_fingerprint("0" * 16)
        == made.rows_of_fingerprint("none")
        == made.rows_of_fingerprint("f" * 40)
        == ()
    )
    assert made.fingerprint(2) == rows[0].fingerprint


def test_columns_cannot_be_written_to_by_accident(path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        read_table(path).column("accuracy")[0] = 1.0


def test_an_unknown_metric_is_named_with_close_ones(table: Table) -> None:
    with pytest.raises(UnknownNameError, match="Close: 'accuracy'"):
        table.column("acuracy")
    with pytest.raises(UnknownNameError, match="Close: 'accuracy'"):
        table.value(0, "acuracy")


def test_rows_outside_are_refused(table: Table) -> None:
    for row in (-1, len(table)):
        with pytest.raises(TableError, match="has rows 0 to 11"):
            table.graph(row)


# ---- what cannot be a table


def test_lengths_keys_and_numbers_are_checked_when_a_table_is_made() -> None:
    g = GraphBuilder()
    graph = g.finish(g("relu", g("input", shape=(3,))))
    info = TableInfo(name="t", metrics=(ACCURACY,))
    with pytest.raises(TableError, match="as 2 float32 or float64"):
        make_table([graph] * 2, {"accuracy": np.zeros(3)}, info)
    with pytest.raises(TableError, match="Two rows have the key 'a'"):
        make_table([graph] * 2, {"accuracy": np.zeros(2)}, info, keys=["a", "a"])
    with pytest.raises(TableError, match="'accuracy' of row 1: infinite"):
        make_table([graph] * 2, {"accuracy": np.array([0.0, np.inf])}, info)
    with pytest.raises(TableError, match="has no rows"):
        make_table([], {"accuracy": np.zeros(0)}, info)
    with pytest.raises(TableError, match="one column per metric"):
        make_table([graph], {"loss": np.zeros(1)}, info)
    with pytest.raises(TableError, match="two metrics named 'accuracy'"):
        TableInfo(name="t", metrics=(ACCURACY, ACCURACY))
    with pytest.raises(TableError, match="'test_metric' but has no such metric"):
        TableInfo(name="t", metrics=(ACCURACY,), test_metric="loss")


# ---- files of strangers

Header = dict[str, dict[str, object]]


def rewritten(
    path: Path, change: Callable[[Header, dict[str, object]], None], *, tail: bytes | None = None
) -> Path:
    """The file with another header; `change` gets the header and what the table says of itself."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["table"])
    change(header, facts)
    header["__metadata__"]["table"] = canonical_json(facts)
    text = json.dumps(header).encode()
    other = path.with_name("changed.safetensors")
    other.write_bytes(struct.pack("<Q", len(text)) + text + (content[8 + length :] if tail is None else tail))
    return other


def test_a_cut_off_file_is_refused_wherever_it_is_cut(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for end in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:end])
        with pytest.raises(TableError, match=r"cut\.safetensors"):
            read_table(cut)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(place: float, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    g = GraphBuilder()
    graph = g.finish(g("relu", g("input", shape=(3,))))
    folder = tmp_path_factory.mktemp("bits")
    info = TableInfo(name="t", metrics=(ACCURACY,))
    write_table(
        folder / "t.safetensors", make_table([graph], {"accuracy": np.array([0.5])}, info, keys=["k"])
    )
    content = bytearray((folder / "t.safetensors").read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    content[int(place * len(content))] ^= 1 << bit
    (folder / "t.safetensors").write_bytes(content)
    try:
        table = read_table(folder / "t.safetensors")
    except TableError:
        return
    # Only the layout may have changed, such as a blank of the header: what the table says is the same.
    assert int(place * len(content)) < 8 + length
    assert table.value("k", "accuracy") == 0.5
    assert table.graph(0) == graph


def test_a_header_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.safetensors"
    bomb.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(TableError, match="a header of 1,152,921,504,606,846,976 bytes in 10"):
        read_table(bomb)


def test_a_header_that_is_nested_deeply_or_no_object_is_refused(tmp_path: Path) -> None:
    for text in (b"[" * 100_000, b"[]", b"{", b"\xff\xfe", b'{"__metadata__": {"table": "[]"}}', b"{}"):
        other = tmp_path / "other.safetensors"
        other.write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(TableError, match=r"other\.safetensors"):
            read_table(other)


def drop_metric(header: Header, facts: dict[str, object]) -> None:
    del header["metric.accuracy"]


def add_array(header: Header, facts: dict[str, object]) -> None:
    header["extra"] = dict(header["metric.accuracy"])


def offset_out_of_range(header: Header, facts: dict[str, object]) -> None:
    header["metric.accuracy"]["data_offsets"] = [10**9, 10**9 + 96]


def shape_too_large(header: Header, facts: dict[str, object]) -> None:
    header["metric.accuracy"]["shape"] = [2**62]


def negative_shape(header: Header, facts: dict[str, object]) -> None:
    header["metric.accuracy"]["shape"] = [-12]


def two_axes(header: Header, facts: dict[str, object]) -> None:
    header["metric.accuracy"]["shape"] = [3, 4]


def wrong_dtype(header: Header, facts: dict[str, object]) -> None:
    header["metric.accuracy"]["dtype"] = "BF16"


def integers_as_metric(header: Header, facts: dict[str, object]) -> None:
    header["metric.accuracy"]["dtype"] = "U64"


def floats_as_kinds(header: Header, facts: dict[str, object]) -> None:
    header["graph.fingerprint"]["dtype"] = "F64"


def unknown_op(header: Header, facts: dict[str, object]) -> None:
    facts["kinds"] = [["os.system", {"command": "true"}]]


def absurd_attribute(header: Header, facts: dict[str, object]) -> None:
    facts["kinds"] = [["linear", {"out_features": 10**12}]]


def too_few_kinds(header: Header, facts: dict[str, object]) -> None:
    facts["kinds"] = [["relu", {}]]


def kinds_of_another_form(header: Header, facts: dict[str, object]) -> None:
    facts["kinds"] = {"relu": {}}


def another_schema(header: Header, facts: dict[str, object]) -> None:
    facts["schema"] = "nasgraph/table/2"


def unknown_field(header: Header, facts: dict[str, object]) -> None:
    facts["code"] = "print()"


def text_as_direction(header: Header, facts: dict[str, object]) -> None:
    facts["metrics"] = [{"name": "accuracy", "higher_is_better": "yes"}]


def number_as_name(header: Header, facts: dict[str, object]) -> None:
    facts["name"] = 3


def no_checksum(header: Header, facts: dict[str, object]) -> None:
    del facts["sha256"]


def another_description(header: Header, facts: dict[str, object]) -> None:
    facts["description"] = "Something else."


CHANGES: dict[Callable[[Header, dict[str, object]], None], str] = {
    drop_metric: "lacks the array 'metric.accuracy'",
    add_array: "Unknown array 'extra'",
    offset_out_of_range: "cut off or damaged",
    shape_too_large: "cut off or damaged",
    negative_shape: "as whole numbers",
    two_axes: "cut off or damaged",
    wrong_dtype: "got 'BF16'",
    integers_as_metric: "float32 or float64",
    floats_as_kinds: "unsigned integers",
    unknown_op: "No operator named 'os.system'",
    absurd_attribute: "'out_features' of 'linear'",
    too_few_kinds: "but there are 1",
    kinds_of_another_form: "'kinds'",
    another_schema: "Expected a table with schema 'nasgraph/table/1'",
    unknown_field: "Unknown field 'code'",
    text_as_direction: "to be true or false",
    number_as_name: "'name' of the table",
    no_checksum: "'sha256'",
    another_description: "its checksum does not fit",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_header_is_refused(path: Path, change: Callable[[Header, dict[str, object]], None]) -> None:
    with pytest.raises(TableError, match=CHANGES[change]):
        read_table(rewritten(path, change))


def test_a_graph_that_breaks_a_rule_is_refused_when_it_is_taken_out(table: Table) -> None:
    packed = table.packed
    forward = packed.inputs.copy()
    forward[0] = 200
    broken = type(packed)(
        **{**{name: getattr(packed, name) for name in packed.__dataclass_fields__}, "inputs": forward}
    )
    damaged = Table(info=table.info, columns=table.columns, packed=broken)
    with pytest.raises(TableError, match="Graph 0 of the table is no valid graph"):
        damaged.graph(0)
    with pytest.raises(TableError, match="Graph 0"):
        damaged.verify()


def test_a_wrong_fingerprint_is_found_by_verify(table: Table) -> None:
    packed = table.packed
    other = packed.fingerprint + np.uint64(1)
    broken = type(packed)(
        **{**{name: getattr(packed, name) for name in packed.__dataclass_fields__}, "fingerprint": other}
    )
    with pytest.raises(TableError, match="fingerprint of graph 0"):
        Table(info=table.info, columns=table.columns, packed=broken).verify()


def test_offsets_that_fall_or_do_not_fit_are_refused(table: Table) -> None:
    packed = table.packed
    fields = {name: getattr(packed, name) for name in packed.__dataclass_fields__}
    falling = packed.node_offset.copy()
    falling[1], falling[2] = falling[2], falling[1]
    for change, reason in (
        ({"node_offset": falling}, "to rise"),
        ({"node_offset": packed.node_offset[:-1]}, "Expected 'node_offset' to hold"),
        ({"row_graph": packed.row_graph + 200}, "'row_graph' names number"),
        ({"num_inputs": packed.num_inputs[:-1]}, "one 'num_inputs' per 'node_kind'"),
    ):
        with pytest.raises(TableError, match=reason):
            type(packed)(**{**fields, **change})


# ---- opening


def test_a_name_that_is_neither_file_nor_table_offers_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Close: 'nasbench201'"):
        open_table("nasbench21")
    (tmp_path / "table.pkl").write_bytes(b"")
    with pytest.raises(TableError, match=r"table\.pkl"):
        open_table(tmp_path / "table.pkl")
    with pytest.raises(TableError, match="Cannot read the table"):
        open_table(tmp_path / "missing.safetensors")


# ---- the table that is shipped


@pytest.fixture(scope="module")
def shipped() -> Table:
    assert "nasbench201" in table_names()
    return open_table("nasbench201")


def test_the_shipped_table_holds_the_published_optima(shipped: Table) -> None:
    """Rows and accuracies as listed by the benchmark's authors and others: index and value of each best cell."""
    assert len(shipped) == 15_625
    for metric, row, best in (
        ("cifar10_test_200ep", 6111, 94.373),
        ("cifar100_test_200ep", 9930, 73.513),
        ("imagenet16_120_test_200ep", 857, 47.311),
    ):
        column = shipped.column(metric)
        assert int(column.argmax()) == row
        assert column.max() == pytest.approx(best, abs=1e-3)
    assert shipped.column("cifar10_valid_200ep").max() == pytest.approx(91.607, abs=1e-3)


def test_the_shipped_table_knows_the_cells_without_dead_operations(shipped: Table) -> None:
    alive = shipped.column("no_unreachable_ops") == 1
    assert alive.sum() == 9_445
    assert len(np.unique(shipped.packed.fingerprint)) == 6_334
    assert not np.isnan(shipped.column("proxy_synflow")[alive]).any()


def test_keys_of_the_shipped_table_are_architectures_of_the_space(shipped: Table) -> None:
    """A cell has the parameters that one more cell adds to the whole network; the network has those that are published."""
    from nasgraph.spaces import replay
    from search_spaces.nasbench201 import NASBench201, architecture_from_string

    alive = np.flatnonzero(shipped.column("no_unreachable_ops") == 1)
    one, two = (
        NASBench201(input_shape=(3, 32, 32), num_classes=10, channels=16, num_cells=n) for n in (1, 2)
    )
    published = NASBench201(input_shape=(3, 32, 32), num_classes=10)
    for row in alive[:: len(alive) // 12].tolist():
        architecture = architecture_from_string(shipped.key(row))
        assert shipped.row_of(shipped.key(row)) == row
        network = cost_of(replay(published, architecture).graph).num_parameters
        assert network / 1e6 == pytest.approx(shipped.value(row, "params_M"), abs=1e-6)
        few, many = (replay(space, architecture).graph.parameters for space in (one, two))
        added = sorted(spec.shape for spec in many.values())
        for spec in few.values():
            added.remove(spec.shape)
        first = [shape for shape in added if shape[0] == 16]
        assert sorted(spec.shape for spec in shipped.graph(row).parameters.values()) == first


def test_every_metric_of_the_shipped_table_states_source_and_licence(shipped: Table) -> None:
    assert shipped.info.licence
    assert shipped.info.source
    for metric in shipped.info.metrics:
        assert metric.source, metric.name
        assert metric.licence, metric.name
        assert not np.isnan(shipped.column(metric.name)).all()


def test_the_shipped_file_is_small_and_whole(shipped: Table) -> None:
    from search_spaces.tables import NASBENCH201

    assert NASBENCH201.stat().st_size < 4_000_000
    for row in range(0, len(shipped), 500):
        assert shipped.graph(row).fingerprint == shipped.fingerprint(row)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared tables are not beside the checkout")
def test_the_shipped_numbers_are_those_of_the_collected_tables(shipped: Table) -> None:
    with np.load(SHARED, allow_pickle=False) as source:
        assert [shipped.key(row) for row in range(0, 15_625, 97)] == source["arch_str"][::97].tolist()
        for name in (
            "cifar10_valid_200ep",
            "cifar100_test_200ep",
            "cifar10_test_12ep",
            "imagenet16_120_valid_200ep",
            "params_M",
        ):
            assert np.array_equal(shipped.column(name), source[name].astype(np.float32), equal_nan=True), name
        assert np.allclose(shipped.column("cifar10_test_200ep"), source["cifar10_test_200ep"], atol=1e-5)
