"""``python -m indm``."""

from indm.cli import main

main(prog_name="indm")
