"""The names that the referee reads, without torch, for the command line: kinds of networks, and places of levels."""

from typing import Literal, get_args

KINDS = {
    "noise": "the noise, from z and t",
    "score": "the score, from z and t",
    "clean": "the clean image, from z and t",
    "v": "alpha times the noise minus sigma times the image, from z and t",
    "denoiser": "the clean image, from z / alpha and sigma / alpha, as EDM",
    "velocity": "the noise minus the image, from z / (alpha + sigma) and sigma / (alpha + sigma), as rectified flow",
}
"""What a network of each kind estimates, and from what."""

Grid = Literal["ends", "centres"]
"""Where levels lie that are not dequantised: the first and the last one at the ends of the range, or each in its cell's centre."""
GRIDS: tuple[Grid, ...] = get_args(Grid)
