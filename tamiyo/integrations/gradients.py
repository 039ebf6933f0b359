"""What gradients come to, whatever a host's parameters are: dense, sparse or complex, of any precision and device."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["inner_product", "total_norm"]


def total_norm(parameters: Iterable[nn.Parameter]) -> float | None:
    """The L2 norm over all gradients there are; None when there are none."""
    measured = [_measured(parameter.grad) for parameter in parameters if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(measured)) if measured else None


def inner_product(one: Tensor, other: Tensor) -> Tensor:
    """The inner product of two gradients of one shape, its real part where they are complex; a scalar."""
    product = torch.sum(one.to(_wide(one)) * other.conj())
    return product.real if product.is_complex() else product


def _measured(gradient: Tensor) -> Tensor:
    """A dense tensor of the same norm: of half precision, where that may be past the largest number, the norm."""
    values = gradient.coalesce().values() if gradient.layout == torch.sparse_coo else gradient
    wide = _wide(values)
    return values if values.dtype == wide else torch.linalg.vector_norm(values.to(wide))


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
