r"""The reading of a network that explains its outputs best, against its description and against no network.

All readings are tried on the same draws: images x, noise, and ratios :math:`\rho` of noise to data in [-1, 1], so that at each
draw all readings see the same noisy image, in their own scale and at their own time. By the error of its noise prediction, a
reading has the negative ELBO

.. math:: \frac12 \int \mathbb E\, \|\epsilon_\theta - \epsilon\|^2\, \mathrm d\log\rho^{-2} + \text{const},

whose constant depends neither on the network nor on the scale of the data, so that another reading is better by

.. math:: \Delta = \frac1{2 D \ln 2} \int \mathbb E \Big(\|\epsilon_\theta^{\text{described}} - \epsilon\|^2
    - \|\epsilon_\theta - \epsilon\|^2\Big)\, \mathrm d\log\rho^{-2}

bits/dim, over the ratios that both diffusions have. Huge errors are cut off, so that a few draws do not decide alone. Some
draws select readings, and other draws decide between the selected readings and the description, so that the selection does not
favour a reading by chance.

**Nulls.** A reading may predict noise whatever the network says: read as v, a network with the output 0 predicts
:math:`\sigma z`, which at late times is nearly the noise. The null of a reading is the same reading of an output of 0, or of the
output for another image with other noise, whichever is better. With the mean squared errors :math:`e` of a reading and
:math:`e_0` of its null at a ratio, and with :math:`D` for no prediction at all, the credit of another reading is

.. math:: \frac1{2 D \ln 2} \int \Big(\min(e_{\text{described}}, e_0, D) - \min(e, D)\Big)\, \mathrm d\log\rho^{-2} .

**Slack.** A network predicts the mean of what it was trained for, so that no factor of its output, no share of its input and no
constant improves its prediction. Read wrongly, its output may still tell of the noise, but in the wrong way: such a factor
helps. The slack of a reading is what they gain, in the unit of the credit, where the reading predicts any noise.

Another reading is named only if its credit is more than chance, and its slack a small share of it. The description is refused only
if another reading is named, and the description does not even beat its own null. No reading is named, and the report says so, if
the slack of the description exceeds its own credit, which is taken against its null alone.

**Looks.** The description is also read on the same images inverted, transposed and with reversed channels, by the same rules.
Such a reading is named, but no network is refused for it: other images than those of the training may be evaluated on purpose.

References:
    | Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630, equation 18
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import perturb, squared_norm
from indm.diffusion.sde import T
from indm.foreign.conventions import Called, output, read, second_inputs
from indm.foreign.readings import Ends, Reading, other_readings

# Images and ratios for the selection of readings, and for the decision.
SELECTING, DECIDING = (8, 8), (32, 16)
# Readings with equally many changes that are selected: two schedules may be nearly equal.
BEST = 2
# A better reading is better by so many bits/dim, and by so many standard errors over images.
SMALLEST, ERRORS = 0.03, 3.0
# Errors count at most as so many times the error of an output of 0, so that a few huge ones do not hide the others.
MOST = 10.0
# The slack of a reading that is named, as a share of what it is better than its null by.
MOST_SLACK = 0.25
UNEXPLAINED = (
    "No reading explains the network, better than an output of 0 and the output for another image do: it is untrained, or these "
    "data (their scale, the order of channels or axes) or its condition (time, labels, context) are not those of its training"
)


@dataclass(frozen=True)
class Gain:
    """A mean over images, and its standard error, in the unit of the comparison."""

    mean: float = -math.inf
    se: float = 0.0

    @classmethod
    def of(cls, images: Tensor) -> "Gain":
        """Return the mean and its error of a gain for each image, shape (I,)."""
        return cls(float(images.mean()), float(images.std() / len(images) ** 0.5))

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance."""
        return self.mean > max(SMALLEST, ERRORS * self.se)

    def times(self, factor: float) -> "Gain":
        """Return the gain in another unit."""
        return Gain(self.mean * factor, self.se * factor)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.se:.3f}"


@dataclass(frozen=True)
class Evidence:
    """What a network tells about noise by a reading.

    Arguments:
        credit: by how much the reading predicts noise better than its null, and than another reading if there is one.
        slack: what a factor of the output, a share of the input and a constant would add.
    """

    credit: Gain = Gain()
    slack: float = 0.0

    @property
    def is_tight(self) -> bool:
        """Whether the output is used as the output of a network that was trained for this reading."""
        return self.slack <= MOST_SLACK * self.credit.mean

    def times(self, factor: float) -> "Evidence":
        """Return the evidence in another unit."""
        return Evidence(self.credit.times(factor), self.slack * factor)


@dataclass(frozen=True)
class Comparison:
    """The description of a network against other readings of it, and against its null.

    Arguments:
        described: the description.
        tried: number of other readings.
        best: the reading that explains the network best, with the fewest changes; ``None`` if no other one explains it.
        gain: by how much its bound is lower than the bound of the description; negative if it is higher.
        other: what the network tells by this reading, beyond the description and its null.
        own: what the network tells by the description, beyond its null.
        unit: the unit of the gains, for words.
    """

    described: Reading
    tried: int
    best: Reading | None = None
    gain: Gain = Gain()
    other: Evidence = Evidence()
    own: Evidence = Evidence()
    unit: str = "bits/dim"

    @property
    def is_better(self) -> bool:
        """Whether another reading explains the network better, by more than chance and due to the network."""
        return self.best is not None and self.other.credit.is_clear and self.other.is_tight

    @property
    def is_explained(self) -> bool:
        """Whether the network tells more by the description than a factor, a share and a constant would add to it."""
        return self.own.slack <= max(SMALLEST, self.own.credit.mean)

    @property
    def is_refused(self) -> bool:
        """Whether the description explains nothing, although another reading of the same images does."""
        return self.is_better and not self.own.credit.is_clear and not self.is_of_other_images

    @property
    def is_of_other_images(self) -> bool:
        """Whether the best reading is of another look of the images: their owner may want them as they are."""
        return self.best is not None and self.best.view is not None

    def advantage(self) -> str:
        """Tell by how much the best reading is better: by its bound, or where that is bad at small noise, by its credit."""
        if self.gain.is_clear:
            return f"its bound is lower by {self.gain} {self.unit}"
        return f"it predicts noise better, by {self.other.credit} {self.unit} where it predicts any,"

    def words(self) -> str:
        """Describe the outcome in a sentence, if no other reading is better."""
        parts = "kinds, signs, ranges, diffusions, second arguments and looks of the images"
        words = f"Readings: none of {self.tried} other {parts} explains the network better"
        if self.best is None:
            return f"{words}."
        return f"{words}; the next best, {self.best.words(self.described)}, has {-self.gain.mean:+.3f} {self.unit}."

    def remedy(self) -> str:
        """Tell what to change in the description."""
        assert self.best is not None
        change = self.best.remedy(self.described)
        if self.best.sde != self.described.sde and self.best.changes(self.described) > 1:
            return f"its second argument may be on another scale than t from 0 to 1, so try `second` first; if none fits, {change}"
        return change

    def refusal(self) -> str:
        """Describe why the description is refused."""
        assert self.best is not None
        return (
            f"read as {self.described.kind}, it predicts noise no better than an output of 0 or the output for another image; read "
            f"as {self.best.words(self.described)}, better by {self.other.credit} {self.unit}; {self.remedy()}"
        )

    def in_nats(self) -> "Comparison":
        """Return the comparison in nats per dimension."""
        nats = math.log(2)
        other, own = self.other.times(nats), self.own.times(nats)
        return replace(self, gain=self.gain.times(nats), other=other, own=own, unit="nats/dim")


@dataclass(frozen=True)
class Draws:
    """I images, each with noise at K random ratios, the same for all readings.

    Arguments:
        x: the image of each draw, in [-1, 1] or as it is, shape (I K, *).
        noise: standard normal noise, shape (I K, *).
        log_ratio: logarithms of the ratios of noise to data, shape (I K,), float64.
        numbers: the number of the image of each draw, shape (I K,).
        images: number I of images; the draws of an image follow one another.
    """

    x: Tensor
    noise: Tensor
    log_ratio: Tensor
    numbers: Tensor
    images: int

    def by_image(self, values: Tensor) -> Tensor:
        """Return values of each draw, (I K,), as (I, K)."""
        return values.reshape(self.images, -1)

    def by_ratio(self, values: Tensor) -> Tensor:
        """Return values of each draw and dimension, (I K, *), as (K, I D), float64."""
        return values.double().reshape(self.images, -1, values[0].numel()).transpose(0, 1).flatten(1)

    @property
    def none(self) -> Tensor:
        """The squared error of no prediction, shape (I, K), float64."""
        return self.by_image(squared_norm(self.noise).double())


@dataclass(frozen=True)
class Errors:
    """Squared errors of the noise prediction of a reading, float64, NaN beyond its diffusion.

    Arguments:
        own: by the network's output, shape (I, K).
        null: by its null, which is the better one at each ratio, shape (I, K).
        fitted: by the best factor of the output, share of the input and constant at each ratio, the mean over images, shape (K,).
    """

    own: Tensor
    null: Tensor
    fitted: Tensor


def compare_readings(
    network: Called,
    described: Reading,
    eps: float,
    x: Tensor,
    batch_size: int,
    generator: Generator,
) -> Comparison:
    """Compare the description of a network with all other readings of it, and with its nulls.

    Arguments:
        network: the network.
        described: the description.
        eps: truncation time of all readings.
        x: dequantised images in [-1, 1], or data as they are if the description has no range, shape (N, *), N at least 2.
        batch_size: images evaluated at once.
        generator: source of all draws, on the CPU.

    Returns:
        The description against the best of the other readings.
    """
    trial = Trial(network, described, eps, batch_size)
    is_levels = described.ends is not None
    looks = (standardised(x), tuple(x.shape[1:])) if is_levels else (None, None)
    others = [*other_readings(described, x.device, *looks)]
    selected = _selected(trial, others, trial.draws(x, *SELECTING, generator))
    draws = trial.draws(x, *DECIDING, generator)
    base, found = trial.errors(selected, draws)
    own = trial.evidence(base, draws.none, draws)
    told = trial.told(base, found, draws)
    if not (ranks := trial.ranks(base, found, told, draws)):
        return Comparison(described, len(others), own=own)
    # A change that brings next to nothing is not a remedy.
    good = [other for other in ranks if ranks[other] >= max(ranks.values()) - SMALLEST]
    best = min(good, key=lambda other: (_cost(other, described), -ranks[other]))
    gain = trial.gain(base.own, found[best].own, draws)
    return Comparison(described, len(others), best, gain, told[best], own)


def standardised(x: Tensor) -> Ends:
    """Return the ends of the range of data in [-1, 1], any shape, once their mean is 0 and their standard deviation 1."""
    mean, std = float(x.double().mean()), max(float(x.double().std()), 1e-6)
    return round((-1 - mean) / std, 4), round((1 - mean) / std, 4)


def _selected(trial: "Trial", others: list[Reading], draws: Draws) -> list[Reading]:
    """Select the best readings with one change of the description, the best ones with two changes, and so on."""
    base, found = trial.errors(others, draws)
    ranks = trial.ranks(base, found, trial.told(base, found, draws), draws)
    best: dict[tuple[int, bool], list[Reading]] = {}
    for other in sorted(ranks, key=lambda other: -ranks[other]):
        best.setdefault(_cost(other, trial.described), []).append(other)
    return [other for others in best.values() for other in others[:BEST]]


def _cost(other: Reading, described: Reading) -> tuple[int, bool]:
    """Return how many parts of the description a reading changes, and whether the second argument, the last resort, is one."""
    return other.changes(described), other.second != described.second


class Trial:
    """Readings of one network on draws whose ratios are all those of the description.

    Arguments:
        network: the network.
        described: the description.
        eps: truncation time.
        batch_size: images evaluated at once.
    """

    def __init__(self, network: Called, described: Reading, eps: float, batch_size: int) -> None:
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
        numbers = torch.arange(images).repeat_interleave(ratios)
        x = x[:images].repeat_interleave(ratios, 0)
        uniform = torch.rand(len(x), generator=generator, dtype=torch.float64)
        strata = torch.arange(ratios).repeat(images)
        log_ratio = self.first + (self.last - self.first) * (strata + uniform) / ratios
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return Draws(x, noise.to(x.device), log_ratio.to(x.device), numbers, images)

    def errors(self, others: Iterable[Reading], draws: Draws) -> tuple[Errors, dict[Reading, Errors]]:
        """Return the errors of the description and of other readings.

        Where the description gives no finite number, its error is infinite; other readings that give none are left out.

        Arguments:
            others: the other readings.
            draws: the draws.

        Returns:
            The errors of the description, and of each other reading.
        """
        outputs: dict[Any, Tensor | None] = {}
        base, found = self._errors(self.described, draws, outputs), {}
        if base is None:
            base = self._without_numbers(draws)
        base = replace(base, own=base.own.where(base.own.isfinite(), torch.inf))
        for other in others:
            errors, is_there = self._errors(other, draws, outputs), self._is_there(other, draws)
            if errors is not None and errors.own[is_there].isfinite().all():
                own, null = (each.where(is_there, torch.nan) for each in (errors.own, errors.null))
                found[other] = replace(errors, own=own, null=null)
        return base, found

    @staticmethod
    def _without_numbers(draws: Draws) -> Errors:
        """Return the errors of a network that gives no numbers."""
        infinite = torch.full_like(draws.by_image(draws.log_ratio), torch.inf)
        return Errors(infinite, infinite, infinite[0])

    def _errors(self, reading: Reading, draws: Draws, outputs: dict[Any, Tensor | None]) -> Errors | None:
        """Return the errors of a reading, or ``None`` if the network fails; keep its output."""
        z, t = self._noisy(reading, draws)
        if reading.call not in outputs:
            outputs[reading.call] = self._output(reading, z, t, draws.numbers)
        if (out := outputs[reading.call]) is None:
            return None
        # The draws of an image follow one another: the next image has the same strata.
        tried = (out, torch.zeros_like(out), out.roll(len(out) // draws.images, 0))
        own, zero, another = (read(reading.sign * each, reading.sde, reading.kind, z, t) for each in tried)
        left, of_zero, of_another = (
            draws.by_image(squared_norm((one - draws.noise).double())) for one in (own, zero, another)
        )
        null = torch.where(of_zero.mean(0) <= of_another.mean(0), of_zero, of_another)
        return Errors(left, null, _fitted(draws.noise - own, (own - zero, z), draws))

    def _is_there(self, reading: Reading, draws: Draws) -> Tensor:
        """Return whether the diffusion of a reading has the ratio of each draw, (I, K)."""
        first, last = _log_ratios(reading, self.eps)
        return draws.by_image((draws.log_ratio >= first) & (draws.log_ratio <= last))

    def _noisy(self, reading: Reading, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return noisy images in the scale of a reading, and their times."""
        t = _times(reading, draws.log_ratio).clamp(self.eps, T)
        return perturb(reading.sde, reading.scaled(draws.x), t, draws.noise), t

    def _output(self, reading: Reading, z: Tensor, t: Tensor, numbers: Tensor) -> Tensor | None:
        """Return the network's output, or ``None`` if it fails."""
        inputs = second_inputs(reading.kind, reading.second)
        batches = zip(*(each.split(self.batch_size) for each in (numbers, z, t)), strict=True)
        # Called in another way, somebody's network may raise anything.
        try:
            parts = [output(self.network.of(part), reading.sde, inputs, *batch).detach() for part, *batch in batches]
            found = torch.cat(parts)
        except Exception:
            return None
        return found if found.shape == z.shape else None

    def evidence(self, errors: Errors, reference: Tensor, draws: Draws) -> Evidence:
        """Return what the network adds to a reading, over errors for comparison, (I, K), and over its null."""
        own, null = (_at_most(each, draws.none) for each in (errors.own, errors.null))
        slack = (own.mean(0) - errors.fitted.minimum(draws.none.mean(0)))[None]
        return Evidence(self.gain(_at_most(reference, null), own, draws), self.gain(slack, 0 * slack, draws).mean)

    def told(self, base: Errors, others: Mapping[Reading, Errors], draws: Draws) -> dict[Reading, Evidence]:
        """Return what the network tells by each reading beyond the description, if it is used as the reading uses it."""
        found = {other: self.evidence(errors, base.own, draws) for other, errors in others.items()}
        return {other: evidence for other, evidence in found.items() if evidence.is_tight}

    def ranks(
        self, base: Errors, others: Mapping[Reading, Errors], told: Mapping[Reading, Evidence], draws: Draws
    ) -> dict[Reading, float]:
        """Return how good readings are, by their gain over the ratios that all of their diffusions have, and by their slack.

        Arguments:
            base: errors of the description.
            others: errors of other readings.
            told: what the network tells by those that are ranked.
            draws: the draws.

        Returns:
            The mean gain over images, where a reading predicts any noise, minus the slack, in bits/dim, by reading.
        """
        errors = {other: others[other].own for other in told}
        has_all = torch.stack([base.own, *errors.values()]).isnan().logical_not().all(0)
        shared = _at_most(base.own, draws.none).where(has_all, torch.nan)
        gains = {other: self.gain(shared, _at_most(own, draws.none), draws).mean for other, own in errors.items()}
        return {other: gain - told[other].slack for other, gain in gains.items()}

    def gain(self, base: Tensor, other: Tensor, draws: Draws) -> Gain:
        r"""Return by how much smaller errors lower the bound, in bits/dim.

        .. math:: \Delta = \frac{\log\rho_T - \log\rho_\epsilon}{D \ln 2} \,\Big\langle e_{\text{base}} - e \Big\rangle

        with the mean over the draws of an image. A large error counts at most as :data:`MOST` times the error of an output of
        0, and a draw beyond either diffusion counts as no difference.

        Arguments:
            base: larger errors, shape (I, K).
            other: smaller errors, shape (I, K), NaN beyond their diffusion.
            draws: the draws.
        """
        largest = MOST * draws.none
        difference = base.minimum(largest) - other.minimum(largest)
        mean = difference.nan_to_num(nan=0.0).mean(1)
        return Gain.of((self.last - self.first) * mean / (draws.x[0].numel() * math.log(2)))


def _at_most(errors: Tensor, others: Tensor) -> Tensor:
    """Return errors, and at ratios at which others are smaller in the mean over images, these; (I, K)."""
    return torch.where(errors.nanmean(0) <= others.nanmean(0), errors, others).where(
        errors.isfinite() | errors.isinf(), torch.nan
    )


def _fitted(left: Tensor, regressors: tuple[Tensor, ...], draws: Draws) -> Tensor:
    """Return what is left of the noise after the least squares of regressors and a constant at each ratio.

    Arguments:
        left: what a prediction leaves of the noise, shape (I K, *).
        regressors: each of the shape (I K, *).
        draws: the draws.

    Returns:
        The mean of squared norms over images, shape (K,), float64; for as many numbers as coefficients, infinite.
    """
    each = [draws.by_ratio(one) for one in (left, *regressors, torch.ones_like(left))]
    products = torch.stack([torch.stack([(a * b).mean(1) for a in each]) for b in each]).permute(2, 0, 1)
    # In the unit of each regressor, and without those that are 0 or not finite.
    size = products.diagonal(dim1=1, dim2=2)[:, 1:].sqrt()
    factor = torch.where((size > 0) & size.isfinite(), 1 / size, 0)
    cross = torch.einsum("ka,ka->ka", products[:, 0, 1:], factor).nan_to_num(0, 0, 0)
    square = torch.einsum("kab,ka,kb->kab", products[:, 1:, 1:], factor, factor).nan_to_num(0, 0, 0)
    gained = torch.einsum("ka,kab,kb->k", cross, torch.linalg.pinv(square, rtol=1e-9, hermitian=True), cross)
    count, dims = each[0].shape[1], left[0].numel()
    # Coefficients fit by chance, too; twice their number, so that chance makes no slack.
    return dims * (products[:, 0, 0] - gained).clamp(min=0) * count / max(count - 2 * (len(each) - 1), 1)


def _log_ratios(reading: Reading, eps: float) -> tuple[float, float]:
    """Return the ends of the logarithm of a reading's ratios of noise to data in [-1, 1]."""
    ends = torch.tensor([eps, T], dtype=torch.float64)
    first, last = (-reading.sde.log_snr(ends) / 2 - math.log(reading.width)).tolist()
    return first, last


def _times(reading: Reading, log_ratio: Tensor) -> Tensor:
    """Return the times at which a reading has ratios of noise to data in [-1, 1], (N,) to (N,)."""
    end = torch.tensor(T, dtype=torch.float64)
    # A is the negative log-SNR, up to a constant.
    constant = reading.sde.antiderivative(end) + reading.sde.log_snr(end)
    return reading.sde.time(2 * (log_ratio + math.log(reading.width)) + constant)
