"""Claims of ``params/claims.yaml``, checked against the variants that the suites beside it have."""

from collections.abc import Iterator
from pathlib import Path

from indm.bench.suite.expand import variants_of
from indm.bench.suite.variants import CONTROLS, SCALE
from indm.errors import ParamsError
from indm.report.claims import BEST_SCALE, Claims, Side
from indm.strict_yaml import read_valid
from indm.variants import FROZEN_FLOW, SAME_COMPUTE, SAME_PARAMETERS


def load_claims(path: Path) -> Claims:
    """Read and validate the claims.

    Raises:
        ParamsError: one line for each mistake: file, claim, key, the value found and the values allowed.
    """
    claims = read_valid(path, Claims)
    if unknown := list(_unknown_variants(claims, path.parent)):
        raise ParamsError("\n".join(f"{path}: {mistake}" for mistake in unknown))
    return claims


def _unknown_variants(claims: Claims, folder: Path) -> Iterator[str]:
    """List the variants of which no suite in a folder can have numbers, because these would be missing silently."""
    for claim in claims.claims:
        sides = {"treatment": claim.treatment, "baseline": claim.baseline}
        arms = {f"{key}.variant": (side.model, [side.variant]) for key, side in sides.items() if isinstance(side, Side)}
        arms["controls"] = "ddpmpp", [name for name in claim.controls if name not in (BEST_SCALE, FROZEN_FLOW)]
        for place, (model, variants) in arms.items():
            named = {*CONTROLS} - ({SAME_COMPUTE, SAME_PARAMETERS} if model == "indm" else {FROZEN_FLOW})
            if unknown := [name for name in variants if name and name not in named and not SCALE.fullmatch(name)]:
                known = sorted(named.union(variants_of(model, folder)))
                allowed = f"{', '.join(known)}, or scale-2 and the like, which are the variants of model {model} here"
                yield from (
                    f"key claims.{claim.id}.{place}: found {name!r}; allowed: {allowed}"
                    for name in unknown
                    if name not in known
                )
