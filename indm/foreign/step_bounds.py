"""Bounds of T steps in a report: their terms, and what separates them from the referee's own bound."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indm.foreign.kinds import Grid
from indm.foreign.markdown import table

if TYPE_CHECKING:
    import pandas as pd

    from indm.foreign.numbers import Columns

Values = NDArray[np.float64]

# Bounds of T steps by their columns.
BOUNDS = {
    "ddpm_small": "DDPM, small variance β̃",
    "ddpm_large": "DDPM, large variance β",
    "ddpm_learned": "DDPM, learned variance",
    "vdm": "VDM",
}
TERMS = {"prior": "prior", "diffusion": "diffusion", "decoder": "decoder (L₀)"}


@dataclass(frozen=True)
class StepBounds:
    """Bounds of T steps of N images, in bits/dim; see :mod:`indm.foreign.discrete`.

    Arguments:
        columns: numbers of each image, shape (N,); those of :meth:`indm.foreign.numbers.Evaluator.steps`.
        nelbo: the bound of the same images by the integral over times, with dequantisation and the learned decoder, shape (N,).
        count: number T of steps.
        eps: truncation time of this bound.
        grid: where levels lie.
    """

    columns: "Columns"
    nelbo: Values
    count: int
    eps: float
    grid: Grid

    @property
    def images(self) -> "pd.DataFrame":
        """All columns as a table of pandas, a row for each image."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    @property
    def names(self) -> list[str]:
        """The columns of the bounds: VDM's is absent for many levels, and the learned variance without one."""
        return [name for name in BOUNDS if name in self.columns]

    def means(self) -> dict[str, float]:
        """Return the mean of each column."""
        return {name: float(values.mean()) for name, values in self.columns.items()}

    def named(self) -> dict[str, float]:
        """Return the mean of each bound by its name in words."""
        return {f"{BOUNDS[name]}, {self.count} steps": float(self.columns[name].mean()) for name in self.names}

    def terms(self) -> dict[str, dict[str, float]]:
        """Return the mean terms of each bound, and the bound, which is their sum: by term, and by bound."""
        mean = self.means()
        rows = {words: {name: mean[f"{name}_{term}"] for name in self.names} for term, words in TERMS.items()}
        return rows | {"bound": {name: mean[name] for name in self.names}}

    def differences(self, name: str) -> dict[str, Values]:
        """Return what separates a bound from NELBO, by name, for each image; the sum is the bound minus NELBO."""
        steps, decoder = self.columns, "vdm" if name == "vdm" else "ddpm"
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
        if name == "ddpm_learned":
            found["learned variance instead of β̃"] = steps["ddpm_learned"] - steps["ddpm_small"]
        return found

    def lines(self) -> list[str]:
        """Write the bounds in Markdown."""
        bounds = " | ".join(BOUNDS[name] for name in self.names)
        terms = [
            f"| {term} | {' | '.join(f'{row[name]:.3f}' for name in self.names)} |"
            for term, row in self.terms().items()
        ]
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
        # In the order of the bounds.
        for part in dict.fromkeys(part for found in each.values() for part in found):
            rows.append(_row(part, [found.get(part) for found in each.values()]))
        return [*rows, _row("bound", [self.columns[name] for name in self.names])]


def _row(name: str, columns: list[Values | None]) -> str:
    """Write a row of means, with their standard errors over images; ``None`` is a bound without this row."""
    cells = [
        "–" if column is None else f"{column.mean():.3f} ± {column.std(ddof=1) / len(column) ** 0.5:.3f}"
        for column in columns
    ]
    return f"| {name} | {' | '.join(cells)} |"
