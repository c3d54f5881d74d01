"""Our MLflow flavour: zoo entries as python functions. Loaded by name from the `MLmodel` file of an entry."""

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nasgraph.modelzoo.entry import ZooEntry, load_entry
from nasgraph.modelzoo.mlmodel import takes_integers

Logits = npt.NDArray[np.float32]

_BATCH_SIZE = 256


class EntryFunction:
    """A zoo entry that predicts. Inputs are expected normalised: as the data set's preparation returns them.

    Args:
        entry: A checked entry.
    """

    def __init__(self, entry: ZooEntry) -> None:
        self.entry = entry
        self._module = entry.module()
        test = entry.card.measured("test")
        self._batch_size = _BATCH_SIZE if test is None else test.batch_size

    def predict(
        self, model_input: npt.NDArray[np.generic] | Tensor, params: dict[str, object] | None = None
    ) -> Logits:
        """Logits of a batch. Batches are cut as when the card's accuracy was measured, so the bits are the same.

        Args:
            model_input: `[examples, *input_shape]`, as an array or (not through MLflow, whose signature refuses it)
                a tensor.
            params: `{"raw": True}`: the inputs are of the published range, such as 0 to 255, and are normalised here
                with the constants in the card. Nothing is normalised otherwise.

        Returns:
            `[examples, classes]`, single precision.

        Raises:
            ValueError: If the inputs have another shape, or are raw and the card names no data.
        """
        graph, data = self.entry.graph, self.entry.card.data
        dtype = torch.int64 if takes_integers(graph) else torch.float32
        inputs = torch.as_tensor(model_input, dtype=dtype, device="cpu")
        expected = graph.shapes[graph.inputs[0]]
        if len(graph.inputs) > 1:
            raise ValueError(
                f"Expected a network with one input (it has {len(graph.inputs)}): use load_entry"
            )
        if tuple(inputs.shape[1:]) != expected or inputs.ndim != len(expected) + 1:
            raise ValueError(
                f"Expected inputs of shape [examples, {', '.join(map(str, expected))}] (got {list(inputs.shape)})"
            )
        if (params or {}).get("raw"):
            if data is None:
                raise ValueError("The card names no data, and so no constants that normalise raw inputs")
            inputs = data.normalisation.apply(inputs)
        count, size = len(inputs), self._batch_size
        with torch.inference_mode():  # cut as `nasgraph.evaluate.measure` does
            starts = range(0, max(1, count - 1), size)
            parts = [self._module(inputs[i : count if i + size >= count - 1 else i + size]) for i in starts]
        return cast(Logits, torch.cat(parts).numpy())


def _load_pyfunc(path: str) -> EntryFunction:
    """Called by `mlflow.pyfunc.load_model` with the folder of the entry."""
    return EntryFunction(load_entry(Path(path)))
