"""What we use of PyTorch Geometric, imported in one place.

PyG 2.8 compiles a few of its classes with `torch.jit.script` while it is imported, which torch has deprecated. That is
for PyG to change and no news for whoever runs us with warnings as errors; so the one message is silenced, here only.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
    from torch_geometric import __version__ as PYG_VERSION  # noqa: N812  a constant, whatever its module calls it
    from torch_geometric.data import Batch, HeteroData
    from torch_geometric.nn import GATConv, HeteroConv, SAGEConv
    from torch_geometric.utils import softmax

__all__ = ["PYG_VERSION", "Batch", "GATConv", "HeteroConv", "HeteroData", "SAGEConv", "softmax"]
