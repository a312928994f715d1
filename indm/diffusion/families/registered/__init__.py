"""The registered model families, a module each, which defines ``FAMILY``, the class of its models; its name is the module's.

Five literals in each can be read without torch: ``LABEL``, its name for readers; ``FLOW``, whether it has the flow of
``train.flow``, else the map of ``train.latent.learned``, or none; ``REFERENCE``, whether others are compared with it, true of one
family; ``ONLY``, the names of each ``sde``, ``objective`` and ``sampler`` that it goes with, ``None`` where it goes with all;
``STYLE``, how figures draw its plain model.
"""
