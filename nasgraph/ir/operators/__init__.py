"""The operators by family. `nasgraph.ir.ops` puts the families together into one table."""
