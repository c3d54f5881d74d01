"""One row of the catalogue as plain values, for the JSON interface."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nasgraph.modelzoo.catalogue import Row


def row_facts(row: "Row") -> dict[str, object]:
    """What the table shows of an entry, by name. Unknown values are null."""
    return {
        "reference": row.reference,
        "name": row.name,
        "version": row.version,
        "kind": row.kind,
        "aliases": list(row.aliases),
        "source": row.source,
        "data": row.data or None,
        "space": row.space or None,
        "task": row.task or None,
        "accuracy": row.accuracy,
        "num_parameters": row.num_parameters,
        "multiply_adds": row.multiply_adds,
        "latency_ms": row.latency_ms,
        "created": row.created or None,
        "fingerprint": row.fingerprint or None,
    }
