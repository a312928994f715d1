r"""Score networks and flows for two-dimensional data, as stacks of replicas.

A stack holds R independent models of one architecture; every weight has a leading dimension of R, and one batched matmul computes
all models. Points have shape (R, B, 2).

With torch.func (``stack_module_state``, ``functional_call``, ``vmap``), losses and gradients would be bit-identical but slower: a
training step of ten replicas of the digits suite takes 7.4 ms instead of 4.9 ms of one thread's processor time with one vmap around
the whole loss, and 1.7 times as long as here with one vmap around each perceptron.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022), https://arxiv.org/abs/2205.13699
    | Density Estimation Using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
"""

import itertools
import math
from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.sde import SDE

DIMS = 2
FREQUENCIES = 3
# Half of the log-SNR's range, which is about 24 under VP, so that the lowest frequency is monotone over it.
LOG_SNR_SCALE = 12.0
# Largest |log-scale| of a coupling.
LOG_SCALE = 2.0
# Families of learned maps: each row is the contribution of one trained number to (s1, s2, l, u, b1, b2).
FAMILIES: dict[str, list[list[float]]] = {
    "scale": [[1, 1, 0, 0, 0, 0]],
    "affine": [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]],
    "linear": torch.eye(6).tolist(),
}
# Parts of the seeds of initial weights. Another text gives other weights, so renaming a class must not change it.
SCORE_SEED, FLOW_SEED = "ScoreMLP", "CouplingFlow"
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
    """R perceptrons with layers of sizes ``sizes`` and SiLU between them: (R, B, sizes[0]) to (R, B, sizes[-1])."""

    def __init__(self, replicas: int, *sizes: int) -> None:
        layers = [StackedLinear(replicas, *pair) for pair in itertools.pairwise(sizes)]
        between = [module for layer in layers for module in (layer, nn.SiLU())]
        super().__init__(*between[:-1])


class ScoreMLP(nn.Module):
    """Noise prediction from the point and sines of the log-SNR.

    Arguments:
        sde: the diffusion, whose log-SNR represents the time in the input.
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


class LearnedMap(nn.Module):
    r"""Learned linear map and shift of each replica, the flow of DDPM++'s learned controls; it starts as the identity.

    .. math::
        z = L U x + b, \quad L = \begin{pmatrix} 1 & 0 \\ l & 1 \end{pmatrix}, \quad
        U = \begin{pmatrix} e^{s_1} & u \\ 0 & e^{s_2} \end{pmatrix}, \qquad
        \log\Big|\det\frac{\partial z}{\partial x}\Big| = s_1 + s_2

    The entries :math:`(s_1, s_2, l, u, b_1, b_2)` are :math:`c\,B` with trained coefficients c and a fixed basis B. Replicas
    of several families can therefore share a stack: in a family with fewer coefficients, the unused ones have zero rows in B and
    stay 0.

    Arguments:
        families: the family of each replica, a key of :data:`FAMILIES`.

    References:
        | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma and Dhariwal, 2018)
        | https://arxiv.org/abs/1807.03039, equations 10 and 11
    """

    basis: Tensor

    def __init__(self, families: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer(
            "basis", pad_sequence([torch.tensor(FAMILIES[family], dtype=torch.float32) for family in families], True)
        )
        self.coefficients = nn.Parameter(torch.zeros(self.basis.shape[:2]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (R, B, 2), and the log-determinant, shape (R, B)."""
        matrix, shift, log_det = self._entries()
        return torch.baddbmm(shift, x, matrix.mT), log_det.expand(x.shape[:-1])

    def inverse(self, z: Tensor) -> Tensor:
        """Return x, shape (R, B, 2)."""
        matrix, shift, log_det = self._entries()
        (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
        return (z - shift) @ (adjugate * torch.exp(-log_det)[..., None]).mT

    def trimmed(self) -> "LearnedMap":
        """Return a copy without the coefficients that its replicas do not use."""
        part, used = deepcopy(self), self.basis.any(-1).any(0)
        part.basis, part.coefficients = self.basis[:, used], nn.Parameter(self.coefficients.detach()[:, used])
        return part

    def _entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the matrices (R, 2, 2), the shifts (R, 1, 2) and the log-determinants (R, 1)."""
        entries = torch.einsum("rk,rke->re", self.coefficients, self.basis)
        s1, s2, lower, upper = entries[:, :4].unbind(1)
        matrix = torch.stack([s1.exp(), upper, lower * s1.exp(), lower * upper + s2.exp()], 1)
        return matrix.unflatten(1, (DIMS, DIMS)), entries[:, None, 4:], (s1 + s2)[:, None]


class CouplingFlow(nn.Module):
    r"""Affine couplings that alternate between the coordinates, the flow of INDM; it starts as the identity.

    .. math:: z_i = x_i\, e^{s(x_j)} + m(x_j), \quad z_j = x_j, \qquad
        \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum s, \qquad s = c \tanh(r/c)

    Arguments:
        replicas: the number of replicas R.
        couplings: number of couplings.
        width: number of units in each of a coupling's two hidden layers.

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
        """Swap the coordinates if the number of couplings, each of which swaps them, is odd."""
        return (second, first) if len(self.nets) % 2 else (first, second)

    @staticmethod
    def _coefficients(net: nn.Module, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = net(kept).split(1, -1)
        return LOG_SCALE * torch.tanh(raw / LOG_SCALE), shift


Flow2d = Standardisation | LearnedMap | CouplingFlow


class Stack(nn.Module):
    """R replicas of a flow and a noise prediction."""

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
