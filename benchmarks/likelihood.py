"""Time likelihoods and the flow's inverse beside the released code's ways, on trained networks of the default suite.

    python -m benchmarks.likelihood --released CHECKOUT [--results results/digits]

The released functions get the network of this code, so that the way of computing is all that differs. One thread, float32. Prints

- the probability-flow ODE: network calls (a gradient counts as one), seconds and error at several settings. The error is the
  root mean square over images, against a solution in float64 at a tolerance of 1e-7 with the same noise, probe and start;
- the bound (NELBO): its standard deviation over repeats, and the seconds that each way needs for the same standard error;
- the inverse of the flow: evaluations of a block for one image, ours to 1e-5, the released rule to its 3e-3.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import released
from benchmarks.training import CPU, seconds
from indm.arrays import read_array
from indm.data.levels import dequantise
from indm.diffusion.likelihood import ode_nll, stratified_nelbo
from indm.diffusion.model import ImplicitNonlinearDiffusion, load_model
from indm.errors import ArtifactError
from indm.flows.block import ALL, Bounded, Branch, ResidualBlock
from indm.flows.registered.resflow import ResidualFlow
from indm.process import set_up
from indm.store.files import read_json
from indm.store.layout import Layout

AVERAGED = {"score": "ema", "flow": "ema"}
LINEAR, INDM = "digits-vp-ddpmpp-nll-s0", "digits-vp-indm-nll-s0"
IMAGES = 40
TRUTH = 1e-7
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
FIXED_STEPS = (24, 32, 40, 48, 64)
REPEATS = 30
TIME_DRAWS = 40
SEED = 0


class Counted:
    """A network that counts its calls, and those of them whose gradient is taken."""

    def __init__(self, model: ImplicitNonlinearDiffusion, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.calls = model.to(dtype), 0

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        self.calls += 1 + torch.is_grad_enabled()
        return self.model.noise(z, t.double())


class Released:
    """The same network as the released code calls one: with labels 999 t, after a call of ``eval``."""

    def __init__(self, network: Counted) -> None:
        self.network = network

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.network(x, labels / 999)

    def eval(self) -> None:
        """Do nothing."""


def take(function: Callable[[], Tensor], network: Counted) -> tuple[Tensor, float, int]:
    """Return a result, its seconds (the shortest of three) and its network calls."""
    found: list[Tensor] = []
    elapsed = min(seconds(lambda: found.append(function())) for _ in range(3))
    calls, network.calls = network.calls // 3, 0
    return found[0], elapsed, calls


def ode(layout: Layout, x: Tensor, checkout: Path) -> None:
    """Print the table of the ODE."""
    torch.manual_seed(SEED)
    probe = torch.randint_like(x, low=0, high=2).float() * 2 - 1
    exact = Counted(load_model(layout.run(LINEAR) / "checkpoint.safetensors", CPU, AVERAGED), torch.float64)
    truth = _own_ode(exact, x.double(), probe.double(), TRUTH)
    network = Counted(load_model(layout.run(LINEAR) / "checkpoint.safetensors", CPU, AVERAGED))
    print("| ODE | tolerance or steps | network calls | s | error, bits/dim |\n|---|---|---|---|---|")
    for name, setting, function in _odes(network, x, probe, checkout):
        value, elapsed, calls = take(function, network)
        error = (value - truth).square().mean().sqrt().item()
        print(f"| {name} | {setting} | {calls} | {elapsed:.2f} | {error:.4f} |", flush=True)


def _odes(
    network: Counted, x: Tensor, probe: Tensor, checkout: Path
) -> Iterator[tuple[str, str, Callable[[], Tensor]]]:
    """Yield (way, tolerance or steps, what computes bits/dim)."""
    config, sde, module = released.likelihood(checkout)
    for tolerance in TOLERANCES:
        theirs = module.get_likelihood_fn(config, sde, lambda _: 7.0, rtol=tolerance, atol=tolerance)
        yield "released: RK45 in t", f"{tolerance:g}", partial(_released_ode, theirs, network, x)
    for tolerance in TOLERANCES:
        yield "ours: dopri5 in log-SNR", f"{tolerance:g}", partial(_own_ode, network, x, probe, tolerance)
    for steps in FIXED_STEPS:
        yield "ours: fifth order in log-SNR", f"{steps} steps", partial(_own_ode, network, x, probe, None, steps)


def _own_ode(network: Counted, x: Tensor, probe: Tensor, tolerance: float | None, steps: int = 1) -> Tensor:
    model = network.model
    nats = ode_nll(network, model.path, x, model.eps, tolerance, probe, steps)
    return nats / (math.log(2) * x[0].numel())


def _released_ode(theirs: Callable[..., Any], network: Counted, x: Tensor) -> Tensor:
    """Call the released likelihood, whose first draw from torch's global generator is the probe."""
    torch.manual_seed(SEED)
    return theirs(Released(network), None, x, residual=False, eps_bpd=network.model.eps)[0]


def bound(layout: Layout, x: Tensor, checkout: Path) -> None:
    """Print the table of the bound."""
    model = load_model(layout.run(LINEAR) / "checkpoint.safetensors", CPU, AVERAGED)
    network = Counted(model)
    config, sde, module = released.likelihood(checkout)
    config.training.truncation_time = sde.eps = model.eps
    theirs = module.get_elbo_fn(config, sde, lambda _: 7.0)
    bits = math.log(2) * x[0].numel()
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    zeros = torch.zeros(len(x))

    def ours() -> Tensor:
        with torch.no_grad():
            return stratified_nelbo(network, model.path, x, zeros, model.eps, TIME_DRAWS, generator) / bits

    rows = []
    for name, function in (
        ("released: one draw", lambda: theirs(Released(network), None, x)[0].detach()),
        (f"ours: {TIME_DRAWS} strata, control variate", ours),
    ):
        values, elapsed = [], []
        for _ in range(REPEATS):
            started = time.perf_counter()
            values.append(function().mean().item())
            elapsed.append(time.perf_counter() - started)
        rows.append((name, statistics.mean(values), statistics.stdev(values), statistics.median(elapsed)))
    worst = rows[0][2] ** 2 * rows[0][3]
    print("\n| bound of 40 images | mean, bits/dim | standard deviation | s | seconds for the same error, ratio |")
    print("|---|---|---|---|---|")
    for name, mean, deviation, median in rows:
        print(f"| {name} | {mean:.3f} | {deviation:.4f} | {median:.3f} | {deviation**2 * median / worst:.4f} |")


def inverse(layout: Layout, x: Tensor) -> None:
    """Print the table of the inverse."""
    flow = load_model(layout.run(INDM) / "checkpoint.safetensors", CPU, AVERAGED).flow
    assert isinstance(flow, ResidualFlow)
    z = flow(x, "none")[0]
    ways: dict[str, Callable[[], Tensor]] = {
        "released rule, 3e-3": lambda: _released_inverse(flow, z),
        "ours, 3e-3": lambda: flow.inverse(z, 3e-3),
        "ours, 1e-5": lambda: flow.inverse(z, 1e-5),
    }
    print("\n| inverse | evaluations of a block for an image | largest error |\n|---|---|---|")
    for name, function in ways.items():
        sizes: list[int] = []
        with _counting(sizes):
            found = function()
        evaluations = sum(sizes) / len(z) / len(list(flow.named_blocks()))
        print(f"| {name} | {evaluations:.1f} | {(found - x).abs().max().item():.1e} |")


def _counting(sizes: list[int]) -> Any:
    """Have every evaluation of a block note its number of images."""
    branch = ResidualBlock.branch

    def counted(block: ResidualBlock, h: Tensor | None = None, bounded: Bounded = None) -> Branch:
        g = branch(block, h, bounded)

        def note(x: Tensor, samples: Tensor | slice = ALL) -> Tensor:
            sizes.append(len(x))
            return g(x, samples)

        return note

    return mock.patch.object(ResidualBlock, "branch", counted)


@torch.no_grad()
def _released_inverse(flow: ResidualFlow, z: Tensor) -> Tensor:
    """Invert by the rule of the released ``_inverse_fixed_point``, which all images of a batch wait for."""
    for _, scale, block in reversed(list(flow.named_blocks())):
        z, g = flow.to_scale(z, scale), block.branch()
        x, before, tolerance = z - g(z), z, 1e-5 + z.abs() * 1e-5
        while not ((x - before) ** 2 / tolerance < 1).all():
            x, before = z - g(x), x
        z = x
    return flow.to_scale(z, 0)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--released", type=Path, required=True, help="a checkout of github.com/byeonghu-na/INDM")
    parser.add_argument("--results", type=Path, default=Path("results/digits"), help="of the default suite")
    arguments = parser.parse_args()
    set_up("cpu", 1)
    layout = Layout(arguments.results.parent, arguments.results.name)
    try:
        data = layout.data("digits")
        levels = read_json(data / "dataset.json")["levels"]
        images = torch.from_numpy(read_array(data / "test.npy")[:IMAGES])
        x = dequantise(images, levels, torch.Generator().manual_seed(SEED))
        ode(layout, x, arguments.released)
        bound(layout, x, arguments.released)
        inverse(layout, x)
    except ArtifactError as error:
        sys.exit(f"{error}; make it with: snakemake --cores all --config suite={layout.suite}")


if __name__ == "__main__":
    main()
