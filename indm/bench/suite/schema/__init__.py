"""The schema of a suite. Only fields that do not affect results, or that affect only rounding (``compile``), have a default,
so that a suite states everything on which a result depends.
"""
