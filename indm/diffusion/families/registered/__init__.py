"""The registered model families: each module defines ``FAMILY``, the class of its models, and gives the family its name.

What can be known of a family without torch is a row of :data:`indm.facts.FAMILY`.
"""
