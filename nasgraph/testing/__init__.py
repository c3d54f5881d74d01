"""Contracts that plug-ins can be tested against. Needs pytest: `pip install 'nasgraph[test]'`."""

import pytest

# Before the import: assertions of the contracts explain themselves like those of a test file.
pytest.register_assert_rewrite("nasgraph.testing.graphs", "nasgraph.testing.spaces")

from nasgraph.testing.graphs import reordered  # noqa: E402
from nasgraph.testing.spaces import SearchSpaceContract  # noqa: E402

__all__ = ["SearchSpaceContract", "reordered"]
