"""Suites: one YAML file in ``params/`` is everything that one reproduction needs."""
