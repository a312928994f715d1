"""INDM: a linear diffusion of the latent of a flow, trained together with the flow."""

from indm.diffusion.model import ImplicitNonlinearDiffusion

LABEL = "INDM"
FLOW = True
REFERENCE = False
ONLY = None
STYLE = {"color": "#d55e00", "marker": "s", "linestyle": "--"}
NO_ODE = ""

FAMILY = ImplicitNonlinearDiffusion
