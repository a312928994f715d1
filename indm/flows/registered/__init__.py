"""The registered flows: each module defines ``FLOW``, and a flow has the name of its module."""
