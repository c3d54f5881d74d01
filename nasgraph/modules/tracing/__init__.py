"""How `nasgraph.modules.trace` works: a recorder of torch calls, and rules that write the calls in the graph language."""
