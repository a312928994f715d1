"""The registered diffusions: each module defines ``DIFFUSION``, and a diffusion has the name of its module."""
