"""Results of a suite that outlive the machine: finished folders, kept and restored, and published files."""
