"""The index finds what a loop over all pairs finds, and says what it cannot do."""

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasgraph.errors import NasGraphError
from nasgraph.retrieve import index as module
from nasgraph.retrieve.index import EmbeddingIndex

Floats = npt.NDArray[np.float32]


@pytest.fixture(params=["exact", "hnsw"])
def kind(request: pytest.FixtureRequest) -> module.Kind:
    if request.param == "hnsw":
        pytest.importorskip("faiss", reason="needs nasgraph[ann]")
        return "hnsw"
    return "exact"


def clustered(number: int, *, seed: int, dimensions: int = 32) -> Floats:
    centres = np.random.default_rng(7).standard_normal((20, dimensions))
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(20, size=number)] + 0.3 * rng.standard_normal((number, dimensions))
    return points.astype(np.float32)


def naive(vectors: Floats, query: Floats, k: int) -> list[tuple[float, int]]:
    """Cosines one by one in double precision, sorted: the oracle."""

    def cosine(row: int) -> float:
        a, b = vectors[row].astype(float), query.astype(float)
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / size if size else 0.0

    return sorted((-cosine(row), row) for row in range(len(vectors)))[:k]


@settings(deadline=None)
@given(
    number=st.integers(1, 60),
    dimensions=st.integers(1, 9),
    k=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_exact_search_is_the_loop_over_all_pairs(number: int, dimensions: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((number, dimensions)) * 10.0 ** rng.integers(-20, 15)).astype(np.float32)
    queries = rng.standard_normal((4, dimensions)).astype(np.float32)
    scores, rows = EmbeddingIndex.of(vectors).search(queries, k)
    for query, some_scores, some_rows in zip(queries, scores, rows, strict=True):
        expected = naive(vectors, query, k)
        np.testing.assert_allclose(some_scores, [-score for score, _ in expected], atol=2e-7)
        assert len(set(some_rows.tolist())) == min(k, number)
        for row, score in zip(some_rows, some_scores, strict=True):  # the rows are those of the scores
            assert abs(naive(vectors[row : row + 1], query, 1)[0][0] + score) < 2e-7


def test_equal_scores_come_in_order_of_row(kind: module.Kind) -> None:
    """Also where more are equal than asked for, and in whatever place a matrix product put them."""
    once = clustered(5, seed=0)
    vectors = np.tile(once, (41, 1))
    for queries in (once, once[:1]):
        scores, rows = EmbeddingIndex.of(vectors, kind=kind).search(queries, 41)
        for query in range(len(queries)):
            assert len(set(scores[query].tolist())) == 1
            if kind == "exact":
                assert rows[query].tolist() == list(range(query, len(vectors), 5))
            assert (np.diff(rows[query]) > 0).all()


def test_the_length_of_a_vector_does_not_matter(kind: module.Kind) -> None:
    vectors, queries = clustered(300, seed=0), clustered(5, seed=1)
    scales = 10.0 ** np.random.default_rng(0).integers(-3, 4, size=(300, 1))
    first = EmbeddingIndex.of(vectors, kind=kind).search(queries, 5)
    second = EmbeddingIndex.of((vectors * scales).astype(np.float32), kind=kind).search(1000 * queries, 5)
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_allclose(first[0], second[0], atol=2e-7)


def test_a_vector_finds_itself_first_with_score_one(kind: module.Kind) -> None:
    vectors = clustered(500, seed=0)
    scores, rows = EmbeddingIndex.of(vectors, kind=kind).search(vectors, 3)
    np.testing.assert_array_equal(rows[:, 0], np.arange(500))
    np.testing.assert_allclose(scores[:, 0], 1, atol=2e-7)
    assert scores.max() <= 1
    assert (np.diff(scores, axis=1) <= 0).all()


def test_hnsw_finds_99_of_100_and_scores_them_the_same() -> None:
    pytest.importorskip("faiss", reason="needs nasgraph[ann]")
    vectors, queries = clustered(4000, seed=0), clustered(200, seed=1)
    true_scores, true_rows = EmbeddingIndex.of(vectors, kind="exact").search(queries, 10)
    scores, rows = EmbeddingIndex.of(vectors, kind="hnsw").search(queries, 10)
    both = rows[:, :, None] == true_rows[:, None, :]
    assert both.any(axis=2).mean() >= 0.99
    np.testing.assert_array_equal(
        np.broadcast_to(scores[:, :, None], both.shape)[both],
        np.broadcast_to(true_scores[:, None, :], both.shape)[both],
    )


def test_the_same_calls_give_the_same_results(kind: module.Kind) -> None:
    vectors, queries = clustered(2000, seed=0), clustered(50, seed=1)
    first = EmbeddingIndex.of(vectors, kind=kind).search(queries, 20)
    second = EmbeddingIndex.of(vectors, kind=kind).search(queries, 20)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_query_is_answered_alike_alone_and_in_a_batch(
    kind: module.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks bound the memory and leave no trace in the results."""
    vectors, queries = clustered(1500, seed=0), clustered(23, seed=1)
    index = EmbeddingIndex.of(vectors, kind=kind)
    scores, rows = index.search(queries, 7)
    alone = [index.search(query[None], 7) for query in queries]
    monkeypatch.setattr(module, "_BLOCK", 3200)
    blocked = EmbeddingIndex.of(vectors, kind=kind).search(queries, 7)
    for others in (blocked, tuple(np.concatenate(parts) for parts in zip(*alone, strict=True))):
        np.testing.assert_array_equal(scores, others[0])
        np.testing.assert_array_equal(rows, others[1])


def test_added_embeddings_are_found_and_follow_in_row(kind: module.Kind) -> None:
    vectors, queries = clustered(900, seed=0), clustered(40, seed=1)
    index = EmbeddingIndex.of(vectors[:0], kind=kind)
    assert (len(index), index.num_dimensions, index.kind) == (0, 32, kind)
    for start in range(0, 900, 300):
        index.add(vectors[start : start + 300])
    assert len(index) == 900
    found = index.search(queries, 5)
    expected = EmbeddingIndex.of(vectors, kind="exact").search(queries, 5)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


def test_what_is_searched_and_given_is_left_alone(kind: module.Kind) -> None:
    vectors, queries = clustered(50, seed=0), clustered(5, seed=1)
    copies = vectors.copy(), queries.copy()
    index = EmbeddingIndex.of(vectors, kind=kind)
    before = index.search(queries, 5)[1]
    np.testing.assert_array_equal(vectors, copies[0])
    np.testing.assert_array_equal(queries, copies[1])
    vectors[:] = 0
    np.testing.assert_array_equal(index.search(queries, 5)[1], before)


def test_asking_for_more_than_there_are_gives_all(kind: module.Kind) -> None:
    vectors = clustered(30, seed=0)
    scores, rows = EmbeddingIndex.of(vectors, kind=kind).search(vectors[:2], 1000)
    assert scores.shape == rows.shape == (2, 30)
    assert [sorted(some) for some in rows.tolist()] == [list(range(30))] * 2


def test_an_empty_index_finds_nothing_and_no_queries_get_nothing(kind: module.Kind) -> None:
    empty = EmbeddingIndex.of(np.empty((0, 32), np.float32), kind=kind)
    scores, rows = empty.search(clustered(3, seed=0), 10)
    assert scores.shape == rows.shape == (3, 0)
    full = EmbeddingIndex.of(clustered(20, seed=0), kind=kind)
    assert full.search(np.empty((0, 32), np.float32), 10)[1].shape == (0, 10)


def test_zeros_have_score_zero(kind: module.Kind) -> None:
    vectors = np.zeros((4, 3), np.float32)
    vectors[2] = [1, 2, 3]
    index = EmbeddingIndex.of(vectors, kind=kind)
    scores, rows = index.search(np.array([[1, 2, 3], [0, 0, 0]], np.float32), 4)
    np.testing.assert_allclose(scores, [[1, 0, 0, 0], [0, 0, 0, 0]], atol=1e-7)
    assert rows.tolist() == [[2, 0, 1, 3], [0, 1, 2, 3]]


def test_what_is_no_number_or_does_not_fit_is_refused(kind: module.Kind) -> None:
    vectors = clustered(20, seed=0)
    index = EmbeddingIndex.of(vectors, kind=kind)
    broken = vectors.copy()
    broken[7, 3] = np.nan
    with pytest.raises(ValueError, match="row 7 has NaN"):
        EmbeddingIndex.of(broken, kind=kind)
    broken[7, 3] = np.inf
    with pytest.raises(ValueError, match="finite queries; row 7"):
        index.search(broken, 1)
    with pytest.raises(ValueError, match="row 7"):
        index.add(broken)
    for wrong in (np.zeros((2, 31), np.float32), np.zeros(32, np.float32)):
        with pytest.raises(ValueError, match=r"Expected queries of shape \(number, 32\)"):
            index.search(wrong, 1)
        with pytest.raises(ValueError, match=r"Expected embeddings of shape \(number, 32\)"):
            index.add(wrong)
    with pytest.raises(ValueError, match="'k' of at least 1"):
        index.search(vectors, 0)
    with pytest.raises(ValueError, match="at least one dimension"):
        EmbeddingIndex.of(np.zeros((3, 0), np.float32), kind=kind)
    assert len(index) == 20


def test_without_faiss_auto_is_exact_and_hnsw_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(module, "MAX_EXACT", 10)
    assert EmbeddingIndex.of(clustered(20, seed=0)).kind == "exact"
    with pytest.raises(NasGraphError, match=r"pip install 'nasgraph\[ann\]'"):
        EmbeddingIndex.of(clustered(20, seed=0), kind="hnsw")


def test_auto_is_hnsw_above_the_measured_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="needs nasgraph[ann]")
    monkeypatch.setattr(module, "MAX_EXACT", 19)
    assert EmbeddingIndex.of(clustered(19, seed=0)).kind == "exact"
    assert EmbeddingIndex.of(clustered(20, seed=0)).kind == "hnsw"


def test_importing_the_index_does_not_import_faiss() -> None:
    code = "import sys, nasgraph.retrieve.index; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
