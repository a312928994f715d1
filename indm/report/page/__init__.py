"""The suite's page."""
