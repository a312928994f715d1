r"""Score networks and flows of two-dimensional data, as stacks of replicas.

A stack holds R independent models of one architecture; every weight has a leading dimension of R, and one batched matrix
product computes all of them. Points have the shape (R, B, 2).

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022), https://arxiv.org/abs/2205.13699
    | Density Estimation Using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
"""

import itertools
import math
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.sde import SDE

DIMS = 2
FREQUENCIES = 3
# Half the range of the log-SNR, about 24 under VP: the lowest frequency is monotone over it.
LOG_SNR_SCALE = 12.0
# Largest |log-scale| of a coupling.
LOG_SCALE = 2.0
M = TypeVar("M", bound=nn.Module)


class StackedLinear(nn.Module):
    """R linear maps: (R, B, F) to (R, B, K)."""

    def __init__(self, replicas: int, features_in: int, features_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(replicas, features_in, features_out))
        self.bias = nn.Parameter(torch.zeros(replicas, 1, features_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class StackedMLP(nn.Sequential):
    """R perceptrons with SiLU between the layers, whose sizes ``sizes`` are: (R, B, sizes[0]) to (R, B, sizes[-1])."""

    def __init__(self, replicas: int, *sizes: int) -> None:
        layers = [StackedLinear(replicas, *pair) for pair in itertools.pairwise(sizes)]
        between = [module for layer in layers for module in (layer, nn.SiLU())]
        super().__init__(*between[:-1])


class ScoreMLP(nn.Module):
    """Noise prediction from the point and sines of the log-SNR.

    Arguments:
        replicas: R.
        width: hidden units of a layer.
        layers: hidden layers.
        sde: the diffusion, whose log-SNR tells the network the time.
    """

    def __init__(self, replicas: int, width: int, layers: int, sde: SDE) -> None:
        super().__init__()
        self.sde = sde
        self.mlp = StackedMLP(replicas, DIMS + 2 * FREQUENCIES, *[width] * layers, DIMS)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Predict the noise (R, B, 2) in z_t (R, B, 2) at the times t (R, B)."""
        phase = (self.sde.log_snr(t).to(z_t.dtype) * (math.pi / 2 / LOG_SNR_SCALE))[..., None]
        waves = phase * 2.0 ** torch.arange(FREQUENCIES, dtype=z_t.dtype)
        return self.mlp(torch.cat([z_t, waves.sin(), waves.cos()], -1))


class Standardisation(nn.Module):
    r"""Fixed affine map of each replica, the flow of DDPM++ (a scale of 1: the identity).

    .. math:: z = c\,(x - m), \qquad \log\Big|\det\frac{\partial z}{\partial x}\Big| = 2 \log c

    Arguments:
        mean: m, shape (R,).
        factor: c > 0, shape (R,).
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("factor", factor.reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (R, B, 2), and the log-determinant, shape (R, B)."""
        log_det = DIMS * self.factor.log().squeeze(-1)
        return self.factor * (x - self.mean), log_det.expand(x.shape[:-1])

    def inverse(self, z: Tensor) -> Tensor:
        """Return x, shape (R, B, 2)."""
        return z / self.factor + self.mean


class CouplingFlow(nn.Module):
    r"""Affine couplings that take the coordinates in turn, the flow of INDM; it starts as the identity.

    .. math:: z_i = x_i\, e^{s(x_j)} + m(x_j), \quad z_j = x_j, \qquad
        \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum s, \qquad s = c \tanh(r/c)

    Arguments:
        replicas: R.
        couplings: number of couplings.
        width: hidden units of a coupling's two hidden layers.

    References:
        | Density Estimation Using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803, equations 7 and 8
    """

    def __init__(self, replicas: int, couplings: int, width: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(StackedMLP(replicas, 1, width, width, 2) for _ in range(couplings))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (R, B, 2), and the log-determinant, shape (R, B)."""
        moved, kept = x.split(1, -1)
        log_det = torch.zeros_like(moved)
        for net in self.nets:
            log_scale, shift = self._coefficients(net, kept)
            moved, kept = kept, moved * log_scale.exp() + shift
            log_det = log_det + log_scale
        return torch.cat(self._in_order(moved, kept), -1), log_det.squeeze(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return x, shape (R, B, 2)."""
        moved, kept = self._in_order(*z.split(1, -1))
        for net in reversed(self.nets):
            log_scale, shift = self._coefficients(net, moved)
            moved, kept = (kept - shift) * torch.exp(-log_scale), moved
        return torch.cat([moved, kept], -1)

    def _in_order(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange the coordinates if an odd number of couplings has."""
        return (second, first) if len(self.nets) % 2 else (first, second)

    @staticmethod
    def _coefficients(net: nn.Module, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = net(kept).split(1, -1)
        return LOG_SCALE * torch.tanh(raw / LOG_SCALE), shift


Flow2d = Standardisation | CouplingFlow


class Stack(nn.Module):
    """R replicas of a flow and a noise prediction.

    Arguments:
        noise: the noise predictions.
        flow: the flows.
    """

    def __init__(self, noise: ScoreMLP, flow: Flow2d) -> None:
        super().__init__()
        self.noise = noise
        self.flow = flow

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return len(next(self.noise.parameters()))

    def noise_fn(self) -> NoiseFn:
        """Return the noise prediction of latents (R B, 2) at times (R B,), for functions of one batch dimension."""
        return lambda z, t: self.noise(self.unflatten(z), self.unflatten(t)).flatten(0, 1)

    def unflatten(self, values: Tensor) -> Tensor:
        """Reshape (R B, *) to (R, B, *)."""
        return values.unflatten(0, (self.replicas, -1))


def initialise(module: nn.Module, seeds: list[int]) -> None:
    """Draw the weights of each replica from its own seed, uniform in 1/sqrt(F) as torch's layers; couplings' ends stay 0.

    References:
        | torch.nn.Linear, https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """
    for replica, seed in enumerate(seeds):
        generator = Generator().manual_seed(seed)
        for mlp in module.modules():
            if isinstance(mlp, StackedMLP):
                layers = [layer for layer in mlp if isinstance(layer, StackedLinear)]
                for layer in layers if isinstance(module, ScoreMLP) else layers[:-1]:
                    bound = 1 / math.sqrt(layer.weight.shape[1])
                    for parameter in (layer.weight, layer.bias):
                        parameter.data[replica].uniform_(-bound, bound, generator=generator)


def select(module: M, replicas: slice) -> M:
    """Return a copy of a stack with some of its replicas."""
    part = deepcopy(module)
    for tensor in itertools.chain(part.parameters(), part.buffers()):
        tensor.data = tensor.data[replicas]
    return part


def parameter_count(module: nn.Module) -> int:
    """Count the parameters of one replica."""
    return sum(parameter[0].numel() for parameter in module.parameters())
