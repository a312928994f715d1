"""The pipeline: its stages, described once, the jobs of a suite, and the checks, stamps and provenance around a job."""
