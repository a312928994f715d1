"""Draw 64 digits from the published INDM, and evaluate it and DDPM++ on 20 digits that neither was trained on.

    python examples/sample_digits.py [digits.png]

Takes half a minute on one core and trains nothing: the weights come with the package.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

import indm
from indm.registry import DATASETS

SIDE, ZOOM = 8, 6


def main(path: Path) -> None:
    """Write the picture, and print the likelihoods."""
    test = next(DATASETS["digits"].load(split_seed=0)["test"].pieces())[:20]
    model = indm.load_run("digits-vp-indm-nll-s4")
    picture(model.sample(SIDE**2), model.levels).save(path)
    print(f"{path}: {SIDE**2} digits drawn from {model.name}")
    for run in (model, indm.load_run("digits-vp-ddpmpp-nll-s4")):
        print(f"{run.name}: {run.likelihood(test)}")


def picture(images: Tensor, levels: int) -> Image.Image:
    """Lay grey images (SIDE^2, 1, H, W) out in a square, black on white, enlarged."""
    tiles = np.pad(images[:, 0].numpy(), ((0, 0), (1, 1), (1, 1)))
    rows = tiles.reshape(SIDE, SIDE, *tiles.shape[1:]).swapaxes(1, 2).reshape(SIDE * tiles.shape[1], -1)
    return Image.fromarray((255 - rows * (255 / (levels - 1))).astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits.png"))
