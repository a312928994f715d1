"""The bench: suites, the engine that runs their jobs, and what keeps, watches and explains their results."""
