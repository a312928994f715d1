"""``python -m indm``."""

from indm.process import start

# Processes of a training import this module too. The command line is imported late: start comes before its imports.
if __name__ == "__main__":
    start()

    from indm.cli import main

    main(prog_name="indm")
