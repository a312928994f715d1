"""``python -m indm``."""

import atexit
import gc

from indm.cli import main

# Processes of a training import this module too.
if __name__ == "__main__":
    # What a stage imports, some hundred thousand objects, stays until it ends. Garbage is not looked for among them: not
    # while they are imported (set_up ends that), nor at the exit. It would take up to a third of a short stage's time.
    gc.disable()
    atexit.register(gc.freeze)
    main(prog_name="indm")
