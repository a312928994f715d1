r"""The reading of a network that explains its outputs best, against its description.

All readings are tried on the same draws: images x, noise, and ratios :math:`\rho` of noise to data in [-1, 1], so that at each
draw all readings see the same noisy image, in their own scale and at their own time. By the error of its noise prediction, a
reading has the bound

.. math:: \mathrm{NELBO} = \tfrac12 \int \|\epsilon_\theta - \epsilon\|^2\, \mathrm d\log\rho^{-2} + \text{const},

whose constant is the same for all readings. A reading therefore explains the network better than its description by

.. math:: \Delta = \frac1{2 D \ln 2} \int \big(\|\epsilon_\theta^{\text{described}} - \epsilon\|^2
    - \|\epsilon_\theta - \epsilon\|^2\big)\, \mathrm d\log\rho^{-2}

bits/dim, over the ratios that both diffusions have. Huge errors are cut off, so that a few of them do not hide the others. Few
draws select readings, and other draws decide between the selected readings and the description, so that the selection does not
favour a reading by chance.

References:
    | Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630, equation 18
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import perturb, squared_norm
from indm.diffusion.sde import T
from indm.foreign.conventions import CONVENTIONS, Network, output, read
from indm.foreign.readings import Reading, other_readings

# Images and ratios for the selection of readings, and for the decision.
SELECTING, DECIDING = (8, 8), (32, 16)
# A better reading is better by so many bits/dim, and by so many standard errors over images.
SMALLEST, ERRORS = 0.03, 3.0
# Errors count at most as so many times the error of an output of 0, so that a few huge ones do not hide the others.
MOST = 10.0
# Ratios of noise to data at which a right reading predicts noise well.
LATE = 1.0
# A description is refused if its late error exceeds the error of an output of 0, while another reading has at most this share.
HALF = 0.5


@dataclass(frozen=True)
class Comparison:
    """The description of a network against other readings of it.

    Arguments:
        described: the description.
        tried: number of other readings.
        best: the reading that explains the network best, with the fewest changes; ``None`` if no other one could be tried.
        gain: by how much it explains the network better than the description; negative if it explains it worse.
        se: standard error of the gain over images.
        late: errors of late noise under the description and under the best reading, as shares of the error of an output of 0.
        unit: the unit of the gain and its error, for words.
    """

    described: Reading
    tried: int
    best: Reading | None = None
    gain: float = -math.inf
    se: float = 0.0
    late: tuple[float, float] = (0.0, 0.0)
    unit: str = "bits/dim"

    @property
    def is_better(self) -> bool:
        """Whether another reading explains the network better, by more than chance."""
        return self.best is not None and self.gain > max(SMALLEST, ERRORS * self.se)

    def words(self) -> str:
        """Describe the outcome in a sentence, if no other reading is better."""
        words = f"Readings: none of {self.tried} other kinds, signs, ranges and diffusions explains the network better"
        if self.best is None:
            return f"{words}."
        return f"{words}; the next best, {self.best.words(self.described)}, has {-self.gain:+.3f} {self.unit}."

    def refusal(self) -> str:
        """Describe why the description is refused."""
        assert self.best is not None
        return (
            f"read as {self.described.kind}, it predicts late noise {self.late[0]:.2f} times as badly as an output of 0, read as "
            f"{self.best.words(self.described)}, {self.late[1]:.2f} times; {self.best.remedy(self.described)}"
        )

    @property
    def is_refused(self) -> bool:
        """Whether the description is worse than an output of 0, or gives no numbers, although another reading is right."""
        return self.is_better and self.late[0] > 1 and self.late[1] < HALF


@dataclass(frozen=True)
class Draws:
    """Images with noise at random ratios, the same for all readings.

    Arguments:
        x: the image of each of N draws, in [-1, 1], shape (N, *).
        noise: standard normal noise, shape (N, *).
        log_ratio: logarithms of the ratios of noise to data, shape (N,), float64.
        images: number of different images; the draws of an image follow one another.
    """

    x: Tensor
    noise: Tensor
    log_ratio: Tensor
    images: int


def compare_readings(
    network: Network,
    described: Reading,
    eps: float,
    x: Tensor,
    batch_size: int,
    generator: Generator,
    has_range: bool = True,
) -> Comparison:
    """Compare the description of a network with all other readings of it.

    Arguments:
        network: the network.
        described: the description.
        eps: truncation time of all readings.
        x: dequantised images in [-1, 1], or continuous data, shape (N, *), N at least 2.
        batch_size: images evaluated at once.
        generator: source of all draws, on the CPU.
        has_range: whether the data has a range, as images have.

    Returns:
        The description against the best of the other readings.
    """
    trial = Trial(network, described, eps, batch_size)
    others = [*other_readings(described, x.device, has_range)]
    selected = _selected(trial, others, trial.draws(x, *SELECTING, generator))
    draws = trial.draws(x, *DECIDING, generator)
    base, found = trial.errors(selected, draws)
    if not found:
        return Comparison(described, len(others))
    ranks = trial.ranks(base, found, draws)
    # A change that brings next to nothing is not a remedy.
    good = [other for other in found if ranks[other] >= max(ranks.values()) - SMALLEST]
    best = min(good, key=described.changes)
    gain = trial.gains(base, found[best], draws)
    late = (_late_share(base, draws), _late_share(found[best], draws))
    return Comparison(described, len(others), best, float(gain.mean()), float(gain.std() / len(gain) ** 0.5), late)


def _selected(trial: "Trial", others: list[Reading], draws: Draws) -> list[Reading]:
    """Select the best reading with one change of the description, the best one with two changes, and so on."""
    ranks = trial.ranks(*trial.errors(others, draws), draws)
    best: dict[int, Reading] = {}
    for other in sorted(ranks, key=lambda other: ranks[other]):
        best[other.changes(trial.described)] = other
    return [*best.values()]


class Trial:
    """Readings of one network on draws whose ratios are all those of the description.

    Arguments:
        network: the network.
        described: the description.
        eps: truncation time.
        batch_size: images evaluated at once.
    """

    def __init__(self, network: Network, described: Reading, eps: float, batch_size: int) -> None:
        self.network, self.described, self.eps, self.batch_size = network, described, eps, batch_size
        self.first, self.last = _log_ratios(described, eps)

    def draws(self, x: Tensor, images: int, ratios: int, generator: Generator) -> Draws:
        """Draw noise at stratified ratios for the first images.

        Arguments:
            x: dequantised images in [-1, 1], shape (N, *).
            images: the largest number of images.
            ratios: number of ratios for each image.
            generator: source of all draws, on the CPU.

        Returns:
            The draws, as many as images times ratios.
        """
        images = min(images, len(x))
        x = x[:images].repeat_interleave(ratios, 0)
        uniform = torch.rand(len(x), generator=generator, dtype=torch.float64)
        strata = torch.arange(ratios).repeat(images)
        log_ratio = self.first + (self.last - self.first) * (strata + uniform) / ratios
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return Draws(x, noise.to(x.device), log_ratio.to(x.device), images)

    def errors(self, others: Iterable[Reading], draws: Draws) -> tuple[Tensor, dict[Reading, Tensor]]:
        """Return the squared error of the noise prediction at each draw, for the description and for other readings.

        Where the description gives no finite number, its error is infinite; other readings that give none are left out.

        Arguments:
            others: the other readings.
            draws: N draws.

        Returns:
            The errors of the description, shape (N,), float64, and the errors of each other reading, shape (N,), float64, NaN
            beyond its diffusion.
        """
        outputs: dict[Any, Tensor | None] = {}
        base = self._error(self.described, draws, outputs)
        base = torch.full_like(draws.log_ratio, torch.inf) if base is None else base.where(base.isfinite(), torch.inf)
        found = {}
        for other in others:
            error, is_there = self._error(other, draws, outputs), self._is_there(other, draws)
            if error is not None and error[is_there].isfinite().all():
                found[other] = error.where(is_there, torch.nan)
        return base, found

    def _error(self, reading: Reading, draws: Draws, outputs: dict[Any, Tensor | None]) -> Tensor | None:
        """Return the squared error of a reading at each draw, (N,), or ``None`` if the network fails; keep its output."""
        z, t = self._noisy(reading, draws)
        if reading.call not in outputs:
            outputs[reading.call] = self._output(reading, z, t)
        out = outputs[reading.call]
        if out is None:
            return None
        return squared_norm((read(reading.sign * out, reading.sde, reading.kind, z, t) - draws.noise).double())

    def _is_there(self, reading: Reading, draws: Draws) -> Tensor:
        """Return whether the diffusion of a reading has the ratio of each draw, (N,)."""
        first, last = _log_ratios(reading, self.eps)
        return (draws.log_ratio >= first) & (draws.log_ratio <= last)

    def _noisy(self, reading: Reading, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return noisy images in the scale of a reading, and their times."""
        t = _times(reading, draws.log_ratio).clamp(self.eps, T)
        x = draws.x if reading.centered else (draws.x + 1) / 2
        return perturb(reading.sde, x, t, draws.noise), t

    def _output(self, reading: Reading, z: Tensor, t: Tensor) -> Tensor | None:
        """Return the network's output, or ``None`` if it fails."""
        inputs = CONVENTIONS[reading.kind].inputs
        batches = zip(z.split(self.batch_size), t.split(self.batch_size), strict=True)
        # Called in another way, somebody's network may raise anything.
        try:
            found = torch.cat([output(self.network, reading.sde, inputs, *batch).detach() for batch in batches])
        except Exception:
            return None
        return found if found.shape == z.shape else None

    def ranks(self, base: Tensor, others: Mapping[Reading, Tensor], draws: Draws) -> dict[Reading, float]:
        """Return the gain of each reading over the ratios that all of their diffusions have, so that the gains can be compared.

        Arguments:
            base: errors of the description, shape (N,).
            others: errors of other readings, shape (N,) each, NaN beyond their diffusions.
            draws: the N draws.

        Returns:
            The mean gain over images in bits/dim, by reading.
        """
        has_all = torch.stack([base, *others.values()]).isnan().logical_not().all(0)
        return {
            other: float(self.gains(base.where(has_all, torch.nan), error, draws).mean())
            for other, error in others.items()
        }

    def gains(self, base: Tensor, other: Tensor, draws: Draws) -> Tensor:
        r"""Return by how much another reading is better than the description.

        .. math:: \Delta = \frac{\log\rho_T - \log\rho_\epsilon}{D \ln 2}
            \,\Big\langle \|\epsilon_\theta^{\text{described}} - \epsilon\|^2 - \|\epsilon_\theta - \epsilon\|^2 \Big\rangle

        with the mean over the draws of an image. A large error counts at most as :data:`MOST` times the error of an output of
        0, and a draw beyond either diffusion counts as no difference.

        Arguments:
            base: errors of the description, shape (N,).
            other: errors of the other reading, shape (N,), NaN beyond its diffusion.
            draws: the N draws of I images.

        Returns:
            The gain of each image in bits/dim, shape (I,), float64.
        """
        largest = MOST * squared_norm(draws.noise).double()
        difference = base.minimum(largest) - other.minimum(largest)
        mean = difference.nan_to_num(nan=0.0).reshape(draws.images, -1).mean(1)
        return (self.last - self.first) * mean / (draws.x[0].numel() * math.log(2))


def _log_ratios(reading: Reading, eps: float) -> tuple[float, float]:
    """Return the ends of the logarithm of a reading's ratios of noise to data in [-1, 1]."""
    ends = torch.tensor([eps, T], dtype=torch.float64)
    first, last = (-reading.sde.log_snr(ends) / 2 + _log_scale(reading)).tolist()
    return first, last


def _times(reading: Reading, log_ratio: Tensor) -> Tensor:
    """Return the times at which a reading has ratios of noise to data in [-1, 1], (N,) to (N,)."""
    end = torch.tensor(T, dtype=torch.float64)
    # A is the negative log-SNR, up to a constant.
    constant = reading.sde.antiderivative(end) + reading.sde.log_snr(end)
    return reading.sde.time(2 * (log_ratio - _log_scale(reading)) + constant)


def _log_scale(reading: Reading) -> float:
    """Return the logarithm of the scale of data in [-1, 1] over a reading's data."""
    return 0.0 if reading.centered else math.log(2)


def _late_share(error: Tensor, draws: Draws) -> float:
    """Return the error of late noise as a share of the error of an output of 0 as noise."""
    is_late = draws.log_ratio > math.log(LATE)
    return float(error[is_late].nanmean() / squared_norm(draws.noise)[is_late].mean())
