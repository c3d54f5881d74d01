"""How each operator computes, by family. `nasgraph.modules.functional` puts the families together into one table."""
