"""Inputs that are nearly all zero, such as bags of words: rows in compressed form (CSR)."""

import warnings

import torch
from torch import Tensor


def sparse_rows(
    starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...], *, check: bool = False
) -> Tensor:
    """A matrix in compressed rows.

    Args:
        starts: Where each row starts among the values, and where the last one ends.
        columns: Column of each value.
        values: What is not zero.
        shape: Rows and columns.
        check: Whether to look if the parts fit; without it they have to.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state", UserWarning)
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=check)


def with_values(matrix: Tensor, values: Tensor) -> Tensor:
    """The matrix with other values in the same places."""
    return sparse_rows(matrix.crow_indices(), matrix.col_indices(), values, tuple(matrix.shape))
