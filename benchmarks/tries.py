"""Measure what a person gains who enters a map again and again, with other seeds each time, and keeps the best result.

    python -m benchmarks.tries [--tries N] [--repeats N]

A try draws the seeds of a track, with replacement, from the published seeds of INDM and DDPM++ in ``digits-seeds``. Their
differences are shifted, so that the mean over all seeds and images is a planted gain. Prints, for each planted gain: how often one
try is *better*, how often at least one of all tries is, and the mean effect of the best one.
"""

import argparse
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from indm.bench.entries.tracks import LoadedTrack, load_track
from indm.report.entries import column, verdicts
from indm.report.grades import BETTER
from indm.report.intervals import Numbers

IMAGES = "docs/results/digits-seeds/tables/images.csv.gz"
# Gains in bits/dim: none, half of the smallest effect that counts, and all of it.
GAINS = (0.0, 0.005, 0.01)


class Tried(NamedTuple):
    """What tries found: the share of single tries and of series that are *better*, and the mean effect of the best of a series."""

    gain: float
    one: float
    any_of_all: float
    best: float


def differences(track: LoadedTrack) -> Numbers:
    """Return how far the bound with INDM's flow lies below DDPM++'s, shape (S, N), in bits/dim, around its mean."""
    table = pd.read_csv(IMAGES, keep_default_na=False, low_memory=False)
    rows = table[(table["stage"] == "nll") & (table["objective"] == "nll") & (table["variant"] == "")]
    bounds = rows.pivot(index="seed", columns=["model", "image"], values="nelbo").astype(float)
    found: Numbers = (bounds["ddpmpp"] - bounds["indm"]).to_numpy(dtype=float)
    assert len(found) >= track.content.seeds
    return found - found.mean()


def tried(track: LoadedTrack, gain: float, tries: int, repeats: int) -> Tried:
    """Repeat series of tries."""
    chance, pool = np.random.default_rng(0), differences(track) + gain
    better, effects = np.zeros((repeats, tries), bool), np.zeros((repeats, tries))
    for place in np.ndindex(repeats, tries):
        row = _one(track, pool[chance.integers(len(pool), size=track.content.seeds)])
        better[place], effects[place] = row["verdict"] == BETTER, float(row["effect"])
    one, some, best = better.mean(), better.any(axis=1).mean(), effects.max(axis=1).mean()
    return Tried(gain, float(one), float(some), float(best))


def _one(track: LoadedTrack, found: Numbers) -> dict[str, Any]:
    """Judge one try.

    Arguments:
        found: how far the entry's bounds lie below the other model's, shape (S, N), in bits/dim.
    """
    seeds = list(range(len(found)))
    table = pd.DataFrame({column("ddpmpp", seed): found[seed] for seed in seeds})
    for seed in seeds:
        table[column("entry", seed)] = 0.0
    return dict(verdicts(table, seeds, track.content.smallest, ["ddpmpp"], images=True).iloc[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    track = load_track("digits")
    print(f"| planted gain | one try is better | one of {arguments.tries} is better | effect of the best one |")
    print("|--:|--:|--:|--:|")
    for gain in GAINS:
        found = tried(track, gain, arguments.tries, arguments.repeats)
        print(f"| {gain:g} | {found.one:.1%} | {found.any_of_all:.0%} | {found.best:.4f} |")


if __name__ == "__main__":
    main()
