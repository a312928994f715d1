"""The registered score networks: each module defines ``NETWORK``, and a network has the name of its module."""
