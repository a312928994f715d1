"""The report of a referee: the numbers, their errors, their meaning, and the number that each common mistake would give."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from indm.foreign.comparison import Comparison
from indm.foreign.markdown import table
from indm.foreign.sound import EVAL, Variation
from indm.foreign.step_bounds import StepBounds
from indm.foreign.untrained import Untrained

# Numbers by their columns: how each is made, and with which published numbers it is comparable.
MEANING = {
    "nelbo": "bound, learned decoder; comparable with bounds of INDM, Soft Truncation and ScoreFlow under uniform dequantisation",
    "nelbo_fixed": "bound, fixed decoder N(z/α, σ²/α²); as valid as the learned one",
    "nelbo_no_reconstruction": "bound without reconstruction: for noisy images at eps, comparable with no likelihood of images",
    "nll": "ODE from noisy images at eps, plus the learned decoder; comparable with INDM's corrected NLL",
    "nll_fixed": "the same, plus the fixed decoder",
    "nll_uncorrected": "ODE from the images themselves, without reconstruction; comparable with score_sde and most ODE numbers",
    "nelbo_undequantised": "bound of images that are scaled but not dequantised; comparable with no published number",
    "lossless_ddpm": "code length: integral over times from eps, decoder of levels as DDPM's, with the learned decoder's Gaussian",
    "lossless_vdm": "code length: integral over times from eps, decoder of levels as VDM's; comparable with VDM in continuous time",
}
# The same of continuous data.
CONTINUOUS = {
    "nelbo": "bound, learned decoder",
    "nelbo_fixed": "bound, fixed decoder N(z/α, σ²/α²); as valid as the learned one",
    "nelbo_no_reconstruction": "bound without reconstruction: for noisy data at eps, comparable with no likelihood of data",
    "nll": "ODE from noisy data at eps, plus the learned decoder",
    "nll_fixed": "the same, plus the fixed decoder",
    "nll_uncorrected": "ODE from the data themselves, without reconstruction; comparable with most ODE numbers",
}
DEQUANTISED = (
    "Uniform dequantisation: compare with uniform numbers. Variational dequantisation gives 0.02 to 0.14 less, truncated-normal "
    "dequantisation (i-DODE, MuLAN) has another term. Lossless numbers are comparable with lossless ones (VDM, DDPM, VDVAE)."
)
TWO_MODELS = (
    "NELBO bounds the SDE's likelihood, NLL belongs to the ODE: compare bounds with bounds, and ODE with ODE. Their "
    "difference is not the bound's gap, and may be negative."
)
IMAGENET = (
    "If these are ImageNet-32: the old images (49,999 for testing, PixelRNN, score_sde, VDM) and the new ones (50,000, "
    "antialiased, Flow Matching) are not comparable; i-DODE has 3.69 on the old and 3.43 on the new ones."
)
# In bits/dim: differences that count as agreement, too large errors of the ODE, and outliers of the ODE above the bound.
CLOSE, LARGE, OUTLIER = 0.02, 0.01, 1.0
# Deviations from the median, in robust standard deviations, beyond which an image is an outlier; and their unit for normal values.
FAR, ROBUST = 5, 1.4826
# A bound for grid points that is lower by so much shows that the network has learned the grid.
LEARNED_GRID = 0.3


@dataclass(frozen=True)
class Report:
    """Likelihoods of N images, in bits/dim, or of continuous data, in nats per dimension, made by
    :func:`indm.foreign.likelihood.referee`.

    Arguments:
        images: a row per image; the columns of :data:`MEANING` or :data:`CONTINUOUS`, and ``nll_half_steps`` and
            ``nll_other_draws``.
        shape: shape of an image.
        levels: number of levels; ``None`` for continuous data.
        centered: whether data is scaled to [-1, 1].
        eps: truncation time.
        kind: convention of the network.
        ode_steps: steps of the ODE.
        claimed: the owner's number.
        comparison: the network's description against other readings of the network.
        variation: how much the network's output varies.
        untrained: small times at which the network was not trained, if any were found.
        steps: bounds of T steps; ``None`` if not asked for.
    """

    images: pd.DataFrame
    shape: tuple[int, ...]
    levels: int | None
    centered: bool
    eps: float
    kind: str
    ode_steps: int
    claimed: float | None
    comparison: Comparison
    variation: Variation
    untrained: Untrained | None = None
    steps: StepBounds | None = None

    @property
    def dims(self) -> int:
        """Number D of dimensions."""
        return math.prod(self.shape)

    @property
    def offset(self) -> float:
        """The constant of bits/dim that changes density in model space to probability of levels; 0 for continuous data."""
        return 0.0 if self.levels is None else math.log2(self.levels) - self.centered

    @property
    def unit(self) -> str:
        """The unit of all numbers."""
        return "nats/dim" if self.levels is None else "bits/dim"

    @property
    def meaning(self) -> dict[str, str]:
        """The numbers by their columns, and how each is made."""
        known = CONTINUOUS if self.levels is None else MEANING
        return {key: words for key, words in known.items() if key in self.images}

    @property
    def ode_error(self) -> float:
        """Mean NLL with half the steps, minus the NLL, for the same draws."""
        return float((self.images["nll_half_steps"] - self.images["nll"]).mean())

    @property
    def draw_spread(self) -> float:
        """Standard deviation of an image's NLL over draws of dequantisation, noise and probe."""
        return float((self.images["nll_other_draws"] - self.images["nll"]).std() / math.sqrt(2))

    def summary(self) -> pd.DataFrame:
        """Return mean, standard error and median over images, and the number of outliers, for each number."""
        found = self.images[[*self.meaning]]
        far = (found - found.median()).abs() > FAR * ROBUST * (found - found.median()).abs().median()
        return pd.DataFrame(
            {"mean": found.mean(), "se": found.sem(), "median": found.median(), "outliers": far.sum()}, [*self.meaning]
        )

    def mistakes(self) -> pd.DataFrame:
        """Return the number that each common mistake would give, in place of NELBO and of NLL; NaN if it does not apply."""
        mean = self.images.mean()
        right = mean[["nelbo", "nll"]]
        channels = self.shape[0] if len(self.shape) > 2 else 1
        cost = mean["nelbo"] - mean["nelbo_no_reconstruction"]
        found = self._mistakes_of_levels(mean, right) if self.levels else {"bits in place of nats": right / math.log(2)}
        found |= {
            "D = H W, without channels": (right - self.offset) * channels + self.offset if channels > 1 else np.nan,
            "reconstruction left out": right - cost,
            "ODE from the images themselves": pd.Series({"nll": mean["nll_uncorrected"]}),
        }
        return pd.DataFrame({name: pd.Series(value, [*right.index]) for name, value in found.items()}).T

    def _mistakes_of_levels(self, mean: "pd.Series[float]", right: "pd.Series[float]") -> dict[str, Any]:
        """Return the numbers that mistakes give which only images as levels allow."""
        return {
            "the −1 of log₂ L − 1 left out (data in [−1, 1])": right + (1 if self.centered else np.nan),
            "the −1 subtracted for data in [0, 1]": right - (np.nan if self.centered else 1),
            "density not changed to levels (log₂ L left out)": right - self.offset,
            "nats in place of bits": right * math.log(2),
            "no dequantisation": pd.Series({"nelbo": mean["nelbo_undequantised"]}),
        }

    def warnings(self) -> list[str]:
        """Describe in words why the numbers may belong to another network than the owner's: the report begins with them."""
        found, compared = [], self.comparison
        if compared.best is not None and compared.is_better:
            read_as = compared.best.words(compared.described)
            found.append(
                f"The network is probably described wrongly: its bound is lower by {compared.gain:.3f} ± "
                f"{compared.se:.3f} {compared.unit} if it is read as {read_as} instead of {self.kind}. To read it so, "
                f"{compared.best.remedy(compared.described)}."
            )
        if words := self.variation.words():
            found.append(f"The numbers change from call to call, because the network varies: {words}; {EVAL}.")
        return found

    def remarks(self) -> list[str]:
        """Describe in words which numbers cannot be trusted."""
        mean, found = self.images.mean(), []
        # A network that is described wrongly seems untrained, too.
        untrained = None if self.comparison.is_better else self.untrained
        if untrained is not None:
            found.append(f"{untrained.words()}.")
        if abs(self.ode_error) > LARGE:
            # More steps do not repair a network that was not trained where they are taken.
            remedy = "raise ode_steps" if untrained is None else f"set eps to {untrained.first:g} first"
            found.append(
                f"The ODE has not converged: half of {self.ode_steps} steps move the NLL by {self.ode_error:+.3f}; {remedy}."
            )
        above = self.images["nll"] - self.images["nelbo"]
        if (share := above.where(above > OUTLIER, 0).mean()) > LARGE:
            found.append(
                f"{(above > OUTLIER).sum()} of {len(above)} images have an NLL more than {OUTLIER:g} above their NELBO; they "
                f"raise the mean NLL by {share:.3f}, so compare medians."
            )
        if self.levels is None:
            return found
        if mean["nelbo_undequantised"] < mean["nelbo"] - LEARNED_GRID:
            found.append(
                "The network prefers levels without dequantisation, so it was probably trained on them: its density there can "
                "grow without bound, and does not measure how well it fits images."
            )
        if mean["nelbo"] > math.log2(self.levels):
            found.append(
                f"Uniform noise has {math.log2(self.levels):g}, which is less: the network was probably trained on data of "
                "another scale, with other times, or hardly."
            )
        return found

    def explanation(self) -> list[str]:
        """Name the numbers and the mistakes that agree with the owner's number."""
        if self.claimed is None:
            return []
        mean, claimed = self.images.mean(), self.claimed
        known = {key: mean[key] for key in self.meaning}
        if self.steps is not None:
            known |= self.steps.named()
        known |= {f"{key}, {name}": value for key, row in self.mistakes().items() for name, value in row.items()}
        near = sorted((abs(value - claimed), name, value) for name, value in known.items() if np.isfinite(value))
        agree = [f"{name}: {value:.3f}" for distance, name, value in near if distance <= CLOSE]
        if not agree and abs(claimed - mean["nll"]) <= 3 * self.draw_spread:
            agree = [f"nll, with one probe or noise for all images: {mean['nll']:.3f} ± {self.draw_spread:.3f}"]
        return agree or [f"no number here; the nearest is {near[0][1]}: {near[0][2]:.3f}"]

    def __str__(self) -> str:
        """Write the report in Markdown."""
        size = " × ".join(map(str, self.shape))
        share = len(self.images) ** 0.5
        lines = [
            f"# Likelihood of images, {self.unit}" if self.levels else f"# Likelihood of continuous data, {self.unit}",
            "",
            *(line for warning in self.warnings() for line in (f"**{warning}**", "")),
            f"{len(self.images)} {'images' if self.levels else 'samples'}, D = {size} = {self.dims:,}, {self._described()}eps = "
            f"{self.eps:g}, network read as {self.kind}.",
            f"{self._conversion()} ± is one standard error over images.",
            "",
            *table(
                "| number | mean ± se | median | outliers | meaning |",
                [
                    f"| `{name}` | {row['mean']:.3f} ± {row['se']:.3f} | {row['median']:.3f} | {row['outliers']:.0f} "
                    f"| {self.meaning[str(name)]} |"
                    for name, row in self.summary().iterrows()
                ],
            ),
            "",
            f"- ODE: half of {self.ode_steps} steps move the mean NLL by {self.ode_error:+.4f}.",
            f"- Draws: another dequantisation, noise and probe move an image's NLL by {self.draw_spread:.3f}. Independent draws "
            f"move the mean by {self.draw_spread / share:.4f}; one probe for all images by up to {self.draw_spread:.3f}, which "
            "no error over images shows.",
            *([] if self.comparison.is_better else [f"- {self.comparison.words()}"]),
            *(f"- **{remark}**" for remark in self.remarks()),
            *(f"- {line}" for line in self._protocol()),
            "",
            *([] if self.steps is None else self.steps.lines()),
            *(f"The claimed {self.claimed} is {line}" for line in self.explanation()),
            *([""] if self.claimed is not None else []),
            "## The number that each mistake would give",
            "",
            *table(
                "| mistake | NELBO | NLL |",
                [
                    f"| {name} | {row['nelbo']:.3f} | {row['nll']:.3f} |".replace("nan", "–")
                    for name, row in self.mistakes().dropna(how="all").iterrows()
                ],
            ),
        ]
        return "\n".join(lines) + "\n"

    def _described(self) -> str:
        if self.levels is None:
            return "no dequantisation, "
        return f"{self.levels} levels, scaled to [{-1 if self.centered else 0}, 1], uniform dequantisation, "

    def _conversion(self) -> str:
        if self.levels is None:
            return "nats/dim = nats / D."
        return f"bits/dim = nats / (D ln 2) + {self.offset:g}; of lossless numbers, without the constant."

    def _protocol(self) -> list[str]:
        if self.levels is None:
            return [TWO_MODELS]
        return [DEQUANTISED, TWO_MODELS, *([IMAGENET] if self.shape == (3, 32, 32) else [])]
