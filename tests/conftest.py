"""Settings of all tests: one torch thread, Hypothesis without chance and deadlines, the data beside the checkout."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "nasgraph", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nasgraph")

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Two test processes with many threads each would only fight. Tests that do not need torch do not load it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables and images that may lie beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data folder '{SHARED_DATA}', which lies beside some checkouts only")
    return SHARED_DATA
