"""A U-Net that is equivariant to mirroring."""

from torch import Tensor

from indm.networks.registered.unet import ScoreUNet


class MirrorUNet(ScoreUNet):
    r"""Average over an image and its mirror image, :math:`\tfrac12 (f(x) + M f(M x))`; arguments and shapes as of the U-Net."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return (super().forward(x, condition) + super().forward(x.flip(-1), condition).flip(-1)) / 2


NETWORK = MirrorUNet
