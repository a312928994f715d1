"""Reproduction suite for "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (arXiv:2205.13699).

From Python: :func:`indm.load_run <indm.library.load_run>` and :func:`indm.referee <indm.foreign.likelihood.referee>`, with
:func:`indm.build_sde <indm.diffusion.sde.build_sde>`, :class:`indm.Tabulated <indm.foreign.tabulated.Tabulated>` and
:class:`indm.Report <indm.foreign.report.Report>`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indm.diffusion.sde import build_sde as build_sde
    from indm.foreign.likelihood import referee as referee
    from indm.foreign.report import Report as Report
    from indm.foreign.tabulated import Tabulated as Tabulated
    from indm.library import load_run as load_run

__version__ = "2.1.0.dev0"
_PLACES = {
    "Report": "indm.foreign.report",
    "Tabulated": "indm.foreign.tabulated",
    "build_sde": "indm.diffusion.sde",
    "load_run": "indm.library",
    "referee": "indm.foreign.likelihood",
}
__all__ = ["Report", "Tabulated", "__version__", "build_sde", "load_run", "referee"]


def __getattr__(name: str) -> Any:
    """Import the library, and torch with it, when it is first asked for: the command line imports this module too."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
