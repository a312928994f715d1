"""Reproduction suite for "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (arXiv:2205.13699)."""

__version__ = "0.2.0"
