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
        self.values = self._side_by_side([parameter.detach() for parameter in self._parameters])
        for parameter, part in zip(self._parameters, self.split(self.values), strict=True):
            parameter.data = part
        frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
        self.fixed = [*frozen, *module.buffers()]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of a tensor (N,) that belong to the parameters, in their shapes."""
        sizes = [size for p, pad in zip(self._parameters, self._padding, strict=True) for size in (p.numel(), len(pad))]
        return [part.view(p.shape) for p, part in zip(self._parameters, flat.split(sizes)[::2], strict=True)]

    def forget_gradients(self) -> None:
        """Forget all gradients, and free their memory."""
        for tensor in (self.values, *self._parameters):
            tensor.grad = None

    def gather_gradients(self) -> None:
        """Make one gradient of those of the parameters, all of which must have one."""
        gradients = [parameter.grad for parameter in self._parameters]
        self.forget_gradients()
        self.values.grad = self._side_by_side([gradient for gradient in gradients if gradient is not None])

    def _side_by_side(self, tensors: list[Tensor]) -> Tensor:
        return torch.cat(
            [x for pair in zip(tensors, self._padding, strict=True) for x in (pair[0].reshape(-1), pair[1])]
        )
