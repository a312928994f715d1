"""Diffusion models of data whose density is known, so that a distance to the truth takes the place of a likelihood."""
