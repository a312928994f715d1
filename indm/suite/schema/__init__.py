"""The schema of a suite, a file a section. No field has a default: what a suite says is everything a result depends on."""
