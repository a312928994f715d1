"""Reproduction suite for "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (arXiv:2205.13699).

From Python: :func:`indm.load_run <indm.library.load_run>` and :func:`indm.referee <indm.foreign.likelihood.referee>`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indm.foreign.likelihood import referee as referee
    from indm.library import load_run as load_run

__version__ = "2.1.0.dev0"


def __getattr__(name: str) -> Any:
    """Import the library, and torch with it, when it is first asked for: the command line imports this module too."""
    if name == "load_run":
        from indm.library import load_run

        return load_run
    if name == "referee":
        from indm.foreign.likelihood import referee

        return referee
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
