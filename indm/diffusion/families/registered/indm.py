"""INDM: a linear diffusion of the latent of a flow, trained together with the flow."""

from indm.diffusion.model import ImplicitNonlinearDiffusion

FAMILY = ImplicitNonlinearDiffusion
