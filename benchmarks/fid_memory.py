"""Measure the peak memory of all metrics on as many features as the paper's protocol has.

    python -m benchmarks.fid_memory [images]

Prints the peak beyond imports in GiB, which includes the features of both sides and the logits, and the seconds.
"""

import resource
import sys
import time
from pathlib import Path

import torch

from indm.metrics.compare import compare, compare_clean
from indm.metrics.frechet import Reference

DIMS, CLASSES = 2048, 1008
SETTINGS = {"kid_subsets": 2, "kid_subset_size": 1000, "is_splits": 10, "prc_neighbours": 3, "prc_images": 10_000}


def resident() -> float:
    """Memory in use, in GiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def main() -> None:
    """Compare two sets of random features."""
    from cleanfid import fid  # noqa: F401 (its import is not what is measured)

    images = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    torch.manual_seed(0)
    before, started = resident(), time.monotonic()
    generated, real = (torch.randn(images, DIMS).abs_() for _ in range(2))
    logits = torch.randn(images, CLASSES)
    reference = Reference.of(real)
    found = compare(generated, logits, reference, **SETTINGS, bootstrap=2, seed=0)
    print({key: value for key, value in found.items() if isinstance(value, float)})
    middle = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
    print(f"{images} images: {peak:.2f} GiB beyond imports, {middle - started:.0f} s")
    compare_clean("clean", generated, reference, bootstrap=2, seed=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
    print(f"and a mode of clean-FID: {peak:.2f} GiB beyond imports, {time.monotonic() - middle:.0f} s")


if __name__ == "__main__":
    main()
