"""The registered samplers: each module defines ``SAMPLER``, and a sampler has the name of its module.

Each module has five literals that can be read without torch: ``LABEL``, the name in tables and figures; ``CALLS``, network
calls per step, ``None`` if the sampler chooses its steps; ``CORRECTOR``, whether a Langevin corrector can come before each
step; ``ORDER``, the order of convergence; ``SOUND``, for each SDE and grid of times the smallest number of points from which
on, up to 256, the standard deviation of the samples is off by at most half, on Gaussian data with standard deviation 0.3.
The sampler is not sound for an SDE and a grid that ``SOUND`` lacks.
"""
