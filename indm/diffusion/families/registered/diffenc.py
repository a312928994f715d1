r"""DiffEnc: a VP diffusion whose mean a network moves.

The paper's mean is :math:`\alpha^2 x + \sigma^2 y`; here the network is :math:`n = y - x`, so that a network of zeros is
DDPM++. The paper's prediction of x, :math:`\hat x`, and the noise predicted here give the same drift,
:math:`(1 + \sigma^2)\hat x = (z - \sigma\epsilon_\theta)/\alpha`.

References:
    | DiffEnc: Variational Diffusion with a Learned Encoder (Nielsen et al., 2024), https://arxiv.org/abs/2310.19789
    | https://github.com/bemigini/DiffEnc, src/learned_encoder/sigma3_v_approx_model.py
"""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.moved_mean import Move, MovedMean
from indm.networks.build import build_network

# A residual block for each resolution, and a quarter of the score network's channels, as in the paper's smaller encoder.
NARROWER, LEAST = 4, 4


class Encoder(nn.Module):
    """The move n of images (B, C, H, W) at A (B,), by a small score network without attention, zero at the start."""

    def __init__(self, channels_in: int, image_size: int, score: Mapping[str, Any], centered: bool) -> None:
        super().__init__()
        changed = {"channels": max(LEAST, score["channels"] // NARROWER), "blocks": 1, "attention_resolutions": []}
        changed |= {"embedding": "log_snr", "scale_by_sigma": False, "dropout": 0.0}
        given = {key: value for key, value in score.items() if key != "normalise_input"}
        self.network = build_network(
            channels_in=channels_in, image_size=image_size, centered=centered, **given | changed
        )
        nn.init.zeros_(self.network.conv_out.weight)

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        """Return the move n; ``x`` (B, C, H, W), ``a``, that is A, (B,), result (B, C, H, W)."""
        return self.network(x, -a.to(x.dtype))


class DiffEnc(ImplicitNonlinearDiffusion):
    """A model whose encoder sits in the flow's place, with its learning rate and average."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        channels, size, _ = self.shape
        self.flow.encoder = Encoder(channels, size, spec["score"], self.centered)

    @property
    def path(self) -> MovedMean:
        return MovedMean(self.sde, cast(Move, self.flow.encoder))


FAMILY = DiffEnc
