"""Run ``snakemake --lint`` and fail on everything it finds, except one thing that it cannot know.

Every stage runs in the environment that Snakemake itself runs in, as it does under DVC: no rule names another one.
"""

import subprocess
import sys

ACCEPTED = {"* Specify a conda environment or container for each rule.:"}

if __name__ == "__main__":
    done = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True, check=False)
    found = {line.strip() for line in done.stderr.splitlines() if line.startswith("    * ")}
    if found - ACCEPTED or (done.returncode != 0 and not found):
        sys.exit(done.stderr)
