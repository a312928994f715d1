"""The errors a user can meet: one line each, with the thing found, the thing expected and the remedy."""

import contextlib
from collections.abc import Iterator

# Parts of torch's messages when memory runs out.
LACKING = ("out of memory", "allocate memory")


class IndmError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one line and exits with its code."""

    exit_code = 1


class NoGpuError(IndmError):
    """A suite asks for more GPUs than torch sees."""

    def __init__(self, found: int = 0, expected: int = 1) -> None:
        super().__init__(
            f"processes {expected}: found {found} GPU, expected one for each process; set processes: {found} or device: cpu "
            "in the suite"
            if found
            else "device cuda: found no GPU; expected one that torch sees; set device: auto or cpu in the suite"
        )


class ParamsError(IndmError):
    """A suite file in ``params/`` does not follow the schema, or an argument is out of its range."""


class DataError(IndmError):
    """A dataset or an archive is missing, damaged or not the expected one."""


class ArtifactError(IndmError):
    """A file written by an earlier stage is missing, damaged or foreign."""


class ConvergenceError(IndmError):
    """An iteration (inverse of a flow, ODE solver) did not reach its tolerance."""


class DivergenceError(IndmError):
    """A loss or a gradient stopped being finite."""


class TooLittleMemoryError(IndmError):
    """The memory of a GPU or of the machine is too small for a stage."""


class StoppedError(IndmError):
    """A stage was asked to stop, and has saved its work: it should be run again."""

    # EX_TEMPFAIL of sysexits.h: "temporary failure, the user is invited to retry".
    exit_code = 75


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Report an out-of-memory error of the block on one line; torch has a class for this error on GPUs only.

    Raises:
        TooLittleMemoryError: instead of the original error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in LACKING):
            raise
        raise TooLittleMemoryError(
            "found too little memory, expected enough for a batch and networks; lower a batch_size or a width"
        ) from error
