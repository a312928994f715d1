"""The names that the referee reads, without torch, for the command line: kinds of networks, second arguments, places of levels."""

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

ALIASES = {
    "epsilon": "noise",
    "eps": "noise",
    "sample": "clean",
    "x0": "clean",
    "x_start": "clean",
    "v_prediction": "v",
    "flow": "velocity",
    "flow_prediction": "velocity",
}
"""The kinds by the words of other packages, such as ``prediction_type`` of diffusers."""

SECONDS = {
    "t": "the time t, or tau for a velocity",
    "999*t": "as score_sde",
    "1000*t": "as Flux",
    "1000*t-1": "steps 0 to 999, and fractions between them, as DDPM",
    "(1000*t).long()": "whole steps from 0 to 999",
    "t/999": "a time that was multiplied by 999 already",
    "1-t": "the time with noise at 0, as Flow Matching",
    "sigma": "the standard deviation of the noise in z",
    "alpha_bar": "the square of alpha",
    "sigma/alpha": "the noise of an image whose scale is 1, as EDM",
    "log(sigma/alpha)/4": "as the network inside of EDM's preconditioning",
    "log(sigma/alpha)": "as the backbone of azula's denoisers",
    "2*log(sigma/alpha)": "as VDM",
    "log_snr": "the logarithm of alpha squared over sigma squared",
    "log_snr/2": "the logarithm of alpha over sigma",
}
"""What a network may get as its second argument, in place of the one of its kind."""

Grid = Literal["ends", "centres"]
"""Where levels lie that are not dequantised: the first and the last one at the ends of the range, or each in its cell's centre."""
GRIDS: tuple[Grid, ...] = get_args(Grid)
