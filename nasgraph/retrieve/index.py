"""Nearest embeddings by cosine: exactly, or through a graph of neighbours where there are very many.

Shape letters: N = embeddings, Q = queries, D = dimensions, K = results per query.

Exact search is a matrix product; 100,000 embeddings of 128 numbers take some 5 ms for one query on one thread, so that a zoo
needs nothing else. For more there is a hierarchical navigable small world (HNSW; Malkov and Yashunin 2020, "Efficient and
Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable Small World Graphs") in the library faiss, which is
an extra: `pip install 'nasgraph[ann]'`. Its parameters were chosen by `benchmarks/zoo/index_speed.py`.

An index is not written to disk. faiss reads its own files in C++ and trusts them; from a stranger they could do harm. Rebuild
the index from the embeddings, which are plain numbers.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from nasgraph.errors import NasGraphError

if TYPE_CHECKING:
    import faiss

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Kind = Literal["auto", "exact", "hnsw"]

MAX_EXACT = 200_000
_NUM_LINKS = 32  # of a node to its neighbours, per level: `M` in the paper
_SEARCH_BREADTH = 128  # candidates that are kept while searching (`efSearch`): recall of 0.99 up to a million in our measurements
_BUILD_BREADTH = 100  # candidates that are kept while the graph is built: `efConstruction`
_BLOCK = 2**22  # numbers that are worked on at once


class EmbeddingIndex:
    """Finds the embeddings with the greatest cosine to a query.

    Guaranteed for both kinds: the score of a pair is the product of the two unit vectors, summed in double precision and
    rounded to float32, so that it does not depend on what else is searched for; results come in falling order of score,
    equal scores in rising order of row; the same calls give the same results. The exact kind finds the true nearest ones.
    HNSW finds nearly all of them (see `MAX_EXACT` and the benchmark), unless there are fewer than asked for in reach: then
    that query is answered exactly. A vector of zeros has score 0 with everything.

    Memory: the vectors; HNSW holds them a second time and adds about 150 bytes for each. Searching adds at most some 50 MB.
    """

    def __init__(self, vectors_ND: Floats, graph: "faiss.IndexHNSWFlat | None") -> None:
        self._vectors_ND = vectors_ND
        self._graph = graph

    @classmethod
    def of(cls, vectors: Floats, *, kind: Kind = "auto", threads: int = 1) -> "EmbeddingIndex":
        """An index over the rows of a matrix, which is copied.

        Args:
            vectors: Embeddings, (number, dimensions); they need not be unit vectors. There may be none, but
                the dimensions are fixed here.
            kind: "exact"; "hnsw"; or "auto": exact for up to `MAX_EXACT` embeddings, and above it HNSW if it is installed.
            threads: Threads that build an HNSW. With more than one, which neighbours are linked is up to chance, and so are
                the few results that are missed.

        Raises:
            ValueError: If `vectors` has no dimensions, or an embedding is not finite.
            NasGraphError: If `kind` is "hnsw" and faiss is not installed.
        """
        vectors_ND = _unit(vectors, "embeddings", None)
        if vectors_ND.shape[1] == 0:
            raise ValueError("Expected embeddings with at least one dimension (got 0)")
        if kind == "hnsw" or (kind == "auto" and len(vectors_ND) > MAX_EXACT and _has_faiss()):
            index = cls(vectors_ND[:0], _empty_graph(vectors_ND.shape[1]))
            index._extend(vectors_ND, threads=threads)
            return index
        return cls(vectors_ND, None)

    def __len__(self) -> int:
        return len(self._vectors_ND)

    @property
    def num_dimensions(self) -> int:
        """Numbers in an embedding."""
        return int(self._vectors_ND.shape[1])

    @property
    def kind(self) -> Literal["exact", "hnsw"]:
        """How this index searches."""
        return "exact" if self._graph is None else "hnsw"

    def add(self, vectors: Floats, *, threads: int = 1) -> None:
        """Append embeddings; their rows follow those that are there. The kind stays what it is.

        Raises:
            ValueError: If the dimensions differ, or an embedding is not finite. Nothing is added then.
        """
        self._extend(_unit(vectors, "embeddings", self.num_dimensions), threads=threads)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Rows]:
        """The nearest embeddings of each query.

        Args:
            queries: (number, dimensions); they need not be unit vectors.
            k: How many, at least 1.

        Returns:
            Scores in [-1, 1] and rows, both (number, min(k, embeddings)).

        Raises:
            ValueError: If the dimensions differ, a query is not finite, or `k` is not positive.
        """
        if k < 1:
            raise ValueError(f"Expected 'k' of at least 1 (got {k})")
        queries_QD = _unit(queries, "queries", self.num_dimensions)
        k = min(k, len(self))
        scores_QK, rows_QK = (
            np.empty((len(queries_QD), k), np.float32),
            np.empty((len(queries_QD), k), np.int64),
        )
        if k:
            for query, candidates in enumerate(self._candidates(queries_QD, k)):
                scores_QK[query], rows_QK[query] = self._best(queries_QD[query], candidates, k)
        return scores_QK, rows_QK

    def _extend(self, vectors_ND: Floats, *, threads: int) -> None:
        if self._graph is not None and len(vectors_ND):
            import faiss

            before = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(threads)
            try:
                self._graph.add(vectors_ND)
                self._graph.hnsw.efSearch = _SEARCH_BREADTH
            finally:
                faiss.omp_set_num_threads(before)
        self._vectors_ND = np.concatenate([self._vectors_ND, vectors_ND]) if len(self) else vectors_ND

    def _candidates(self, queries_QD: Floats, k: int) -> Iterator[Rows]:
        """For each query the rows that its results are among."""
        if self._graph is None:
            yield from self._near(queries_QD, k)
            return
        for query_D in queries_QD:
            _, found_QK = self._graph.search(query_D[None], k)
            rows = found_QK[0][found_QK[0] >= 0]
            yield rows if len(rows) == k else next(self._near(query_D[None], k))

    def _near(self, queries_QD: Floats, k: int) -> Iterator[Rows]:
        """For each query all rows whose float32 score may be among the `k` best.

        A product of two unit vectors of D numbers is off by less than D x 2**-24, in whatever order it is summed (Higham
        2002, section 3.1). So what is in truth among the best lies no further than twice that below the k-th best found.
        """
        margin = np.float32(4 * self.num_dimensions * 2.0**-24)
        step = max(1, _BLOCK // len(self))
        for start in range(0, len(queries_QD), step):
            for scores_N in queries_QD[start : start + step] @ self._vectors_ND.T:
                least = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
                yield np.flatnonzero(scores_N >= least - margin)

    def _best(self, query_D: Floats, candidates: Rows, k: int) -> tuple[Floats, Rows]:
        """The `k` best of some rows, in order, with their exact scores."""
        scores = np.empty(len(candidates), np.float32)
        step = max(1, _BLOCK // self.num_dimensions)
        for start in range(0, len(candidates), step):
            part = self._vectors_ND[candidates[start : start + step]].astype(np.float64)
            scores[start : start + step] = (part * query_D).sum(
                axis=1
            )  # not a product: BLAS sums rows in different orders
        np.minimum(np.maximum(scores, -1, out=scores), 1, out=scores)
        order = np.lexsort((candidates, -scores))[:k]
        return scores[order], candidates[order]


def _unit(vectors: Floats, what: str, num_dimensions: int | None) -> Floats:
    """Checked copies of length one; zeros stay zeros."""
    if vectors.ndim != 2 or num_dimensions not in (None, vectors.shape[1]):
        expected = "any" if num_dimensions is None else num_dimensions
        raise ValueError(f"Expected {what} of shape (number, {expected}) (got {vectors.shape})")
    result = np.empty(vectors.shape, np.float32)
    step = max(1, _BLOCK // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step].astype(np.float64)
        length = np.sqrt((part * part).sum(axis=1, keepdims=True))
        if not np.isfinite(length).all():
            row = start + int(np.flatnonzero(~np.isfinite(length[:, 0]))[0])
            raise ValueError(f"Expected finite {what}; row {row} has NaN or an infinity")
        result[start : start + step] = part / np.where(length == 0, 1, length)
    return result


def _has_faiss() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def _empty_graph(num_dimensions: int) -> "faiss.IndexHNSWFlat":
    try:
        import faiss
    except ImportError as error:
        raise NasGraphError("An HNSW index needs faiss: pip install 'nasgraph[ann]'") from error
    graph = faiss.IndexHNSWFlat(num_dimensions, _NUM_LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _BUILD_BREADTH
    return graph
