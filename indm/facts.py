"""Facts of registered model families, samplers and datasets, which suites and tables need without torch.

No module that computes imports them, so that a new row runs nothing again but tables and the page. Of a job's own members, what
decides its result counts by value (:mod:`indm.bench.pipeline.stamps`).
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from indm.errors import ArtifactError

Fact = TypeVar("Fact")


class Family(NamedTuple):
    """What a model family goes with.

    Arguments:
        flow: whether it has the flow of ``train.flow``; otherwise it has the map of ``train.latent.learned``, if any.
        only: by kind (``sde``, ``objective``, ``sampler``), the names that it supports; it supports all of a kind that is absent.
        no_ode: why its NLL is empty; an empty text if it is not.
    """

    flow: bool = False
    only: Mapping[str, list[str]] = {}
    no_ode: str = ""


class Sampler(NamedTuple):
    """What a sampler costs, and from where on it can be used.

    Arguments:
        calls: network calls per step; ``None`` if it chooses its steps.
        corrector: whether a Langevin corrector can come before each step.
        order: of convergence.
        sound: for each SDE and grid of times the smallest number of points from which on, up to 256, the standard deviation of
            the samples is off by at most half, on Gaussian data with standard deviation 0.3. The sampler is not sound for an SDE
            and a grid that are absent.
    """

    calls: int | None
    corrector: bool
    order: int
    sound: Mapping[tuple[str, str], int]


# The family with whose plain model the others are compared.
REFERENCE = "ddpmpp"
FAMILY = {
    "ddpmpp": Family(),
    "diffenc": Family(
        only={"sde": ["vp"], "sampler": ["ancestral"]},
        no_ode="its network predicts the drift of the reverse SDE, which does not determine the score",
    ),
    "indm": Family(flow=True),
    "mulan": Family(only={"sde": ["vp"], "sampler": ["ancestral", "ode"]}),
}


def _sound(vp: int, vp_log_snr: int, ve: int, ve_log_snr: int) -> dict[tuple[str, str], int]:
    return {
        ("vp", "uniform"): vp,
        ("vp", "log_snr"): vp_log_snr,
        ("ve", "uniform"): ve,
        ("ve", "log_snr"): ve_log_snr,
    }


SAMPLER = {
    "ancestral": Sampler(1, True, 1, _sound(9, 7, 6, 6)),
    "ddim": Sampler(1, False, 1, _sound(9, 5, 4, 4)),
    "dpm_solver_pp_2m": Sampler(1, False, 2, _sound(8, 5, 4, 4)),
    "euler_maruyama": Sampler(1, True, 1, _sound(12, 11, 12, 12)),
    "ode": Sampler(None, False, 5, _sound(4, 4, 4, 4)),
    "ode_euler": Sampler(1, False, 1, _sound(5, 7, 41, 41)),
    "ode_heun": Sampler(2, False, 2, _sound(5, 6, 15, 15)),
    "reverse_diffusion": Sampler(1, True, 1, _sound(12, 16, 13, 13)),
}
# Datasets whose images come in clusters, which their descriptions then list: those of a person resemble each other, so tables and
# claims count people and not images.
CLUSTERED = {"celeba64-6000"}


def family(name: str) -> Family:
    """Return the facts of a registered model family.

    Raises:
        ArtifactError: if there are none.
    """
    return _of("FAMILY", FAMILY, name)


def sampler(name: str) -> Sampler:
    """Return the facts of a registered sampler.

    Raises:
        ArtifactError: if there are none.
    """
    return _of("SAMPLER", SAMPLER, name)


def goes_with(name: str, kind: str) -> list[str]:
    """List the members of a kind (``sde``, ``objective``, ``sampler``) that a model family supports; empty if it supports all."""
    return list(family(name).only.get(kind, []))


def _of(kind: str, known: Mapping[str, Fact], name: str) -> Fact:
    if name not in known:
        raise ArtifactError(f"indm/facts.py: found no row {name!r} in {kind}, expected one for each registered member")
    return known[name]
