"""``python -m indm``."""

import atexit
import gc

from indm.cli import main

# Processes of a training import this module too.
if __name__ == "__main__":
    # What a stage imports, some hundred thousand objects, stays until it ends. Garbage is not looked for among them: not
    # while they are imported, nor at the exit; that would take up to a third of a short stage's time. Stages with networks
    # collect garbage again from set_up on. The others, of seconds, make none that matters.
    gc.disable()
    atexit.register(gc.freeze)
    main(prog_name="indm")
