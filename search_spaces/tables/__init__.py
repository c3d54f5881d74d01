"""Tabular benchmarks that are shipped: only where they lie. `nasgraph.evaluate.table.open_table` opens them by name."""

from pathlib import Path

NASBENCH201 = Path(__file__).with_name("nasbench201.safetensors")
