"""Run ``snakemake --lint`` and fail on all its findings except one that does not apply.

Rules do not name an environment, because every stage runs in Snakemake's own environment, as it does under DVC.
"""

import subprocess
import sys

ACCEPTED = {"* Specify a conda environment or container for each rule.:"}

if __name__ == "__main__":
    done = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True, check=False)
    found = {line.strip() for line in done.stderr.splitlines() if line.startswith("    * ")}
    if found - ACCEPTED or (done.returncode != 0 and not found):
        sys.exit(done.stderr)
