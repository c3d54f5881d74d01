"""The default data set: handwritten digits that come with scikit-learn, so they need no network."""

import numpy as np
from sklearn.datasets import load_digits as load_sklearn_digits

from nasgraph.data.records import DataRequest, RawData


def load_digits(request: DataRequest) -> RawData:
    """1,797 grey images of 8x8 pixels with values 0 to 16, in ten classes of 174 to 183.

    scikit-learn has one table (the test part of the original), so no official test split exists.

    Args:
        request: Not used: nothing is read from a data folder and nothing is fetched.
    """
    del request
    table = load_sklearn_digits()
    return RawData(
        train_inputs=table.images.astype(np.uint8)[:, None],
        train_labels=table.target.astype(np.int64),
        class_names=tuple("0123456789"),
        licence="CC BY 4.0",
        source="Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49",
    )
