"""The registered samplers, a module each, which defines ``SAMPLER``; a sampler's name is its module's.

Five literals in each can be read without torch: ``LABEL``, its name for readers; ``CALLS``, calls of the network a step, ``None``
where it chooses its own steps; ``CORRECTOR``, whether a Langevin corrector can come before each step; ``ORDER``, with which its
error falls; ``SOUND``, by SDE and grid of times the smallest number of points from which on, up to 256, the standard deviation of
what it generates is off by at most half, on Gaussian data of standard deviation 0.3. Under what is not there, it is not sound.
"""
