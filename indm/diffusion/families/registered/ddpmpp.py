"""DDPM++ (NCSN++ under VE): a linear diffusion of the data, or of a learned linear map of it."""

from indm.diffusion.model import ImplicitNonlinearDiffusion

LABEL = "DDPM++"
FLOW = False
REFERENCE = True
ONLY = None
STYLE = {"color": "#0072b2", "marker": "o", "linestyle": "-"}
NO_ODE = ""

FAMILY = ImplicitNonlinearDiffusion
