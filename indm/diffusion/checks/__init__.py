"""The checks of a forward process, by its ``perturb`` and ``reverse_step``, for :mod:`indm.diffusion.contract`."""
