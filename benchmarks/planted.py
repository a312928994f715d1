"""Describe small trained networks to the referee rightly and wrongly: what it says first, and how far its number is off.

    python -m benchmarks.planted [--images 32] [--only WORDS] [--threads 1]

Trains each network for seconds on 8x8 digits, and keeps its weights in the system's folder for temporary files. Prints a table in
Markdown: a right description must get neither a refusal nor another reading, and what is said first about a planted error must be
its remedy. To see an earlier version of the package, run this file there: ``PYTHONPATH=CHECKOUT python benchmarks/planted.py``.
"""

import argparse
import math
import re
import runpy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Generator, Tensor, nn

import indm
from indm.diffusion.sde import build_sde
from indm.errors import IndmError
from indm.foreign.comparison import Comparison
from indm.foreign.tabulated import Tabulated, cosine_table, sigmoid_table

# The networks and the digits of the examples, whose folder is no package.
EXAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "examples/frameworks/training.py")))
Network, Preconditioned, dequantise, splits = (
    EXAMPLE.Network,
    EXAMPLE.Preconditioned,
    EXAMPLE.dequantise,
    EXAMPLE.splits,
)

CACHE = Path(tempfile.gettempdir()) / "indm-planted"
STEPS, BATCH, WIDTH, LEVELS = 400, 32, 16, 17
SDES = {
    "vp": build_sde("vp"),
    "short": build_sde("vp", beta_max=10.0),
    "mid": build_sde("vp", beta_max=15.0),
    "ddpm": Tabulated(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)),
    "cosine": Tabulated(cosine_table(1000)),
    "sigmoid": Tabulated(sigmoid_table(1000)),
    "ve": build_sde("ve"),
    "edm": build_sde("ve", sigma_min=0.002, sigma_max=80.0),
}
train, test = (torch.from_numpy(next(splits[name].pieces())) for name in ("train", "test"))


def coloured(images: Tensor) -> Tensor:
    """Give each digit a colour that is mostly red, (N, 1, 8, 8) to (N, 3, 8, 8)."""
    tint = torch.rand(len(images), 3, 1, 1, generator=Generator().manual_seed(1))
    tint = tint * torch.tensor([0.3, 0.6, 0.4]).view(3, 1, 1) + torch.tensor([0.7, 0.2, 0.0]).view(3, 1, 1)
    return (images * tint).round().to(torch.uint8)


# Of the training digits in [0, 1].
MEAN, STD = float((train / 16).mean()), float((train / 16).std())


@dataclass(frozen=True)
class Spec:
    """What a network is trained for.

    Arguments:
        kind: its target.
        sde: its diffusion, a name of :data:`SDES`.
        second: what it gets as its second argument, from t, alpha and sigma.
        scale: divisor of the second argument inside of the network, so that it is about 1.
        images: the training images, levels.
        place: from data in [-1, 1] to the network's data.
        label: whether it also gets whether the image is bright.
        grid: whether it is trained on levels at both ends of the range, without dequantisation.
    """

    kind: str = "noise"
    sde: str = "vp"
    second: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda t, a, s: t
    scale: float = 1.0
    images: Tensor = field(default_factory=lambda: train)
    place: Callable[[Tensor], Tensor] = lambda x: x
    label: bool = False
    grid: bool = False


SPECS = {
    "noise": Spec(),
    "999": Spec(second=lambda t, a, s: 999 * t, scale=999),
    "step": Spec(sde="ddpm", second=lambda t, a, s: 1000 * t - 1, scale=999),
    "x0": Spec("clean", "ddpm", lambda t, a, s: 1000 * t - 1, 999),
    "cosine": Spec(sde="cosine", second=lambda t, a, s: 1000 * t - 1, scale=999),
    "v": Spec("v"),
    "velocity": Spec("velocity"),
    "edm": Spec("denoiser", "edm"),
    "score": Spec("score"),
    "sigma": Spec(second=lambda t, a, s: s),
    "alpha_bar": Spec(second=lambda t, a, s: a**2),
    "log_snr": Spec(second=lambda t, a, s: 2 * torch.log(a / s), scale=10),
    "half": Spec("v", second=lambda t, a, s: torch.log(a / s), scale=5),
    "unit": Spec(place=lambda x: (x + 1) / 2),
    "standardised": Spec(place=lambda x: ((x + 1) / 2 - MEAN) / STD),
    "grid": Spec(grid=True),
    "colour": Spec(images=coloured(train)),
    "tall": Spec(images=coloured(train)[..., :6]),
    "label": Spec(label=True),
    "v_cosine": Spec("v", "cosine", lambda t, a, s: 1000 * t - 1, 999),
    "v_sigmoid": Spec("v", "sigmoid", lambda t, a, s: 1000 * t - 1, 999),
    "log_ratio": Spec("v", second=lambda t, a, s: torch.log(s / a), scale=5),
}


class Small(nn.Module):
    """The network of a specification: an input, its second argument and, for some, a label, to its target."""

    def __init__(self, spec: Spec, channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.network = Preconditioned() if spec.kind == "denoiser" else Network(WIDTH, 2)
        if spec.kind == "denoiser":
            self.network.network = Network(WIDTH, 2)
        if channels != 1:
            self.network.first = nn.Conv2d(channels, WIDTH, 3, padding=1)
            self.network.last = nn.Conv2d(WIDTH, channels, 3, padding=1)
        self.label = nn.Embedding(2, channels) if spec.label else None

    def forward(self, x: Tensor, second: Tensor, label: Tensor | None = None) -> Tensor:
        if self.label is not None and label is not None:
            x = x + self.label(label)[..., None, None]
        return self.network(x, second / self.spec.scale)


def bright(images: Tensor) -> Tensor:
    """The label: whether an image has more ink than the median, (N, ...) to (N,)."""
    return (images.flatten(1).float().mean(1) > 5).long()


def target(kind: str, x: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return {
        "noise": noise,
        "score": -noise / s,
        "clean": x,
        "v": a * noise - s * x,
        "velocity": noise - x,
        "denoiser": x,
    }[kind]


def trained(name: str) -> tuple[Small, Small]:
    """Train a network, or read it: the average of its weights, and its last weights."""
    spec, torch_seed = SPECS[name], torch.manual_seed(0)
    networks = [Small(spec, spec.images.shape[1]) for _ in range(2)]
    path = CACHE / f"{name}-{STEPS}.pt"
    if path.is_file():
        for network, weights in zip(networks, torch.load(path, weights_only=True), strict=True):
            network.load_state_dict(weights)
        return networks[0].eval(), networks[1].eval()
    average, network = networks
    average.load_state_dict(network.state_dict())
    adam, generator, sde = torch.optim.Adam(network.parameters(), 3e-3), torch_seed.manual_seed(0), SDES[spec.sde]
    for step in range(STEPS):
        levels = spec.images[torch.randint(len(spec.images), (BATCH,), generator=generator)]
        x = spec.place(levels / 8 - 1 if spec.grid else dequantise(levels, LEVELS, generator))
        noise, t = torch.randn(x.shape, generator=generator), torch.rand(BATCH, generator=generator).clamp(1e-3)
        if spec.kind == "denoiser":
            ratio = (1.2 * torch.randn(BATCH, generator=generator) - 1.2).exp()
            a, s = torch.ones(BATCH), ratio
        elif spec.kind == "velocity":
            a, s = 1 - t, t
        else:
            a, s = sde.alpha(t.double()).float(), sde.sigma(t.double()).float()
        b, c = a.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
        second = ratio if spec.kind == "denoiser" else spec.second(t, a, s)
        label = (bright(levels),) if spec.label else ()
        error = network(b * x + c * noise, second, *label) - target(spec.kind, x, noise, b, c)
        weight = {"denoiser": (c**2 + 0.25) / (0.25 * c**2), "score": c**2}.get(spec.kind, torch.ones(1))
        adam.zero_grad()
        (weight * error.square()).mean().backward()
        adam.step()
        for group in adam.param_groups:
            group["lr"] = 3e-3 * (1 - step / STEPS) + 1e-5
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 0.02)
    CACHE.mkdir(exist_ok=True)
    torch.save([average.state_dict(), network.state_dict()], path)
    return average.eval(), network.eval()


Function = Callable[..., Tensor]
# Errors that no reading can see, and the words for them in a report, which has what they move NELBO by.
SILENT = {
    "beta_max 20 read as 15": "β up to 15 for 20",
    "17 levels as 18": "17 levels given as 18",
    "1 steps off": "a network's time 1 of 1000 steps off",
    "10 steps off": "a network's time 10 of 1000 steps off",
    "last weights for averaged ones": "last weights for averaged ones",
}


@dataclass(frozen=True)
class Case:
    """A call of the referee.

    Arguments:
        words: what is planted, or why the description is right.
        network: the network.
        given: arguments, with ``sde`` and ``images``.
        remedy: what must be said first, a pattern; ``None`` for a right description.
        right: network and arguments of the right description, for the right number.
    """

    words: str
    network: Function
    given: dict[str, Any]
    remedy: str | None = None
    right: tuple[Function, dict[str, Any]] | None = None


def written(network: Function) -> Function:
    """Give a network that is written in place its type."""
    return network


def call(kind: str = "noise", sde: str = "vp", images: Tensor = test, **others: Any) -> dict[str, Any]:
    return {"kind": kind, "sde": SDES[sde], "images": images, "levels": LEVELS, **others}


def planted() -> Iterator[Case]:
    """List descriptions with an error."""
    average, raw = trained("noise")
    noise = (average, call())
    kinds = {name: trained(name)[0] for name in ("v", "x0", "velocity", "edm", "score", "cosine", "step", "999")}
    labels = written(lambda z, t: kinds["999"](z, 999 * t))
    step = written(lambda z, t: kinds["step"](z, 1000 * t - 1))
    x0 = written(lambda z, t: kinds["x0"](z, 1000 * t - 1))
    cosine = written(lambda z, t: kinds["cosine"](z, 1000 * t - 1))
    of_steps: dict[str, Any] = {"eps": 0.001}

    yield Case("beta_max 20 read as 10", average, call(sde="short"), r"beta_max=20", noise)
    yield Case("beta_max 20 read as 15", average, call(sde="mid"), None, noise)
    yield Case(
        "cosine read as linear",
        cosine,
        call(sde="ddpm", **of_steps),
        "cosine",
        (cosine, call(sde="cosine", **of_steps)),
    )
    step_as_cosine = (step, call(sde="cosine", **of_steps))
    yield Case(
        "linear read as cosine", *step_as_cosine, r"VP\(beta_min=0.1, beta_max=20", (step, call(sde="ddpm", **of_steps))
    )
    yield Case(
        "x0 read as noise", x0, call(sde="ddpm", **of_steps), "kind to clean", (x0, call("clean", "ddpm", **of_steps))
    )
    yield Case("noise read as v", average, call("v"), "kind to noise", noise)
    yield Case("v read as noise", kinds["v"], call(), "kind to v", (kinds["v"], call("v")))
    yield Case("noise read as x0", average, call("clean"), "kind to noise", noise)
    yield Case("score read as noise", kinds["score"], call(), "kind to score", (kinds["score"], call("score")))
    yield Case(
        "denoiser read as x0",
        kinds["edm"],
        call("clean", "edm"),
        "kind to denoiser",
        (kinds["edm"], call("denoiser", "edm")),
    )
    for name, second, function in (
        ("sigma", "'sigma'", lambda z, t: trained("sigma")[0](z, SDES["vp"].sigma(t))),
        ("alpha_bar", "'alpha_bar'", lambda z, t: trained("alpha_bar")[0](z, SDES["vp"].alpha(t) ** 2)),
        ("log_snr", "'log_snr'", lambda z, t: trained("log_snr")[0](z, SDES["vp"].log_snr(t))),
    ):
        yield Case(
            f"its second argument is {name}, not t", trained(name)[0], call(), f"second to {second}", (function, call())
        )
    half = written(lambda z, t: trained("half")[0](z, SDES["vp"].log_snr(t) / 2))
    yield Case("half log-SNR, a v network", trained("half")[0], call("v"), "second to 'log_snr/2'", (half, call("v")))
    yield Case(
        "half log-SNR, and v read as noise",
        trained("half")[0],
        call(),
        "second to 'log_snr/2'|its second argument",
        (half, call("v")),
    )
    gamma = written(lambda z, c: trained("log_snr")[0](z, -c))
    right = (lambda z, t: gamma(z, -SDES["vp"].log_snr(t)), call())
    yield Case("minus log-SNR", gamma, call(), r"second to '2\*log\(sigma/alpha\)'", right)
    ratio = trained("log_ratio")[0]
    right = (lambda z, t: ratio(z, -SDES["vp"].log_snr(t) / 2), call("v"))
    yield Case("log(sigma/alpha), a v network", ratio, call("v"), r"second to 'log\(sigma/alpha\)'", right)
    sigmoid = written(lambda z, t: trained("v_sigmoid")[0](z, 1000 * t - 1))
    yield Case(
        "sigmoid read as linear",
        sigmoid,
        call("v", "ddpm", **of_steps),
        "sigmoid",
        (sigmoid, call("v", "sigmoid", **of_steps)),
    )
    yield Case("t for 999 t", kinds["999"], call(), r"second to '(999|1000)\*t|second to '\(1000", (labels, call()))
    yield Case("999 t for t", lambda z, t: average(z, 999 * t), call(), "second to|its second argument", noise)
    whole = written(lambda z, t: kinds["step"](z, t.long().float()))
    yield Case(
        "an integer embedding, t from 0 to 1",
        whole,
        call(sde="ddpm", **of_steps),
        r"second to '.*\*t",
        (step, call(sde="ddpm", **of_steps)),
    )
    inner = written(lambda x, c: kinds["edm"](x, torch.exp(4 * c)))
    yield Case(
        "log sigma / 4 forgotten",
        inner,
        call("denoiser", "edm"),
        r"second to 'log\(sigma/alpha\)/4'",
        (kinds["edm"], call("denoiser", "edm")),
    )
    unit = trained("unit")[0]
    yield Case("[0, 1] read as [-1, 1]", unit, call(), "centered to False", (unit, call(centered=False)))
    yield Case("[-1, 1] read as [0, 1]", average, call(centered=False), "centered to True", noise)
    yield Case("sign of the noise", lambda z, t: -average(z, t), call(), "^.*change the sign", noise)
    yield Case("sign of v", lambda z, t: -kinds["v"](z, t), call("v"), "change the sign", (kinds["v"], call("v")))
    yield Case(
        "sign of the velocity",
        lambda z, t: -kinds["velocity"](z, t),
        call("velocity"),
        "change the sign",
        (kinds["velocity"], call("velocity")),
    )
    reverse = written(lambda z, t: -kinds["velocity"](z, 1 - t))
    yield Case(
        "a flow with noise at 0",
        reverse,
        call("velocity"),
        "second to '1-t'.*change the sign",
        (kinds["velocity"], call("velocity")),
    )
    yield Case("v read as velocity", kinds["v"], call("velocity"), "kind to v", (kinds["v"], call("v")))
    yield Case(
        "velocity read as v", kinds["velocity"], call("v"), "kind to velocity", (kinds["velocity"], call("velocity"))
    )
    yield Case("dropout", trained("noise")[0].train(), call(), r"\.eval\(\)", noise)
    standardised = trained("standardised")[0]
    ends = (-MEAN / STD, (1 - MEAN) / STD)
    of_range = (standardised, call(data_range=ends))
    yield Case("standardised data read as [-1, 1]", standardised, call(), r"data_range to \(-0\.8", of_range)
    yield Case(
        "standardised data read as [0, 1]", standardised, call(centered=False), r"data_range to \(-0\.8", of_range
    )
    yield Case("17 levels as 256", average, call(levels=256), "number of levels", noise)
    yield Case("17 levels as 18", average, call(levels=18), None, noise)
    for off in (1, 10):
        shifted = written(lambda z, t, off=off: kinds["step"](z, 1000 * t - 1 + off))
        yield Case(
            f"{off} steps off", shifted, call(sde="ddpm", **of_steps), None, (step, call(sde="ddpm", **of_steps))
        )
    yield Case("last weights for averaged ones", raw, call(), None, noise)
    colour = trained("colour")[0]
    good = coloured(test)
    yield Case(
        "BGR for RGB", colour, call(images=good.flip(1)), "reverse the images' channels", (colour, call(images=good))
    )
    turned = test.mT.contiguous()
    for name, kind in (("noise", "noise"), ("v", "v"), ("velocity", "velocity"), ("score", "score")):
        network, right = trained(name)[0], (trained(name)[0], call(kind))
        yield Case(f"transposed images, {kind}", network, call(kind, images=turned), "transpose the images", right)
        yield Case(f"inverted images, {kind}", network, call(kind, images=16 - test), "invert the images", right)


def rightly() -> Iterator[Case]:
    """List right descriptions, some with data or networks that are far from good."""
    average, _ = trained("noise")
    yield Case("noise, VP", average, call())
    yield Case("v, VP", trained("v")[0], call("v"))
    yield Case("trained on 2k/(L-1) - 1", trained("grid")[0], call())
    yield Case("x0, DDPM", lambda z, t: trained("x0")[0](z, 1000 * t - 1), call("clean", "ddpm", eps=0.001))
    yield Case("v, cosine", lambda z, t: trained("v_cosine")[0](z, 1000 * t - 1), call("v", "cosine", eps=0.001))
    yield Case("v, sigmoid", lambda z, t: trained("v_sigmoid")[0](z, 1000 * t - 1), call("v", "sigmoid", eps=0.001))
    yield Case("v, log(sigma/alpha)", trained("log_ratio")[0], call("v", second="log(sigma/alpha)"))
    yield Case("noise, DDPM", lambda z, t: trained("step")[0](z, 1000 * t - 1), call(sde="ddpm", eps=0.001))
    yield Case("score", trained("score")[0], call("score"))
    yield Case("denoiser, EDM", trained("edm")[0], call("denoiser", "edm"))
    yield Case("velocity", trained("velocity")[0], call("velocity"))
    yield Case("data in [0, 1]", trained("unit")[0], call(centered=False))
    yield Case("3 channels", trained("colour")[0], call(images=coloured(test)))
    yield Case("3 channels, not square", trained("tall")[0], call(images=coloured(test)[..., :6]))
    colour = trained("colour")[0]
    yield Case(
        "a BGR network with BGR data", lambda z, t: colour(z.flip(1), t).flip(1), call(images=coloured(test).flip(1))
    )
    yield Case(
        "a transposed network with transposed data", lambda z, t: average(z.mT, t).mT, call(images=test.mT.contiguous())
    )
    label = trained("label")[0]
    yield Case("one label for all", lambda z, t: label(z, t, torch.zeros(len(z), dtype=torch.long)), call())
    torch.manual_seed(3)
    for kind in ("noise", "v", "score", "clean", "velocity"):
        fresh = Network(WIDTH, 2).eval()
        yield Case(f"an untrained network, {kind}", fresh, call(kind))
    fresh_edm = Preconditioned().eval()
    yield Case("an untrained network, EDM", fresh_edm, call("denoiser", "edm"))
    yield Case("untrained: sines", lambda z, t: torch.sin(3 * z + t.view(-1, 1, 1, 1)), call())
    yield Case(
        "untrained: noise and sines, [0, 1]",
        lambda z, t: torch.sin(7 * z) * (1 + t.view(-1, 1, 1, 1)),
        call(centered=False),
    )
    yield Case("untrained: output 0", lambda z, t: 0 * z * t.view(-1, 1, 1, 1), call())
    for shift in (0.3, 1.0, 3.0):
        yield Case(f"inputs shifted by {shift}", lambda z, t, shift=shift: average(z + shift, t), call())
    for kind in ("v", "clean", "velocity"):
        name = "x0" if kind == "clean" else kind
        of: Function = trained(name)[0]
        more: dict[str, Any] = {"sde": "ddpm", "eps": 0.001} if kind == "clean" else {}
        moved = written(lambda z, t, of=of, kind=kind: of(z + 0.5, 1000 * t - 1 if kind == "clean" else t))
        yield Case(f"inputs of {kind} shifted by 0.5", moved, call(kind, **more))
    half = trained("999")[0]
    yield Case("bfloat16 with a cast", lambda z, t: _in_bfloat16(half, z, 999 * t), call())
    yield Case(
        "uniform noise for images",
        average,
        call(images=torch.randint(17, test.shape, generator=Generator().manual_seed(0)).byte()),
    )


def _in_bfloat16(network: nn.Module, z: Tensor, second: Tensor) -> Tensor:
    """Call a network, whose own angles are float32, in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return network(z.bfloat16().float(), second.bfloat16().float()).float()


REMEDY = re.compile(r"set \w+ to|set the \w+ to|change the sign|reverse the|transpose the|invert the")


def outcome(case: Case, images: int) -> tuple[str, float, str]:
    """Return ``refused``, ``warned`` or ``ok``, the NELBO (also of a refused description), and what is said first."""
    given = dict(case.given)
    sde, data = given.pop("sde"), given.pop("images")[:images]
    given |= {"time_draws": 10, "ode_steps": 1}

    def judged() -> Any:
        return indm.referee(case.network, sde, data, **given)

    try:
        report = judged()
    except IndmError as error:
        with mock.patch.object(Comparison, "is_refused", False):
            try:
                number = float(judged().images["nelbo"].mean())
            except IndmError:
                number = math.nan
        return "refused", number, str(error)
    said = report.warnings()
    return "warned" if said else "ok", float(report.images["nelbo"].mean()), " ".join(said)


def verdict(case: Case, status: str, said: str) -> str:
    """Return whether the referee was right: about a right description, or about an error that a reading can see."""
    if case.remedy is None:
        return "WRONG" if REMEDY.search(said) or status == "refused" else "right"
    return "right" if re.search(case.remedy, said) else "WRONG"


def moved(case: Case, number: float, images: int) -> float:
    """Return by how much a NELBO is off the one of the right description."""
    assert case.right is not None
    return number - outcome(Case("", *case.right), images)[1]


def unseen(images: int) -> dict[str, float]:
    """Return what the errors that no reading can see move NELBO by, by their words in a report."""
    cases = [case for case in planted() if case.words in SILENT]
    return {SILENT[case.words]: moved(case, outcome(case, images)[1], images) for case in cases}


def row(case: Case, images: int) -> str:
    """Write the row of a case."""
    status, number, said = outcome(case, images)
    off = ""
    if case.right is not None:
        try:
            off = f"{moved(case, number, images):+.3f}"
        except TypeError:
            off = "?"
    short = said if len(said) < 200 else f"… {said[-200:]}"
    words = case.words + (" (unseen)" if case.words in SILENT else "" if case.remedy else " (right)")
    return f"| {words} | {off} | {status} | {short} | {verdict(case, status, said)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--only", default="")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="Only each N-th case from I on."
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| description | NELBO off by | status | said first | verdict |\n|---|--:|---|---|---|")
    first, every = given.part
    for case in [*planted(), *rightly()][first::every]:
        if re.search(given.only, case.words):
            try:
                print(row(case, given.images), flush=True)
            except TypeError as error:
                print(f"| {case.words} | | {error} | | |", flush=True)


if __name__ == "__main__":
    main()
