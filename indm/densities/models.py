"""Score networks and flows for points in an even number D of dimensions, as stacks of replicas.

A stack holds R independent models of one architecture; every weight has a leading dimension of R, and one batched matmul
computes all models. Points and latents have shape (R, B, D) and no unit.

With torch.func (``stack_module_state``, ``functional_call``, ``vmap``), losses and gradients would be the same, but a training
step would take longer.

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
from indm.diffusion.path import ForwardPath, LinearPath
from indm.diffusion.sde import SDE

FREQUENCIES = 3
# Half of the log-SNR's range, which is about 24 under VP, so that the lowest frequency is monotone over it.
LOG_SNR_SCALE = 12.0
# Largest |log-scale| of a coupling.
LOG_SCALE = 2.0
M = TypeVar("M", bound=nn.Module)


class StackedLinear(nn.Module):
    """R linear maps x W + b, with W of shape (R, F, K) and b of shape (R, 1, K)."""

    def __init__(self, replicas: int, features_in: int, features_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(replicas, features_in, features_out))
        self.bias = nn.Parameter(torch.zeros(replicas, 1, features_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return x W + b, (R, B, F) to (R, B, K)."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedMLP(nn.Sequential):
    """R perceptrons with layers of sizes ``sizes`` and SiLU between them: (R, B, sizes[0]) to (R, B, sizes[-1])."""

    def __init__(self, replicas: int, *sizes: int) -> None:
        layers = [StackedLinear(replicas, *pair) for pair in itertools.pairwise(sizes)]
        between = [module for layer in layers for module in (layer, nn.SiLU())]
        super().__init__(*between[:-1])


def waves(log_snr: Tensor) -> Tensor:
    r"""Return sines and cosines of the log-SNR :math:`\lambda`, by which a network sees the time.

    .. math:: \sin\frac{2^k \pi \lambda}{24}, \quad \cos\frac{2^k \pi \lambda}{24}, \qquad k = 0, 1, 2

    Arguments:
        log_snr: the log-SNR, shape (R, B).

    Returns:
        The sines, then the cosines, shape (R, B, 2 FREQUENCIES).
    """
    phase = (log_snr * (math.pi / 2 / LOG_SNR_SCALE))[..., None]
    phases = phase * 2.0 ** torch.arange(FREQUENCIES, dtype=log_snr.dtype)
    return torch.cat([phases.sin(), phases.cos()], -1)


class ScoreMLP(nn.Module):
    """Noise prediction from the point and sines of the log-SNR.

    Arguments:
        sde: the diffusion, whose log-SNR represents the time in the input.
    """

    def __init__(self, replicas: int, dims: int, width: int, layers: int, sde: SDE) -> None:
        super().__init__()
        self.dims, self.sde = dims, sde
        self.mlp = StackedMLP(replicas, dims + 2 * FREQUENCIES, *[width] * layers, dims)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Predict the noise (R, B, D) in z_t (R, B, D) at the times t (R, B)."""
        return self.mlp(torch.cat([z_t, waves(self.sde.log_snr(t).to(z_t.dtype))], -1))


class Scale(nn.Module):
    r"""The map z = c x of each replica, with c > 0 of shape (R,): DDPM++'s flow, the identity for c = 1."""

    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, (R, B, D) to (R, B, D), and the log-determinant D log c in nats, shape (R, B)."""
        log_det = x.shape[-1] * self.factor.log().squeeze(-1)
        return self.factor * x, log_det.expand(x.shape[:-1])

    def inverse(self, z: Tensor) -> Tensor:
        """Return x for z, (R, B, D) to (R, B, D)."""
        return z / self.factor


class LinearMap(nn.Module):
    r"""Learned matrix and shift of each replica, the flow of ``learned-linear``; it starts as the identity.

    .. math:: z = L U x + b, \qquad \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum_i s_i

    L is lower triangular with a diagonal of 1, and U upper triangular with the diagonal :math:`e^{s_i}`.

    References:
        | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma and Dhariwal, 2018)
        | https://arxiv.org/abs/1807.03039, equations 10 and 11
    """

    def __init__(self, replicas: int, dims: int) -> None:
        super().__init__()
        # Below the diagonal the entries of L, on it s, above it the entries of U.
        self.entries = nn.Parameter(torch.zeros(replicas, dims, dims))
        self.shift = nn.Parameter(torch.zeros(replicas, 1, dims))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, (R, B, D) to (R, B, D), and the log-determinant in nats, shape (R, B)."""
        lower, upper = self._factors()
        log_det = self.entries.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return torch.baddbmm(self.shift, x, (lower @ upper).mT), log_det.expand(x.shape[:-1])

    def inverse(self, z: Tensor) -> Tensor:
        """Return x for z, (R, B, D) to (R, B, D)."""
        lower, upper = self._factors()
        halfway = torch.linalg.solve_triangular(lower, (z - self.shift).mT, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, halfway, upper=True).mT

    def _factors(self) -> tuple[Tensor, Tensor]:
        ones = torch.ones_like(self.shift[:, 0]).diag_embed()
        scales = self.entries.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return self.entries.tril(-1) + ones, self.entries.triu(1) + scales


class CouplingFlow(nn.Module):
    r"""Affine couplings that alternate between the halves of the coordinates, the flow of INDM; it starts as the identity.

    INDM's flow for images is a residual flow.

    .. math:: z_i = x_i\, e^{s(x_j)} + m(x_j), \quad z_j = x_j, \qquad
        \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum s, \qquad s = c \tanh(r/c)

    Arguments:
        replicas: the number of replicas R.
        couplings: number of couplings.
        width: number of units in each of a coupling's two hidden layers.

    References:
        | Density Estimation Using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803, equations 7 and 8
    """

    def __init__(self, replicas: int, dims: int, couplings: int, width: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(StackedMLP(replicas, dims // 2, width, width, dims) for _ in range(couplings))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, (R, B, D) to (R, B, D), and the log-determinant in nats, shape (R, B)."""
        moved, kept = x.chunk(2, -1)
        log_det = torch.zeros_like(moved)
        for net in self.nets:
            log_scale, shift = self._coefficients(net, kept)
            moved, kept = kept, moved * log_scale.exp() + shift
            log_det = log_det + log_scale
        return torch.cat(self._in_order(moved, kept), -1), log_det.sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return x for z, (R, B, D) to (R, B, D)."""
        moved, kept = self._in_order(*z.chunk(2, -1))
        for net in reversed(self.nets):
            log_scale, shift = self._coefficients(net, moved)
            moved, kept = (kept - shift) * torch.exp(-log_scale), moved
        return torch.cat([moved, kept], -1)

    def _in_order(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Swap the halves if the number of couplings, each of which swaps them, is odd."""
        return (second, first) if len(self.nets) % 2 else (first, second)

    @staticmethod
    def _coefficients(net: nn.Module, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = net(kept).chunk(2, -1)
        return LOG_SCALE * torch.tanh(raw / LOG_SCALE), shift


class Mover(Scale):
    """The identity, with a forward process that is trained in a flow's place; see :mod:`indm.densities.movers`."""

    def __init__(self, replicas: int) -> None:
        super().__init__(torch.ones(replicas))

    def path(self, sde: SDE) -> ForwardPath:
        """Return the forward process of points (R B, D)."""
        raise NotImplementedError


Flow = Scale | LinearMap | CouplingFlow


class Stack(nn.Module):
    """R replicas of a flow and a noise prediction."""

    def __init__(self, noise: ScoreMLP, flow: Flow) -> None:
        super().__init__()
        self.noise = noise
        self.flow = flow

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return len(next(self.noise.parameters()))

    def noise_fn(self) -> NoiseFn:
        """Return the noise prediction of latents (R B, D) at times (R B,), for functions of one batch dimension."""
        return lambda z, t: self.noise(self.unflatten(z), self.unflatten(t)).flatten(0, 1)

    def path(self, sde: SDE) -> ForwardPath:
        """Return the forward process of latents (R B, D)."""
        return self.flow.path(sde) if isinstance(self.flow, Mover) else LinearPath(sde)

    def unflatten(self, values: Tensor) -> Tensor:
        """Reshape (R B, *) to (R, B, *)."""
        return values.unflatten(0, (self.replicas, -1))


def initialise(module: nn.Module, seeds: list[int]) -> None:
    """Initialise each replica from its own seed, uniformly within 1/sqrt(F) like torch.nn.Linear; last layers of couplings stay 0.

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
