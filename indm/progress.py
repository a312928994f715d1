"""What a person sees of a stage while it works: bars and lines on standard error, never in a result."""

import sys
from collections.abc import Callable, Iterable

from tqdm import tqdm


def bar(description: str) -> Callable[[range], Iterable[int]]:
    """Return a progress bar for a range, rarely redrawn so that logs stay short."""
    return lambda steps: tqdm(steps, desc=description, mininterval=2.0, unit="step")


def say(line: str) -> None:
    """Print a line where progress is shown."""
    print(line, file=sys.stderr, flush=True)
