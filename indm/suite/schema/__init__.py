"""The schema of a suite. No field has a default, but those on which no result depends, or rounding alone (``compile``): a
suite says everything a result depends on.
"""
