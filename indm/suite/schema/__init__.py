"""The schema of a suite. No field has a default, but those of ``shards`` and ``compile``: a suite says everything a result
depends on.
"""
