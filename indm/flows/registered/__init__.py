"""The registered flows, a module each, which defines ``FLOW``; a flow's name is its module's."""
