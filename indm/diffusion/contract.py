r"""The contract of a forward process: what its methods must be, worked out from ``perturb`` alone.

With :math:`z = F(\epsilon, A, x)` from ``perturb``, J its Jacobian in the noise, and the drift b_theta and the volatility G of the
model from short steps of ``reverse_step``, the bound holds for every prediction and every data if, at every point,

.. math::
    e = \sum_i \frac{(b - b_\theta)_i^2}{G_i}, \qquad b = \frac{\partial F}{\partial A} + \tfrac12 G J^{-T}\epsilon, \qquad
    c = \log\Big|\det\frac{J_\epsilon}{J_T}\Big|,

the prior is the mean of :math:`-\log p_T(z_T)`, and the decoder is a density of x. The ODE has the marginals of the diffusion
if, with the prediction at which e vanishes, its drift is :math:`\partial F/\partial A`, and if it is affine in the prediction.
All of this is checked by differences and quadrature in float64, without a random estimate. Besides, the bound of Gaussian data
is compared with their entropy, and the moments of ancestral samples with the moments of ``perturb``.

References:
    | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), https://arxiv.org/abs/2101.09258, theorem 3
    | Reverse-time diffusion equation models (Anderson, 1982), https://doi.org/10.1016/0304-4149(82)90051-5
"""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import NoiseFn, squared_norm
from indm.diffusion.path import ForwardPath, LinearPath
from indm.diffusion.sde import SDE, T, importance_time
from indm.errors import ArtifactError
from indm.registry import DIFFUSIONS, FAMILIES

EPS = 1e-5


class Case(NamedTuple):
    """A size of images, the seed and standard deviation of the moves of the parameters, and the range of the diffusion."""

    shape: tuple[int, int, int]
    seed: int
    deviation: float
    eps: float = EPS
    vp: Mapping[str, float] = {}

    def __str__(self) -> str:
        return f"images of shape {self.shape}, eps {self.eps:g}, parameters moved by {self.deviation}"


# A path that is not affine has a bound by quadrature in one dimension only. In a short range, prior and decoder matter.
CASES = (
    Case((1, 1, 1), 1, 0.3),
    Case((1, 2, 2), 2, 0.1),
    Case((1, 2, 2), 3, 0.3, 0.05, {"beta_max": 5.0}),
    Case((1, 2, 2), 4, 1.0),
    Case((3, 2, 2), 5, 1.0),
)
SCORE = {"name": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "normalise_input": "unit"}
# Samplers that take the path's steps, and those among them that do without its ODE; the others take steps of the linear diffusion.
ON_THE_PATH, WITHOUT_ODE = {"ancestral", "ode"}, {"ancestral"}
# What a module of a family defines for the contract.
DEFINED = ("FAMILY", "ONLY", "NO_ODE")
# Steps in A of a derivative in time, and of the longest of the extrapolated steps.
SHORT, STEP = 1e-3, 0.02
# The relative error of an error at a point: times half of A's range, about 12, it is below 1e-3 nats per dimension.
CLOSE = 5e-5
# The bound may be as far below the truth, in nats per dimension.
BELOW = 1e-3
Prediction = Callable[[Tensor], NoiseFn]


# Numbers of a forward process that follow from perturb and reverse_step.
@dataclass(frozen=True)
class Points:
    """Latents, noises and predictions (N, *) of N points of a forward process at times (N,), float64."""

    path: ForwardPath
    x: Tensor
    noise: Tensor
    prediction: Tensor
    t: Tensor

    @property
    def z(self) -> Tensor:
        return self.path.perturb(self.x, self.t, self.noise)

    @property
    def a(self) -> Tensor:
        return self.path.sde.antiderivative(self.t)

    def alone(self, i: int) -> "Points":
        """Return one of the points."""
        part = slice(i, i + 1)
        return Points(self.path, self.x[part], self.noise[part], self.prediction[part], self.t[part])


def points(path: ForwardPath, shape: tuple[int, ...], eps: float, count: int = 12, seed: int = 0) -> Points:
    """Return points at the middles of equal parts of A, with predictions that are not far from the noise."""
    generator = Generator().manual_seed(seed)
    x, noise, off = (torch.randn(count, *shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return Points(path, 0.7 * x + 0.2, noise, noise + 0.5 * off, middles(path.sde, eps, count)[0])


def middles(sde: SDE, eps: float, count: int) -> tuple[Tensor, Tensor]:
    """Return the times at the middles of equal parts of A, and the length of A's range."""
    return importance_time(sde, (torch.arange(count, dtype=torch.float64) + 0.5) / count, eps)


def jacobian(path: ForwardPath, x: Tensor, t: Tensor) -> Tensor:
    """Return the Jacobian of the perturbed latent in the noise, (N, D, D), which is exact where the noise enters linearly."""
    dims = x[0].numel()
    units = torch.eye(dims, dtype=x.dtype).repeat(len(x), 1).view(len(x) * dims, *x.shape[1:])
    moved = path.perturb(x.repeat_interleave(dims, 0), t.repeat_interleave(dims), units).view(len(x), dims, dims)
    return (moved - path.perturb(x, t, 0 * x).view(len(x), 1, dims)).mT


def velocity(at: Points) -> Tensor:
    """Return the derivative of the perturbed latent in A, (N, *), at a fixed noise, by differences of fourth order."""

    def moved(step: float) -> Tensor:
        return at.path.perturb(at.x, at.path.sde.time(at.a + step), at.noise)

    first, second = ((moved(step) - moved(-step)) / (2 * step) for step in (SHORT, 2 * SHORT))
    return (4 * first - second) / 3


def reverse(at: Points) -> tuple[Tensor, Tensor]:
    """Return drift and squared volatility in A of the model, (N, *) each: the limit of short steps, by extrapolation."""
    z, drifts, volatilities = at.z, [], []
    for halvings in range(4):
        s = at.path.sde.time(at.a - STEP / 2**halvings)
        length = (at.a - at.path.sde.antiderivative(s)).view(-1, *[1] * (z.dim() - 1))
        mean, scale = at.path.reverse_step(z, at.prediction, at.t, s)
        drifts.append((z - mean) / length)
        volatilities.append((scale**2 / length).expand_as(z))
    return extrapolate(drifts), extrapolate(volatilities)


def extrapolate(values: list[Tensor]) -> Tensor:
    """Return the limit of values at halved steps, whose error is a polynomial of the step (Richardson)."""
    for order in range(1, len(values)):
        values = [(2**order * fine - coarse) / (2**order - 1) for coarse, fine in itertools.pairwise(values)]
    return values[0]


def expected_error(at: Points) -> Tensor:
    """Return the squared distance of the two reverse drifts in units of the volatility, (N,)."""
    model, volatility = reverse(at)
    pulled = torch.linalg.solve(jacobian(at.path, at.x, at.t).mT, at.noise.flatten(1)).view_as(at.x)
    return ((velocity(at) + volatility * pulled / 2 - model) ** 2 / volatility).flatten(1).sum(1)


def target(at: Points, each: int = 1) -> Tensor:
    """Return the prediction (N, *) for which the error is least.

    The error is a quadratic form of the prediction, with the same matrix for ``each`` points in a row.
    """
    first = Points(at.path, at.x[::each], at.noise[::each], at.prediction[::each], at.t[::each])
    slope, start = _gradient(at, 0 * at.x), _gradient(first, 0 * first.x)
    units = torch.eye(start.shape[1], dtype=start.dtype)
    matrix = torch.stack([_gradient(first, 0 * first.x + unit.view(at.x.shape[1:])) - start for unit in units], -1)
    return -torch.linalg.solve(matrix, slope.view(*start.shape[:1], each, -1).mT).mT.reshape(at.x.shape)


def _gradient(at: Points, prediction: Tensor) -> Tensor:
    """Return the gradient (N, D) of the error in the prediction."""
    with torch.enable_grad():
        prediction = prediction.clone().requires_grad_()
        return torch.autograd.grad(error_of(at, prediction).sum(), prediction)[0].flatten(1)


def error_of(at: Points, prediction: Tensor) -> Tensor:
    return at.path.error(lambda z, t: prediction, at.x, at.t, at.noise)


class Member(NamedTuple):
    """What the contract reads of a family's module: the class of its models, what it goes with, and why it has no ODE."""

    family: type[ImplicitNonlinearDiffusion]
    only: Mapping[str, list[str]] | None
    no_ode: str


# The checks of a family.
def check_family(member: Member) -> list[str]:
    """List what breaks the contract of a family, at its start and with moved parameters.

    Arguments:
        member: the family; :func:`member` reads it from a file.

    Returns:
        What was found and expected, a line each, of the first size at which something was found; empty if the contract holds.
    """
    for sde in (member.only or {}).get("sde", DIFFUSIONS):
        for case in CASES:
            try:
                found = list(_family(member, sde, case))
            except Exception as error:
                # A family is a stranger's code, which may raise anything.
                found = [f"found {type(error).__name__} ({' '.join(str(error).split())[:200]}), expected numbers"]
            if found:
                return [f"{sde}, {case}: {line}" for line in found]
    return []


def member(source: str) -> Member:
    """Return what the contract reads of a family, by the name of a registered one or by its file.

    Raises:
        ArtifactError: if there is no such family or file, or it cannot be imported or lacks a name.
    """
    if source in FAMILIES:
        return Member(FAMILIES[source], *(FAMILIES.literal(source, name) for name in DEFINED[1:]))
    name = f"family_{Path(source).stem}"
    found = importlib.util.spec_from_file_location(name, source)
    if not Path(source).is_file() or found is None or found.loader is None:
        raise ArtifactError(
            f"{source}: found no such file, expected a family's .py file or one of {', '.join(FAMILIES)}"
        )
    # Dataclasses look their module up.
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise ArtifactError(f"{source}: cannot be imported ({' '.join(repr(error).split())}); correct it") from None
    if missing := [name for name in DEFINED if not hasattr(module, name)]:
        raise ArtifactError(
            f"{source}: found no {missing[0]}, expected {', '.join(DEFINED)}, as in docs/extending/family.md"
        )
    return Member(module.FAMILY, module.ONLY, module.NO_ODE)


def _family(member: Member, sde: str, case: Case) -> Iterator[str]:
    model = _model(member, sde, case)
    if found := [*_starts_linear(model, case), *_literals(member, model.path)]:
        yield from found
        return
    generator = Generator().manual_seed(case.seed)
    for parameter in model.flow.parameters():
        move = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.add_(move, alpha=case.deviation)
    yield from check_path(model.path, case.shape, case.eps)
    if type(model.path) is not LinearPath:
        moved = list(_moves(member, points(model.path, case.shape, case.eps)))
        yield from moved or _gradient_of_bound(model, case)
    yield from _in_float32(model, case)


def _model(member: Member, sde: str, case: Case) -> ImplicitNonlinearDiffusion:
    """Return a family's model at its start, in float64."""
    spec = {
        "shape": [*case.shape],
        "sde": {"name": sde, **(case.vp if sde == "vp" else {})},
        "eps": case.eps,
        "centered": True,
        "score": SCORE | {"attention_resolutions": [case.shape[1]]},
        "flow": {"name": "identity"},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: ImplicitNonlinearDiffusion = member.family(spec)
    return model.double().eval()


@torch.no_grad()
def _starts_linear(model: ImplicitNonlinearDiffusion, case: Case) -> Iterator[str]:
    """At its start, a family is DDPM++."""
    at, plain = (points(path, case.shape, case.eps) for path in (model.path, LinearPath(model.sde)))
    found = _values(at, case.eps)
    for name, expected in _values(plain, case.eps).items():
        if (off := _differ(found[name], expected, 1e-6)).any():
            yield _line(name, found[name], f"before training, expected DDPM++'s {_first(expected, off)}", at, off)


def _literals(member: Member, path: ForwardPath) -> Iterator[str]:
    if path.has_ode is not (member.no_ode == ""):
        yield f"NO_ODE: found {member.no_ode!r} where has_ode is {path.has_ode}, expected a reason exactly where has_ode is false"


def _moves(member: Member, at: Points) -> Iterator[str]:
    """Parameters in the flow's place move the path, which only its own samplers follow."""
    linear = LinearPath(at.path.sde).perturb(at.x, at.t, at.noise)
    if not _differ(at.z, linear, 1e-9).any():
        yield "perturb: found DDPM++'s numbers with moved parameters, expected others; put the trained parameters in model.flow"
        return
    allowed = ON_THE_PATH if at.path.has_ode else WITHOUT_ODE
    samplers = set((member.only or {}).get("sampler", ()))
    if not samplers or samplers - allowed:
        yield (
            f"ONLY: found the samplers {sorted(samplers) or 'all'}, expected some of {sorted(allowed)}, since the others take "
            "steps of the linear diffusion or of an ODE"
        )


def _gradient_of_bound(model: ImplicitNonlinearDiffusion, case: Case) -> Iterator[str]:
    """The bound's gradient, along a random direction of the parameters, is its slope by differences."""

    def bound() -> Tensor:
        at = points(model.path, case.shape, case.eps)
        length = middles(model.sde, case.eps, 1)[1]
        decoded = at.path.decoder(lambda z, t: at.prediction, at.x, case.eps, at.noise)
        error = at.path.error(lambda z, t: at.prediction + 0.1 * z, at.x, at.t, at.noise)
        return (at.path.prior(at.x) + length / 2 * error + at.path.entropy(at.x, length, case.eps) + decoded).mean()

    parameters, generator = list(model.flow.parameters()), Generator().manual_seed(0)
    moves = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in parameters]
    with torch.enable_grad():
        gradients = torch.autograd.grad(bound(), parameters, allow_unused=True)
    values = []
    for step in (SHORT**2, -2 * SHORT**2, SHORT**2):
        for parameter, move in zip(parameters, moves, strict=True):
            parameter.data.add_(move, alpha=step)
        values.append(bound().item())
    slope = (values[0] - values[1]) / (2 * SHORT**2)
    found = sum((part * move).sum().item() for part, move in zip(gradients, moves, strict=True) if part is not None)
    if not abs(found - slope) <= 1e-4 * (1 + abs(slope)):
        yield f"the bound: found a gradient of {found:.6g} in model.flow, expected its slope {slope:.6g}; detach nothing"


@torch.no_grad()
def _in_float32(model: ImplicitNonlinearDiffusion, case: Case) -> Iterator[str]:
    """Trainings have latents in float32, and times in float64."""
    at = points(model.path, case.shape, case.eps)
    expected = _values(at, case.eps)
    path = model.float().path
    found = _values(Points(path, at.x.float(), at.noise.float(), at.prediction.float(), at.t), case.eps)
    for name in ("perturb", "reverse_step, mean"):
        if found[name].dtype is not torch.float32:
            yield f"{name}: found {found[name].dtype} for a latent in torch.float32, expected torch.float32"
    for name, value in expected.items():
        if (off := _differ(found[name].double(), value.double(), 1e-2)).any():
            yield _line(name, found[name], f"in float32, expected {_first(value, off)} as in float64", at, off)


# The checks of a path; each yields what is wrong, on one line.
def check_path(path: ForwardPath, shape: tuple[int, ...], eps: float = EPS) -> list[str]:
    """List what breaks the contract of a forward process.

    Arguments:
        path: the forward process, which takes and returns float64.
        shape: shape of a latent.
        eps: truncation time.

    Returns:
        What was found and expected, a line each; empty if the contract holds.
    """
    at = points(path, shape, eps)
    with torch.no_grad():
        # What follows makes no sense for a noise that enters otherwise, or for samples that know of each other.
        if broken := [*_noise(at), *_alone(at, eps)]:
            return broken
        found = [*_error(at), *_ends(at, eps), *_decoder(at, eps), *_ode(at)]
        return found or [*_gaussian_data(path, shape, eps)]


def _differ(found: Tensor, expected: Tensor, tolerance: float) -> Tensor:
    """Return for each sample whether an entry is farther off than the tolerance times its size; numbers that are not finite are."""
    close = (found - expected).abs() <= tolerance * (1 + expected.abs())
    return ~close.reshape(len(close), -1).all(1)


def _at(at: Points, where: Tensor) -> str:
    return f"at A = {at.a[where][0].item():.3g}"


def _line(name: str, found: Tensor, rest: str, at: Points, off: Tensor) -> str:
    return f"{name}: found {_first(found, off)} {rest}, {_at(at, off)}"


def _first(values: Tensor, where: Tensor) -> str:
    return f"{values[where][0].flatten()[0].item():.6g}"


def _noise(at: Points) -> Iterator[str]:
    """The noise enters linearly, and every entry of the latent has some."""
    factors, start = jacobian(at.path, at.x, at.t), at.path.perturb(at.x, at.t, 0 * at.x)
    linear = start + (factors @ at.noise.flatten(1)[..., None]).view_as(at.x)
    if (off := _differ(at.z, linear, 1e-9)).any():
        yield f"perturb: found a noise that enters otherwise than linearly, {_at(at, off)}; expected mean plus matrix times noise"
    if not torch.isfinite(torch.linalg.slogdet(factors).logabsdet).all():
        yield "perturb: found entries without noise, or numbers that are not finite; expected an invertible matrix before the noise"


def _alone(at: Points, eps: float) -> Iterator[str]:
    """A sample's numbers do not depend on the other samples."""
    if len({tuple(value.shape) for value in (at.z, at.x)}) > 1:
        yield f"perturb: found the shape {tuple(at.z.shape)}, expected {tuple(at.x.shape)}"
        return
    together, apart = _values(at, eps), [_values(at.alone(i), eps) for i in range(len(at.x))]
    for name, value in together.items():
        if (off := _differ(value, torch.cat([one[name] for one in apart]), 1e-7)).any():
            yield f"{name}: found other values for a sample in a batch than for the sample alone, {_at(at, off)}; expected the same"


def _values(at: Points, eps: float) -> dict[str, Tensor]:
    """Return all that a path computes for points, N in the first dimension."""
    path, z = at.path, at.z
    length = middles(path.sde, eps, 1)[1]
    mean, scale = path.reverse_step(z, at.prediction, at.t, path.sde.time(at.a - 1))
    return {
        "perturb": z,
        "error": error_of(at, at.prediction),
        "prior": path.prior(at.x),
        "entropy": torch.as_tensor(path.entropy(at.x, length, eps), dtype=torch.float64).expand(len(at.x)),
        "decoder": path.decoder(lambda z, t: at.prediction, at.x, eps, at.noise),
        "reverse_step, mean": mean,
        "reverse_step, scale": scale.expand_as(z),
    }


class Asked:
    """A network with a fixed answer, which notes what it is asked."""

    def __init__(self, prediction: Tensor) -> None:
        self.prediction = prediction
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        self.seen.append((z, t))
        return self.prediction

    def otherwise(self, name: str, z: Tensor, t: Tensor) -> Iterator[str]:
        """Find calls with another latent or time."""
        if any(_differ(found, z, 1e-7).any() or _differ(time, t, 1e-9).any() for found, time in self.seen):
            yield f"{name}: found another latent or time in its call of the network; expected the latent of perturb, at its time"


def _error(at: Points) -> Iterator[str]:
    """The error is the distance of the drifts, of the network's answer to the latent that perturb returns."""
    asked = Asked(at.prediction)
    found, expected = at.path.error(asked, at.x, at.t, at.noise), expected_error(at)
    yield from asked.otherwise("error", at.z, at.t)
    dims = at.x[0].numel()
    if (off := ~((found - expected).abs() <= CLOSE * (dims + expected))).any():
        yield (
            f"error: found {_first(found, off)}, expected {_first(expected, off)} {_at(at, off)}, the distance between the drifts "
            "by perturb and by reverse_step in units of its noise; correct a derivative in time, a weight, or the step"
        )
    _, volatility = reverse(at)
    other = Points(at.path, at.x.flip(1) + 1, at.noise, at.prediction - 1, at.t)
    if (off := _differ(reverse(other)[1], volatility, 1e-6)).any():
        yield f"reverse_step: found a scale that depends on latent or prediction, {_at(at, off)}; expected one of the times alone"


def _ends(at: Points, eps: float) -> Iterator[str]:
    """Prior and entropy, by the cubature of degree three, which is exact, and by determinants."""
    path, x, dims = at.path, at.x, at.x[0].numel()
    first, last = (torch.full((len(x),), t, dtype=torch.float64) for t in (eps, T))
    nodes = math.sqrt(dims) * _both_ways(x)
    noise = nodes.repeat(len(x), *[1] * (x.dim() - 1))
    ends = path.perturb(x.repeat_interleave(len(nodes), 0), last.repeat_interleave(len(nodes)), noise)
    constant = dims / 2 * math.log(2 * math.pi * path.sde.prior_std**2)
    prior = constant + squared_norm(ends).view(len(x), -1).mean(1) / (2 * path.sde.prior_std**2)
    if (off := _differ(path.prior(x), prior, 1e-7)).any():
        expected = f"expected {_first(prior, off)} by perturb, the mean of -log p_T over the noise"
        yield f"prior: found {_first(path.prior(x), off)}, {expected}"
    start, end = (torch.linalg.slogdet(jacobian(path, x, t)).logabsdet for t in (first, last))
    found, entropy = _values(at, eps)["entropy"], start - end
    if (off := _differ(found, entropy, 1e-7)).any():
        expected = (
            f"expected {_first(entropy, off)} by perturb, the entropy given the latent at eps minus the entropy at T"
        )
        yield f"entropy: found {_first(found, off)}, {expected}"


def _both_ways(x: Tensor) -> Tensor:
    """Return the unit vectors and their negatives, (2 D, *), for samples x (N, *)."""
    unit = torch.eye(x[0].numel(), dtype=x.dtype)
    return torch.cat([unit, -unit]).view(-1, *x.shape[1:])


def _decoder(at: Points, eps: float) -> Iterator[str]:
    """The decoder is a density of the latent, whatever the prediction, in up to four dimensions."""
    asked, end = Asked(at.prediction), torch.full_like(at.t, eps)
    at.path.decoder(asked, at.x, eps, at.noise)
    yield from asked.otherwise("decoder", at.path.perturb(at.x, end, at.noise), end)
    x = at.x[:1]
    for prediction in (0 * x, 0.3 * at.prediction[:1]):
        if x[0].numel() <= 4 and not abs((found := decoded_mass(at.path, x, prediction, eps)) - 1) < 1e-4:
            yield f"decoder: found a density whose integral over the latent is {found:.6g}, expected 1, given a latent at eps"


def decoded_mass(path: ForwardPath, x: Tensor, prediction: Tensor, eps: float, nodes: int = 5) -> float:
    r"""Return the integral of the decoder's density over the latent, given the mean of :math:`z_\epsilon` of x (1, *).

    The density is :math:`q(z_\epsilon|x')\,e^{-R_\epsilon(x')}`; the rule of Gauss and Hermite is centred on x, and as wide as the
    latents that z may come from.
    """
    end, dims = torch.full((1,), eps, dtype=torch.float64), x[0].numel()
    z, noise, steps = path.perturb(x, end, 0 * x), jacobian(path, x, end)[0], STEP * _both_ways(x)
    ahead, behind = path.perturb(x + steps, end.expand(len(steps)), 0 * steps).view(2, dims, dims)
    spread = torch.linalg.solve((ahead - behind).T / (2 * STEP), noise)
    u, weights = hermite(nodes, dims)
    decoded, times = x + (u @ spread.T).view(-1, *x.shape[1:]), end.expand(len(u))
    residual = (z - path.perturb(decoded, times, 0 * decoded)).flatten(1)
    factors = jacobian(path, decoded, times)
    drawn = torch.linalg.solve(factors, residual).view_as(decoded)
    cost = path.decoder(lambda z, t: prediction.expand_as(z), decoded, eps, drawn)
    log_ratio = (u**2).sum(1) / 2 - squared_norm(drawn) / 2 - cost + torch.linalg.slogdet(spread).logabsdet
    return (weights * (log_ratio - torch.linalg.slogdet(factors).logabsdet).exp()).sum().item()


def hermite(nodes: int, dims: int) -> tuple[Tensor, Tensor]:
    """Return the nodes (N, D) and weights (N,) of the normal distribution, exact for polynomials."""
    off = torch.arange(1, nodes, dtype=torch.float64).sqrt()
    found, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    grid = torch.cartesian_prod(*[found] * dims).view(-1, dims)
    return grid, torch.cartesian_prod(*[vectors[0] ** 2] * dims).view(-1, dims).prod(1)


def _ode(at: Points) -> Iterator[str]:
    """For data of one latent, the ODE moves as perturb does; with a drift that is affine in the prediction, so it does for all."""
    if not at.path.has_ode:
        return
    exact, expected = target(at), velocity(at)
    for i in range(len(at.x)):
        one, wanted = at.alone(i), expected[i : i + 1]
        given = [one.prediction, exact[i : i + 1], (one.prediction + exact[i : i + 1]) / 2]
        networks = [Asked(prediction) for prediction in given]
        first, found, middle = (at.path.ode_drift(network, one.z, one.a[0]) for network in networks)
        if wrong := list(networks[0].otherwise("ode_drift", one.z, one.t)):
            yield from wrong
            return
        if (off := _differ(found, wanted, 1e-5)).any():
            yield (
                f"ode_drift: found {_first(found, off)}, expected {_first(wanted, off)} by perturb for data of one latent, "
                f"{_at(one, off)}; correct it, or let has_ode be false where the prediction does not determine the score"
            )
            return
        if (off := _differ(middle, (first + found) / 2, 1e-7)).any():
            yield f"ode_drift: found a drift that is not affine in the prediction, {_at(one, off)}; expected an affine one"
            return


# Gaussian data, whose bound and moments are integrals that quadrature finds.
@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, F F^T) in D dimensions, by its mean (D,) and factor F (D, D)."""

    mean: Tensor
    factor: Tensor

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        return len(self.mean) / 2 * math.log(2 * math.pi * math.e) + torch.linalg.slogdet(self.factor).logabsdet.item()


def gaussian(dims: int, seed: int) -> Gaussian:
    generator = Generator().manual_seed(seed)
    factor = torch.randn(dims, dims, generator=generator, dtype=torch.float64) / math.sqrt(dims)
    scale = 0.3 * 2 ** torch.rand(1, generator=generator, dtype=torch.float64)
    mean = 0.3 * torch.randn(dims, generator=generator, dtype=torch.float64)
    return Gaussian(mean, scale * (factor + torch.eye(dims, dtype=torch.float64)))


def nodes_of(data: Gaussian, shape: tuple[int, ...], affine: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return data and noises (N, *) and weights (N,) over which means are exact.

    For an affine path, the cubature of degree three; otherwise the rule of Gauss and Hermite, which needs few dimensions.
    """
    dims = len(data.mean)
    if affine:
        unit = math.sqrt(2 * dims) * torch.eye(2 * dims, dtype=torch.float64)
        white, weights = torch.cat([unit, -unit]), torch.full((4 * dims,), 1 / (4 * dims), dtype=torch.float64)
    else:
        white, weights = hermite(9, 2 * dims)
    first, noise = white.chunk(2, 1)
    x = data.mean + first @ data.factor.T
    return x.reshape(-1, *shape), noise.reshape(-1, *shape), weights


@dataclass(frozen=True)
class Linear:
    """Linear noise predictions, one for each of K times in a row, (K, D + 1, D), each of which serves as many samples."""

    weights: Tensor

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        each = z.reshape(len(self.weights), -1, math.prod(z.shape[1:]))
        return (each @ self.weights[:, :-1] + self.weights[:, -1:]).reshape(z.shape)


def best(path: ForwardPath, nodes: tuple[Tensor, Tensor, Tensor], times: Tensor) -> Linear:
    """Return the linear prediction with the least error at each of K times, which is exact for Gaussian data and an affine path."""
    x, noise, weights = nodes
    many = [values.repeat(len(times), *[1] * (values.dim() - 1)) for values in (x, noise)]
    at = Points(path, many[0], many[1], many[1], times.repeat_interleave(len(x)))
    root = weights.sqrt()[:, None]
    z, wanted = (values.view(len(times), len(x), -1) * root for values in (at.z, target(at, len(x))))
    design = torch.cat([z, root.expand(len(times), -1, 1)], -1)
    return Linear(torch.linalg.lstsq(design, wanted).solution)


def gap(
    path: ForwardPath,
    shape: tuple[int, ...],
    data: Gaussian,
    eps: float = EPS,
    *,
    affine: bool = True,
    count: int = 150,
) -> float:
    """Return the bound of Gaussian data with the best linear prediction minus their entropy, in nats per dimension.

    It is the mean over nodes and over ``count`` times at the middles of equal parts of A.
    """
    nodes = x, noise, weights = nodes_of(data, shape, affine)
    times, length = middles(path.sde, eps, count)
    many = [values.repeat(count, *[1] * (values.dim() - 1)) for values in (x, noise)]
    error = path.error(best(path, nodes, times), many[0], times.repeat_interleave(len(x)), many[1])
    error = error.view(count, -1).mean(0)
    end = best(path, nodes, torch.tensor([eps], dtype=torch.float64))
    bound = path.prior(x) + length / 2 * error + path.entropy(x, length, eps) + path.decoder(end, x, eps, noise)
    return ((weights * bound).sum().item() - data.entropy) / len(data.mean)


def is_affine(path: ForwardPath, shape: tuple[int, ...], eps: float) -> bool:
    """Return whether the perturbed latent is affine in the latent."""
    at = points(path, shape, eps)
    two, middle = at.x.flip(0), at.x / 2 + at.x.flip(0) / 2
    first, second, third = (path.perturb(x, at.t, at.noise) for x in (at.x, two, middle))
    return not _differ(third, (first + second) / 2, 1e-9).any()


def _gaussian_data(path: ForwardPath, shape: tuple[int, ...], eps: float) -> Iterator[str]:
    """The bound is not below the truth; steps and ODE have the moments of perturb."""
    dims, affine = math.prod(shape), is_affine(path, shape, eps)
    if not affine and dims > 1:
        return
    # Quadrature of a path that is not affine has many more nodes.
    for seed in range(3 if affine else 1):
        found = gap(path, shape, gaussian(dims, seed), eps, affine=affine)
        if not found >= -BELOW:
            expected = f"expected at least {-BELOW:g}; correct error, prior, entropy or decoder"
            yield f"the bound: found {found:.4g} nats per dimension above the entropy of Gaussian data, {expected}"
    if affine:
        yield from _moments(path, shape, gaussian(dims, 0), eps)


def _moments(path: ForwardPath, shape: tuple[int, ...], data: Gaussian, eps: float) -> Iterator[str]:
    """Ancestral steps with the best prediction, without random numbers: the mean and the covariance of each step."""
    nodes = nodes_of(data, shape, True)
    mean, covariance = _marginal(path, nodes, eps)
    coarse, fine = (_sampled(path, shape, nodes, eps, steps) for steps in (100, 200))
    size = covariance.diagonal().max()
    pairs = {"mean": (0, mean, size.sqrt()), "covariance": (1, covariance, size)}
    for name, (place, expected, unit) in pairs.items():
        # Twice the finer minus the coarser: the error of a step is of first order.
        found = ((2 * fine[place] - coarse[place] - expected).abs().max() / unit).item()
        if not found <= 0.02:
            yield f"reverse_step: found a {name} of samples that is {found:.2g} off in units of the data's, expected below 0.02"


def _marginal(path: ForwardPath, nodes: tuple[Tensor, Tensor, Tensor], t: float) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and covariance (D, D) of the perturbed data."""
    x, noise, weights = nodes
    z = path.perturb(x, torch.full((len(x),), t, dtype=torch.float64), noise).flatten(1)
    mean = weights @ z
    return mean, (z - mean).T @ (weights[:, None] * (z - mean))


def _sampled(
    path: ForwardPath, shape: tuple[int, ...], nodes: tuple[Tensor, Tensor, Tensor], eps: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of samples by steps equidistant in A with the best prediction, from the marginal at T."""
    dims = math.prod(shape)
    low, high = path.sde.antiderivative(torch.tensor([eps, T], dtype=torch.float64)).tolist()
    times = path.sde.time(torch.linspace(high, low, steps + 1, dtype=torch.float64)).clamp(eps, T)
    predict = best(path, nodes, times[:-1])
    # The step is affine in the latent: zero and unit vectors give its matrix.
    z = torch.cat([torch.zeros(1, dims), torch.eye(dims)]).double().repeat(steps, 1).view(-1, *shape)
    t, s = (values.repeat_interleave(dims + 1) for values in (times[:-1], times[1:]))
    moved, scale = path.reverse_step(z, predict(z, t), t, s)
    each = moved.reshape(steps, dims + 1, dims)
    noises = scale.expand_as(z).reshape(steps, dims + 1, dims)[:, 0] ** 2
    mean, covariance = _marginal(path, nodes, T)
    for rows, noise in zip(each, noises, strict=True):
        matrix = (rows[1:] - rows[0]).T
        mean, covariance = rows[0] + matrix @ mean, matrix @ covariance @ matrix.T + torch.diag(noise)
    return mean, covariance
