"""The registered samplers: each module defines ``SAMPLER``, and a sampler has the name of its module.

What can be known of a sampler without torch is a row of :data:`indm.facts.SAMPLER`.
"""
