"""The symmetries of a network's parameters: which units may change places, be rescaled or be removed together."""

from nasgraph.symmetry.table import (
    AxisRef,
    FixedAxis,
    SymmetryTable,
    UnitGroup,
    permute_units,
    random_orders,
    symmetry_table,
)

__all__ = [
    "AxisRef",
    "FixedAxis",
    "SymmetryTable",
    "UnitGroup",
    "permute_units",
    "random_orders",
    "symmetry_table",
]
