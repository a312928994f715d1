"""The trained parameters of a module as one tensor, so that an operation on all of them takes one call."""

import torch
from torch import Tensor, nn

# Alignment of each parameter, in numbers: 64 bytes in float32, as in PyTorch's allocations. Matmuls with another alignment
# may round differently, so that a copy of a network would differ from it.
ALIGNED = 16


class Flat:
    """The tensors of a module: one tensor whose parts become its trained parameters, and all other tensors.

    Parameters keep their values, shapes and names. Afterwards they must neither be frozen nor moved (``Module.to``).

    Arguments:
        module: the module, whose trained parameters have one device and one type.

    Attributes:
        values: the trained parameters, shape (N,), each followed by zeros up to a multiple of ``ALIGNED`` numbers; optimisers
            follow its gradient.
        fixed: frozen parameters and buffers, in their own shapes.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._padding = [parameter.new_zeros(-parameter.numel() % ALIGNED) for parameter in self._parameters]
        pairs = zip(self._parameters, self._padding, strict=True)
        self.values = torch.cat([x for parameter, pad in pairs for x in (parameter.detach().reshape(-1), pad)])
        for parameter, part in zip(self._parameters, self.split(self.values), strict=True):
            parameter.data = part
        frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
        self.fixed = [*frozen, *module.buffers()]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of a tensor that belong to the parameters, without the padding.

        Arguments:
            flat: a tensor with the layout of ``values``, shape (N,).

        Returns:
            Views of it, one for each trained parameter, in the order and the shapes of the parameters.
        """
        sizes = [size for p, pad in zip(self._parameters, self._padding, strict=True) for size in (p.numel(), len(pad))]
        return [part.view(p.shape) for p, part in zip(self._parameters, flat.split(sizes)[::2], strict=True)]

    def share_gradients(self) -> None:
        """Make the parameters' gradients parts of one tensor, shape (N,), to which backward passes add."""
        self.values.grad = torch.zeros_like(self.values)
        for parameter, part in zip(self._parameters, self.split(self.values.grad), strict=True):
            parameter.grad = part

    def zero_gradients(self) -> None:
        """Set the gradients to zero."""
        assert self.values.grad is not None
        self.values.grad.zero_()
