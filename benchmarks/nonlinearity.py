"""Measure how nonlinear the learned flows are: the share of their latents' variance that affine maps do not explain.

    python -m benchmarks.nonlinearity [RUN ...]

Prints a row for each published INDM, or for each named run (as of indm.load_run): what remains on 1,000 test images, if there
are so many, after the best straight line from a pixel to its latent, the same for all pixels, and after the best affine map from
all pixels to all latents. Both are fitted to up to 6,000 training images.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indm.data.levels import dequantise
from indm.library import Run, load_run
from indm.registry import DATASETS

Points = NDArray[np.float64]
PUBLISHED = "docs/results/*/weights/*-indm-*.safetensors"
SEED = 17
BATCH = 200


def unexplained(x: Points, z: Points, test_x: Points, test_z: Points) -> tuple[float, float]:
    r"""Return the shares of the variance that the best line and the best affine map leave.

    .. math:: \frac{\sum_n \lVert z_n - f(x_n) \rVert^2}{\sum_n \lVert z_n - \bar z \rVert^2}, \qquad f(x) = a x + b
        \;\text{ with numbers, or }\; A x + b \;\text{ with a matrix and a vector}

    Arguments:
        x: data, shape (N, D).
        z: their latents, shape (N, D).
        test_x: other data, shape (M, D), on which the shares are measured.
        test_z: their latents, shape (M, D).
    """
    slope, offset = np.polyfit(x.ravel(), z.ravel(), 1)
    matrix = np.linalg.lstsq(_with_ones(x), z, rcond=None)[0]
    total = np.square(test_z - test_z.mean(axis=0)).sum()
    line, affine = (np.square(test_z - fit).sum() for fit in (slope * test_x + offset, _with_ones(test_x) @ matrix))
    return line / total, affine / total


def _with_ones(x: Points) -> Points:
    return np.hstack([x, np.ones((len(x), 1))])


@torch.no_grad()
def pairs(run: Run, split: str, most: int) -> tuple[Points, Points]:
    """Return data of a split, with noise between levels, and their latents, each with shape (N, D)."""
    pieces = DATASETS[run.dataset].load(split_seed=0)[split].pieces()
    images = torch.from_numpy(np.concatenate(list(pieces))[:most])
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for batch in images.split(BATCH):
        x = dequantise(batch, run.levels, generator, run.model.centered)
        z = run.model.flow(x, "none", generator)[0]
        found.append((x.flatten(1).double(), z.flatten(1).double()))
    data, latents = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return data, latents


def table(names: Iterable[str]) -> list[str]:
    """Return the lines of a table of runs."""
    lines = ["| run | beyond a straight line | beyond an affine map |", "|---|--:|--:|"]
    for name in names:
        run = load_run(name)
        shares = unexplained(*pairs(run, "train", 6000), *pairs(run, "test", 1000))
        lines.append(f"| `{run.name}` | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")
    return lines


def main() -> None:
    """Print the table of the named or of all published runs."""
    torch.set_num_threads(1)
    print("\n".join(table(sys.argv[1:] or sorted(map(str, Path().glob(PUBLISHED))))))


if __name__ == "__main__":
    main()
