"""DDPM++ (NCSN++ under VE): a linear diffusion of the data, or of a learned linear map of it."""

from indm.diffusion.model import ImplicitNonlinearDiffusion

FAMILY = ImplicitNonlinearDiffusion
