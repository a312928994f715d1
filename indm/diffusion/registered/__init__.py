"""The registered diffusions, a module each, which defines ``DIFFUSION``; a diffusion's name is its module's."""
