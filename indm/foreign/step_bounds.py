"""Bounds of T steps in a report: their terms, and what separates them from the referee's own bound."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from indm.foreign.kinds import Grid
from indm.foreign.markdown import table

# Bounds of T steps by their columns.
BOUNDS = {"ddpm_small": "DDPM, small variance β̃", "ddpm_large": "DDPM, large variance β", "vdm": "VDM"}
TERMS = {"prior": "prior", "diffusion": "diffusion", "decoder": "decoder (L₀)"}


@dataclass(frozen=True)
class StepBounds:
    """Bounds of T steps of N images, in bits/dim; see :mod:`indm.foreign.discrete`.

    Arguments:
        images: a row per image; the columns of :meth:`indm.foreign.numbers.Evaluator.steps`.
        nelbo: the bound of the same images by the integral over times, with dequantisation and the learned decoder.
        count: number T of steps.
        eps: truncation time of this bound.
        grid: where levels lie.
    """

    images: pd.DataFrame
    nelbo: "pd.Series[float]"
    count: int
    eps: float
    grid: Grid

    @property
    def names(self) -> list[str]:
        """The columns of the bounds: VDM's is absent for many levels."""
        return [name for name in BOUNDS if name in self.images]

    def named(self) -> dict[str, float]:
        """Return the mean of each bound by its name in words."""
        return {f"{BOUNDS[name]}, {self.count} steps": float(self.images[name].mean()) for name in self.names}

    def terms(self) -> pd.DataFrame:
        """Return the mean terms of each bound, and the bound, which is their sum: a row for each term, a column for each bound."""
        mean = self.images.mean()
        rows = {words: mean[[f"{name}_{term}" for name in self.names]].to_numpy() for term, words in TERMS.items()}
        rows["bound"] = mean[self.names].to_numpy()
        return pd.DataFrame(rows, self.names).T

    def differences(self, name: str) -> pd.DataFrame:
        """Return what separates a bound from NELBO, by name.

        Returns:
            A row for each image, and a column for each difference; the columns add up to the bound minus NELBO.
        """
        steps, decoder = self.images, "vdm" if name == "vdm" else "ddpm"
        found = {}
        # With one time for both, their difference would be noise.
        first = self.nelbo if (time := 1 / self.count) == self.eps else steps["first"]
        if first is not self.nelbo:
            found[f"begins at t = {time:g} instead of {self.eps:g}"] = first - self.nelbo
        found |= {
            "decoder of levels instead of dequantisation": steps[f"first_{decoder}"] - first,
            "a sum over steps instead of the integral": steps[f"steps_{decoder}"] - steps[f"first_{decoder}"],
        }
        if decoder == "ddpm":
            found["clean images are clipped"] = steps["ddpm_small"] - steps["steps_ddpm"]
        if name == "ddpm_large":
            found["variance β instead of β̃"] = steps["ddpm_large"] - steps["ddpm_small"]
        return pd.DataFrame(found)

    def lines(self) -> list[str]:
        """Write the bounds in Markdown."""
        bounds = " | ".join(BOUNDS[name] for name in self.names)
        terms = []
        for term, row in self.terms().T.items():
            cells = [f"{value:.3f}" for value in row]
            terms.append(f"| {term!s} | {' | '.join(cells)} |")
        return [
            f"## Bounds of {self.count:,} steps",
            "",
            f"Latents at t = 1/{self.count}, 2/{self.count}, …, 1, with a step between each two; levels without dequantisation, "
            f"scaled by their {self.grid}; one draw of the noise for each latent.",
            "",
            *table(f"| term | {bounds} |", terms),
            "",
            *table(f"| what separates it from `nelbo` | {bounds} |", self._differences()),
            "",
        ]

    def _differences(self) -> list[str]:
        """Write the rows from NELBO to the bounds."""
        each = {name: self.differences(name) for name in self.names}
        rows = [_row("`nelbo`", [self.nelbo] * len(each))]
        # The large variance has all differences of the others.
        for part in map(str, each["ddpm_large"]):
            rows.append(_row(part, [found.get(part) for found in each.values()]))
        return [*rows, _row("bound", [self.images[name] for name in self.names])]


def _row(name: str, columns: list[Any]) -> str:
    """Write a row of means, with their standard errors over images; ``None`` is a bound without this row."""
    cells = ["–" if column is None else f"{column.mean():.3f} ± {column.sem():.3f}" for column in columns]
    return f"| {name} | {' | '.join(cells)} |"
