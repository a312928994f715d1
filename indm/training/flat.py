"""The trained parameters of a module as one tensor, so that what goes over all of them is one call."""

import torch
from torch import Tensor, nn

# Numbers to which each parameter's place is rounded up: 64 bytes of float32, as PyTorch's own allocations. Products of matrices
# that lie elsewhere may round otherwise, and a copy of a network would differ from it.
ALIGNED = 16


class Flat:
    """The tensors of a module: its trained parameters side by side in one, whose parts they become, and all others.

    Parameters keep their values, shapes and names. None may be frozen, or given other memory (``Module.to``), afterwards.

    Attributes:
        values: (N,), the trained parameters, each followed by zeros up to its neighbour; an optimiser follows its gradient.
        fixed: buffers, and parameters that require no gradient.
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
        """Return the parts of a tensor (N,) that belong to the parameters, in their shapes."""
        sizes = [size for p, pad in zip(self._parameters, self._padding, strict=True) for size in (p.numel(), len(pad))]
        return [part.view(p.shape) for p, part in zip(self._parameters, flat.split(sizes)[::2], strict=True)]

    def share_gradients(self) -> None:
        """Give the parameters gradients that are parts of one as well, to which backward passes add."""
        self.values.grad = torch.zeros_like(self.values)
        for parameter, part in zip(self._parameters, self.split(self.values.grad), strict=True):
            parameter.grad = part

    def zero_gradients(self) -> None:
        """Let the gradients be zero."""
        assert self.values.grad is not None
        self.values.grad.zero_()
