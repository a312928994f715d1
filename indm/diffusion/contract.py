r"""The contract of a forward process: what its methods must be, worked out from ``perturb`` alone.

With :math:`z = F(\epsilon, A, x)` from ``perturb``, J its Jacobian in the noise, and the drift :math:`b_\theta` and the
squared volatility G of the model from short steps of ``reverse_step``, the bound holds for every prediction and every data
if, at every point,

.. math::
    e = \sum_i \frac{(b - b_\theta)_i^2}{G_i}, \qquad b = \frac{\partial F}{\partial A} + \tfrac12 G J^{-T}\epsilon, \qquad
    c = \log\Big|\det\frac{J_\epsilon}{J_T}\Big|,

the prior is the mean of :math:`-\log p_T(z_T)`, and the decoder is a density of x. The ODE has the marginals of the diffusion
if, with the prediction at which e vanishes, its drift is :math:`\partial F/\partial A`, and if it is affine in the prediction.
All of this is checked by differences and quadrature in float64, without a random estimate. In addition, the bound of Gaussian
data is compared with their entropy, and the moments of ancestral samples with the moments of ``perturb``.

References:
    | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021)
    | https://arxiv.org/abs/2101.09258, theorem 3
    | Reverse-time diffusion equation models (Anderson, 1982), https://doi.org/10.1016/0304-4149(82)90051-5
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from indm import facts
from indm.diffusion.checks.findings import differ, entry, mismatch
from indm.diffusion.checks.path import all_numbers, check_path
from indm.diffusion.checks.points import EPS, SHORT, Points, middles, points
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.path import ForwardPath, LinearPath
from indm.errors import ArtifactError
from indm.registry import DIFFUSIONS, FAMILIES


class Case(NamedTuple):
    """A size of images, the seed and standard deviation of the moves of the parameters, and the range of the diffusion."""

    shape: tuple[int, int, int]
    seed: int
    deviation: float
    eps: float = EPS
    vp: Mapping[str, float] = {}

    def __str__(self) -> str:
        return f"images of shape {self.shape}, eps {self.eps:g}, parameters moved by {self.deviation}"


# A path that is not affine has a bound by quadrature in one dimension only. In a short range, prior and decoder matter. Only
# an image of usual size has pixels that a fault may leave out.
CASES = (
    Case((1, 1, 1), 1, 0.3),
    Case((1, 2, 2), 2, 0.1),
    Case((1, 2, 2), 3, 0.3, 0.05, {"beta_max": 5.0}),
    Case((1, 2, 2), 4, 1.0),
    Case((3, 2, 2), 5, 1.0),
    Case((1, 8, 8), 6, 0.3),
)
SCORE = {"name": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "normalise_input": "unit"}
# Samplers that take the path's steps, and the samplers among them that do not need its ODE. All other samplers take steps of
# the linear diffusion.
ON_THE_PATH, WITHOUT_ODE = {"ancestral", "ode"}, {"ancestral"}
# What a module of a family defines for the contract.
DEFINED = ("FAMILY", "ONLY", "NO_ODE")


class Member(NamedTuple):
    """What the contract reads of a family's module: the class of its models, what it goes with, and why it has no ODE."""

    family: type[ImplicitNonlinearDiffusion]
    only: Mapping[str, list[str]] | None
    no_ode: str


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
                # A family may be a user's code, which may raise any exception.
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
        return Member(FAMILIES[source], facts.family(source).only, facts.family(source).no_ode)
    if not Path(source).is_file():
        raise ArtifactError(
            f"{source}: found no such file, expected a family's .py file or one of {', '.join(FAMILIES)}"
        )
    return member_of(imported(source, Path(source).read_bytes()), source)


def member_of(module: ModuleType, source: str) -> Member:
    """Return what the contract reads of a family's module, whose file is ``source``.

    Raises:
        ArtifactError: if it lacks a name.
    """
    if missing := [name for name in DEFINED if not hasattr(module, name)]:
        raise ArtifactError(
            f"{source}: found no {missing[0]}, expected {', '.join(DEFINED)}, as in docs/extending/family.md"
        )
    return Member(module.FAMILY, module.ONLY, module.NO_ODE)


class _Content(importlib.abc.InspectLoader):
    """Loads a module from the content of a file that has been read."""

    def __init__(self, content: bytes, source: str) -> None:
        self.content, self.source = content, source

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.content)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.content, self.source)


def imported(source: str, content: bytes, name: str = "") -> ModuleType:
    """Import a user's file from its content, and not from a compiled file beside it, which could be another one.

    Arguments:
        source: the file, named in errors.
        content: its content.
        name: what the module finds as its file; empty: ``source``.

    Raises:
        ArtifactError: if it cannot be imported.
    """
    loader = _Content(content, name or source)
    found = ModuleSpec(f"family_{Path(name or source).stem}", loader, origin=name or source)
    found.has_location = True
    # Dataclasses look their module up.
    module = sys.modules[found.name] = importlib.util.module_from_spec(found)
    try:
        loader.exec_module(module)
    except Exception as error:
        raise ArtifactError(f"{source}: cannot be imported ({' '.join(repr(error).split())}); correct it") from None
    return module


def check_trained(model: ImplicitNonlinearDiffusion) -> list[str]:
    """List what breaks the contract of a trained model's forward process, in float64 and in float32; the model does not change.

    The forward process is checked with a latent's whole Jacobian, so that a check takes seconds for 8×8 pixels.
    """
    model = deepcopy(model).double().eval()
    if type(model.path) is LinearPath:
        return []
    shape, eps = model.shape, model.eps
    return check_path(model.path, shape, eps) or list(_in_float32(model, shape, eps))


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
    yield from _in_float32(model, case.shape, case.eps)


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
    found = all_numbers(at, case.eps)
    for name, expected in all_numbers(plain, case.eps).items():
        if (off := differ(found[name], expected, 1e-6)).any():
            yield mismatch(name, found[name], f"before training, expected DDPM++'s {entry(expected, off)}", at, off)


def _literals(member: Member, path: ForwardPath) -> Iterator[str]:
    if path.has_ode is not (member.no_ode == ""):
        yield f"NO_ODE: found {member.no_ode!r} where has_ode is {path.has_ode}, expected a reason exactly where has_ode is false"


def _moves(member: Member, at: Points) -> Iterator[str]:
    """Parameters in the flow's place move the path, which only its own samplers follow."""
    linear = LinearPath(at.path.sde).perturb(at.x, at.t, at.noise)
    if not differ(at.z, linear, 1e-9).any():
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
def _in_float32(model: ImplicitNonlinearDiffusion, shape: tuple[int, int, int], eps: float) -> Iterator[str]:
    """Trainings have latents in float32, and times in float64."""
    at = points(model.path, shape, eps)
    expected = all_numbers(at, eps)
    path = model.float().path
    found = all_numbers(Points(path, at.x.float(), at.noise.float(), at.prediction.float(), at.t), eps)
    for name in ("perturb", "reverse_step, mean"):
        if found[name].dtype is not torch.float32:
            yield f"{name}: found {found[name].dtype} for a latent in torch.float32, expected torch.float32"
    for name, value in expected.items():
        if (off := differ(found[name].double(), value.double(), 1e-2)).any():
            yield mismatch(name, found[name], f"in float32, expected {entry(value, off)} as in float64", at, off)
