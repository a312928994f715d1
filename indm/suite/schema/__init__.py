"""The schema of a suite, one file per section. No field has a default, but those of ``shards``: a suite says
everything a result depends on.
"""
