"""The registered score networks, a module each, which defines ``NETWORK``; a network's name is its module's."""
