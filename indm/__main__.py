"""``python -m indm``."""

from indm.cli import main

# Processes of a training import this module too.
if __name__ == "__main__":
    main(prog_name="indm")
