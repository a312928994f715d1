"""Products of tensors as a GPU computes them with shorter factors: their mantissas are rounded, and the sums are float32's."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Bits of a mantissa behind the point.
BITS = {"float32": 23, "tf32": 10, "bfloat16": 7}
ATEN = torch.ops.aten
# Of each product, which arguments are factors.
FACTORS = {
    ATEN.mm: (0, 1),
    ATEN.bmm: (0, 1),
    ATEN.addmm: (1, 2),
    ATEN.baddbmm: (1, 2),
    ATEN.convolution: (0, 1),
    ATEN.convolution_backward: (0, 1, 2),
}


def rounded(x: Tensor, bits: int) -> Tensor:
    """Round float32 numbers to so many bits of the mantissa, halves away from zero."""
    dropped = 23 - bits
    if not dropped:
        return x
    return ((x.contiguous().view(torch.int32) + (1 << (dropped - 1))) & -(1 << dropped)).view(torch.float32)


class RoundedProducts(TorchDispatchMode):
    """Computes products of float32 tensors in a precision of :data:`BITS`, inside the block."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.bits = BITS[precision]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Round the factors of products."""
        factors = FACTORS.get(func.overloadpacket, ())
        args = [rounded(x, self.bits) if index in factors else x for index, x in enumerate(args)]
        return func(*args, **(kwargs or {}))
