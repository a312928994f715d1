"""The registered model families: each module defines ``FAMILY``, the class of its models, and gives the family its name.

Each module has six literals that can be read without torch: ``LABEL``, the name in tables and figures; ``FLOW``, whether
it has the flow of ``train.flow`` (otherwise it has the map of ``train.latent.learned``, if any); ``REFERENCE``, whether other
families are compared with it, which is true for one family; ``ONLY``, the ``sde``, ``objective`` and ``sampler`` names that
it supports, ``None`` for all; ``STYLE``, the style of its plain model in figures; ``NO_ODE``, why its NLL is empty, or an
empty text.
"""
