"""The kinds of networks that the referee reads, without torch, for the command line."""

KINDS = {
    "noise": "the noise, from z and t",
    "score": "the score, from z and t",
    "clean": "the clean image, from z and t",
    "v": "alpha times the noise minus sigma times the image, from z and t",
    "denoiser": "the clean image, from z / alpha and sigma / alpha, as EDM",
    "velocity": "the noise minus the image, from z / (alpha + sigma) and sigma / (alpha + sigma), as rectified flow",
}
"""What a network of each kind estimates, and from what."""
