"""The symmetries of a network's parameters: which units may change places, be rescaled or be removed together."""

from nasgraph.symmetry.exponents import Scaling
from nasgraph.symmetry.kept import KeptPlaces, kept_places
from nasgraph.symmetry.loose import matched_axes
from nasgraph.symmetry.rescale import random_factors, rescale_units
from nasgraph.symmetry.table import (
    AxisRef,
    FixedAxis,
    Role,
    SymmetryTable,
    UnitGroup,
    permute_units,
    random_orders,
    symmetry_table,
)

__all__ = [
    "AxisRef",
    "FixedAxis",
    "KeptPlaces",
    "Role",
    "Scaling",
    "SymmetryTable",
    "UnitGroup",
    "kept_places",
    "matched_axes",
    "permute_units",
    "random_factors",
    "random_orders",
    "rescale_units",
    "symmetry_table",
]
