"""The report of a referee: the numbers, their errors, their meaning, and the number that each common mistake would give."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from indm.foreign.comparison import UNEXPLAINED, Comparison
from indm.foreign.markdown import table
from indm.foreign.numbers import Columns
from indm.foreign.settings import DataRange
from indm.foreign.sound import EVAL, Variation
from indm.foreign.step_bounds import StepBounds
from indm.foreign.untrained import Untrained

if TYPE_CHECKING:
    import pandas as pd

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
# What no reading can see, and what it moved the NELBO of small networks for digits by, in bits/dim: benchmarks/planted.py, whose
# numbers a test compares with these.
UNSEEN: dict[str, float] = {
    "17 levels given as 18": -0.017,
    "a network's time 1 of 1000 steps off": -0.001,
    "a network's time 10 of 1000 steps off": 0.0,
    "β up to 15 for 20": -0.036,
    "last weights for averaged ones": -0.028,
}
# In bits/dim: differences that count as agreement at least, too large errors of the ODE, and outliers of the ODE above the bound.
CLOSE, LARGE, OUTLIER = 0.02, 0.01, 1.0
# Deviations from the median, in robust standard deviations, beyond which an image is an outlier; and their unit for normal values.
FAR, ROBUST = 5, 1.4826
# Differences that count as agreement, in total errors.
AGREE = 2.0
# A bound for grid points that is lower by so much shows that the network has learned the grid.
LEARNED_GRID = 0.3


class Error(NamedTuple):
    """The error of a mean over N images, in the unit of the report.

    Arguments:
        images: one standard error over images, which includes their own draws.
        draws: the part of it that comes from the draws of dequantisation, noise and probe.
        ode: by how much the mean moves with half of the ODE's steps; 0 for a bound.
    """

    images: float
    draws: float
    ode: float

    @property
    def total(self) -> float:
        """The root of the sum of squares of the error over images and the error of the ODE."""
        return math.hypot(self.images, self.ode)

    def halved_by(self, count: int) -> int | None:
        """Return how many images would halve the total, at equal ODE steps; ``None`` if none would, because of the ODE."""
        rest = (self.total / 2) ** 2 - self.ode**2
        return math.ceil(count * self.images**2 / rest) if rest > 0 else None


@dataclass(frozen=True)
class Report:
    """Likelihoods of N images, in bits/dim, or of continuous data, in nats per dimension, made by
    :func:`indm.foreign.likelihood.referee`.

    Arguments:
        columns: numbers of each image by the names in :data:`MEANING` or :data:`CONTINUOUS`, ``nll_half_steps``,
            ``nll_uncorrected_half_steps`` and ``nll_other_draws``, shape (N,) each.
        shape: shape of an image.
        levels: number of levels; ``None`` for continuous data.
        data_range: both ends to which levels are scaled; ``None`` for continuous data.
        offset: the constant of bits/dim that changes density in model space to probability of levels; 0 for continuous data.
        eps: truncation time.
        kind: convention of the network.
        ode_steps: steps of the ODE.
        claimed: the owner's number.
        comparison: the network's description against other readings of the network.
        variation: how much the network's output varies.
        untrained: small times at which the network was not trained, if any were found.
        steps: bounds of T steps; ``None`` if not asked for.
        provenance: arguments, versions of packages, and shape and hash of the images.
    """

    columns: Columns = field(repr=False)
    shape: tuple[int, ...]
    levels: int | None
    data_range: DataRange | None
    offset: float
    eps: float
    kind: str
    ode_steps: int
    claimed: float | None
    comparison: Comparison
    variation: Variation
    untrained: Untrained | None = None
    steps: StepBounds | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def images(self) -> "pd.DataFrame":
        """All columns as a table of pandas, a row for each image."""
        # Numbers and report do without pandas.
        import pandas as pd

        return pd.DataFrame(self.columns)

    @property
    def count(self) -> int:
        """Number N of images."""
        return len(self.columns["nelbo"])

    @property
    def centered(self) -> bool:
        """Whether levels are scaled to [-1, 1]."""
        return self.data_range == (-1.0, 1.0)

    @property
    def dims(self) -> int:
        """Number D of dimensions."""
        return math.prod(self.shape)

    @property
    def unit(self) -> str:
        """The unit of all numbers."""
        return "nats/dim" if self.levels is None else "bits/dim"

    @property
    def meaning(self) -> dict[str, str]:
        """The numbers by their columns, and how each is made."""
        known = CONTINUOUS if self.levels is None else MEANING
        return {key: words for key, words in known.items() if key in self.columns}

    @property
    def status(self) -> str:
        """``ok``; or ``warned`` if the network is probably described wrongly, or a number cannot be used as it is."""
        return "warned" if self.warnings() or self.remarks() else "ok"

    def mean(self, name: str) -> float:
        """Return the mean of a column."""
        return float(self.columns[name].mean())

    @property
    def ode_error(self) -> float:
        """Mean NLL with half the steps, minus the NLL, for the same draws."""
        return self._ode_error("nll")

    def _ode_error(self, name: str) -> float:
        """Return the mean of a number with half of the ODE's steps, minus the number; 0 for a bound."""
        of_ode = {"nll": "nll", "nll_fixed": "nll", "nll_uncorrected": "nll_uncorrected"}.get(name)
        return 0.0 if of_ode is None else self.mean(f"{of_ode}_half_steps") - self.mean(of_ode)

    def error(self, name: str) -> Error:
        """Return the error of the mean of a number."""
        share = self.draw_spread / self.count**0.5 if name.startswith("nll") else math.nan
        return Error(float(self.columns[name].std(ddof=1) / self.count**0.5), share, abs(self._ode_error(name)))

    @property
    def draw_spread(self) -> float:
        """Standard deviation of an image's NLL over draws of dequantisation, noise and probe."""
        return float((self.columns["nll_other_draws"] - self.columns["nll"]).std(ddof=1) / math.sqrt(2))

    def statistics(self) -> dict[str, dict[str, float]]:
        """Return mean, standard error, total error and median over images, and the number of outliers, for each number."""
        found = {}
        for name in self.meaning:
            values, error = self.columns[name], self.error(name)
            apart = np.abs(values - np.median(values))
            found[name] = {
                "mean": self.mean(name),
                "se": error.images,
                "total": error.total,
                "median": float(np.median(values)),
                "outliers": int((apart > FAR * ROBUST * np.median(apart)).sum()),
            }
        return found

    def summary(self) -> "pd.DataFrame":
        """Return :meth:`statistics` as a table of pandas, a row for each number."""
        import pandas as pd

        return pd.DataFrame(self.statistics()).T

    def mistakes(self) -> dict[str, dict[str, float]]:
        """Return the number that each common mistake would give, in place of NELBO and of NLL, where it applies."""
        right = {name: self.mean(name) for name in ("nelbo", "nll")}
        channels = self.shape[0] if len(self.shape) > 2 else 1
        cost = right["nelbo"] - self.mean("nelbo_no_reconstruction")
        if self.levels:
            found = self._mistakes_of_levels(right)
        else:
            found = {"bits in place of nats": {name: value / math.log(2) for name, value in right.items()}}
        if channels > 1:
            found["D = H W, without channels"] = {
                name: (value - self.offset) * channels + self.offset for name, value in right.items()
            }
        found["reconstruction left out"] = {name: value - cost for name, value in right.items()}
        return found | {"ODE from the images themselves": {"nll": self.mean("nll_uncorrected")}}

    def _mistakes_of_levels(self, right: dict[str, float]) -> dict[str, dict[str, float]]:
        """Return the numbers that mistakes give which only images as levels allow."""
        found = {}
        if self.centered:
            found["the −1 of log₂ L − 1 left out (data in [−1, 1])"] = {
                name: value + 1 for name, value in right.items()
            }
        elif self.data_range == (0.0, 1.0):
            found["the −1 subtracted for data in [0, 1]"] = {name: value - 1 for name, value in right.items()}
        return found | {
            "density not changed to levels (log₂ L left out)": {
                name: value - self.offset for name, value in right.items()
            },
            "nats in place of bits": {name: value * math.log(2) for name, value in right.items()},
            "no dequantisation": {"nelbo": self.mean("nelbo_undequantised")},
        }

    def warnings(self) -> list[str]:
        """Describe in words why the numbers may belong to another network than the owner's: the report begins with them."""
        found, compared = [], self.comparison
        if compared.best is not None and compared.best.view is not None and compared.is_better:
            found.append(
                f"The images probably look otherwise than those of the network's training: {compared.advantage()} for "
                f"{compared.best.view.words}. To evaluate those, {compared.remedy()}."
            )
        elif compared.best is not None and compared.is_better:
            read_as = compared.best.words(compared.described)
            found.append(
                f"The network is probably described wrongly: {compared.advantage()} if it is read as {read_as} instead of "
                f"{self.kind}. To read it so, {compared.remedy()}."
            )
        elif not compared.is_explained:
            found.append(f"{UNEXPLAINED}.")
        if words := self.variation.words():
            found.append(f"The numbers change from call to call, because the network varies: {words}; {EVAL}.")
        return found

    def remarks(self) -> list[str]:
        """Describe in words which numbers cannot be trusted."""
        found = []
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
        elif abs(error := self._ode_error("nll_uncorrected")) > LARGE:
            found.append(
                f"The ODE from the images themselves has not converged: half of {self.ode_steps} steps move `nll_uncorrected` by "
                f"{error:+.3f}; raise ode_steps."
            )
        above = self.columns["nll"] - self.columns["nelbo"]
        if (share := np.where(above > OUTLIER, above, 0).mean()) > LARGE:
            found.append(
                f"{(above > OUTLIER).sum()} of {len(above)} images have an NLL more than {OUTLIER:g} above their NELBO; they "
                f"raise the mean NLL by {share:.3f}, so compare medians."
            )
        if self.levels is None:
            return found
        if self.mean("nelbo_undequantised") < self.mean("nelbo") - LEARNED_GRID:
            found.append(
                "The network prefers levels without dequantisation, so it was probably trained on them: its density there can "
                "grow without bound, and does not measure how well it fits images."
            )
        if self.mean("nelbo") > math.log2(self.levels):
            found.append(
                f"Uniform noise has {math.log2(self.levels):g}, which is less: the network was probably trained on data of "
                "another scale, with other times, or hardly."
            )
        return found

    def explanation(self) -> list[str]:
        """Name the numbers and the mistakes that agree with the owner's number."""
        if self.claimed is None:
            return []
        claimed = self.claimed
        known = {key: self.mean(key) for key in self.meaning}
        if self.steps is not None:
            known |= self.steps.named()
        known |= {f"{key}, {name}": value for key, row in self.mistakes().items() for name, value in row.items()}
        near = sorted((abs(value - claimed), name, value) for name, value in known.items() if np.isfinite(value))
        # All of them share the images, and most of them the draws.
        close = max(CLOSE, AGREE * max(self.error(name).total for name in ("nelbo", "nll")))
        agree = [f"{name}: {value:.3f}, within {close:.3f}" for distance, name, value in near if distance <= close]
        if not agree and abs(claimed - self.mean("nll")) <= 3 * self.draw_spread:
            agree = [f"nll, with one probe or noise for all images: {self.mean('nll'):.3f} ± {self.draw_spread:.3f}"]
        return agree or [f"no number here; the nearest is {near[0][1]}: {near[0][2]:.3f}"]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, words and arguments, as JSON can hold them.

        Returns:
            ``status``, ``warnings``, ``remarks``; ``unit``, ``numbers`` (mean, errors and median of each), ``ode_error``,
            ``draw_spread``, ``mistakes``, ``explanation``; ``reading``, ``unseen``; ``steps``; ``arguments``, ``images`` (shape,
            hash), ``versions``; ``each``, the numbers of each image.
        """
        best = self.comparison.best
        reading = {
            "described": self.comparison.described.words(self.comparison.described),
            "tried": self.comparison.tried,
            "best": None if best is None else best.words(self.comparison.described),
            "gain": self.comparison.gain.mean,
            "gain_se": self.comparison.gain.se,
            "remedy": self.comparison.remedy() if self.comparison.is_better else None,
            "is_explained": self.comparison.is_explained,
        }
        found = {
            "status": self.status,
            "warnings": self.warnings(),
            "remarks": self.remarks(),
            "unit": self.unit,
            "numbers": self.statistics(),
            "ode_error": {name: self._ode_error(name) for name in ("nll", "nll_uncorrected")},
            "draw_spread": self.draw_spread,
            "mistakes": self.mistakes(),
            "explanation": self.explanation(),
            "reading": reading,
            "unseen": UNSEEN,
            "steps": None if self.steps is None else {"count": self.steps.count, **self.steps.means()},
            **self.provenance,
            "each": {key: [float(value) for value in values] for key, values in self.columns.items()},
        }
        return _plain(found)

    def to_json(self) -> str:
        """Write :meth:`to_dict` as JSON; numbers that are not finite are null."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def __str__(self) -> str:
        """Write the report in Markdown."""
        size = " × ".join(map(str, self.shape))
        share = self.count**0.5
        lines = [
            f"# Likelihood of images, {self.unit}" if self.levels else f"# Likelihood of continuous data, {self.unit}",
            "",
            *(line for warning in self.warnings() for line in (f"**{warning}**", "")),
            f"{self.count} {'images' if self.levels else 'samples'}, D = {size} = {self.dims:,}, {self._described()}eps = "
            f"{self.eps:g}, network read as {self.kind}.",
            f"{self._conversion()} ± is the error of the mean: over images, and of the ODE.",
            "",
            *table(
                "| number | mean ± se | median | outliers | meaning |",
                [
                    f"| `{name}` | {row['mean']:.3f} ± {row['total']:.3f} | {row['median']:.3f} | {row['outliers']:.0f} "
                    f"| {self.meaning[name]} |"
                    for name, row in self.statistics().items()
                ],
            ),
            "",
            self._errors(),
            f"- ODE: half of {self.ode_steps} steps move the mean NLL by {self.ode_error:+.4f}, and `nll_uncorrected` by "
            f"{self._ode_error('nll_uncorrected'):+.4f}.",
            f"- Draws: another dequantisation, noise and probe move an image's NLL by {self.draw_spread:.3f}. Independent draws "
            f"move the mean by {self.draw_spread / share:.4f}; one probe for all images by up to {self.draw_spread:.3f}, which "
            "no error over images shows.",
            *([] if self.comparison.is_better else [f"- {self.comparison.words()}"]),
            *self._unseen(),
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
                    f"| {name} | {row.get('nelbo', math.nan):.3f} | {row.get('nll', math.nan):.3f} |".replace(
                        "nan", "–"
                    )
                    for name, row in self.mistakes().items()
                ],
            ),
        ]
        return "\n".join(lines) + "\n"

    def _described(self) -> str:
        if self.levels is None:
            return "no dequantisation, "
        low, high = self.data_range or (0, 1)
        return f"{self.levels} levels, scaled to [{_end(low)}, {_end(high)}], uniform dequantisation, "

    def _errors(self) -> str:
        """Write the parts of the error of the NLL, and what would halve it."""
        error = self.error("nll")
        count = error.halved_by(self.count)
        more = (
            "more images would not halve it: raise ode_steps" if count is None else f"{count:,} images would halve it"
        )
        own = max(error.images**2 - error.draws**2, 0) ** 0.5
        parts = f"{own:.4f}² images + {error.draws:.4f}² draws + {error.ode:.4f}² ODE"
        return f"- Error of `nll`: {error.total:.4f} = √({parts}); {more}."

    def _unseen(self) -> list[str]:
        """Write what no reading can see."""
        if self.levels is None or not UNSEEN:
            return []
        each = "; ".join(f"{words} ({moved:+.3f})" for words, moved in UNSEEN.items())
        return [
            "- What no reading can see, and in brackets what it moved NELBO by, on small networks that were trained for digits: "
            f"{each}."
        ]

    def _conversion(self) -> str:
        if self.levels is None:
            return "nats/dim = nats / D."
        return f"bits/dim = nats / (D ln 2) + {self.offset:g}; of lossless numbers, without the constant."

    def _protocol(self) -> list[str]:
        if self.levels is None:
            return [TWO_MODELS]
        return [DEQUANTISED, TWO_MODELS, *([IMAGENET] if self.shape == (3, 32, 32) else [])]


def _end(end: Any) -> str:
    """Write an end of a range, for all channels or for each."""
    return ", ".join(f"{value:.4g}" for value in np.atleast_1d(end))


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers that are not finite are null, and what it does not know is text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
