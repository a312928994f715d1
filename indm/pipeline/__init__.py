"""The pipeline: its stages, described once, the jobs of a suite, and what surrounds a job: checks, stamps, provenance."""
