"""PyTorch Geometric, when it is imported, warns of deprecated parts of torch that it uses. Here that is no error."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch_geometric.data
    import torch_geometric.utils  # noqa: F401
