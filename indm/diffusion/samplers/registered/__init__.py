"""The registered samplers, a module each, which defines ``SAMPLER``; a sampler's name is its module's.

Three literals in each can be read without torch: ``LABEL``, its name for readers; ``CALLS``, calls of the network a step, ``None``
where it chooses its own steps; ``CORRECTOR``, whether a Langevin corrector can come before each step.
"""
