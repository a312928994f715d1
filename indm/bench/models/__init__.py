"""From a suite's settings to models and trainings."""
