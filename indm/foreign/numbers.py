"""The numbers of the referee for each sample, by the functions of the ``nll`` stage, in bits/dim or nats per dimension."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import pandas as pd
import torch
from torch import Tensor

from indm.diffusion.decoder import alpha_at_eps
from indm.diffusion.draws import Draws, normal, of_images
from indm.diffusion.evaluation import CONTROL_BATCH, CONTROL_IMAGES
from indm.diffusion.fixed_decoder import BARE, with_fixed
from indm.diffusion.likelihood import GaussianControl, four_numbers, nelbo_alone, stratified_nelbo
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE
from indm.errors import DivergenceError
from indm.foreign.data import Data, Levels
from indm.foreign.discrete import decoder_costs, gaussian_entropy, step_bounds, step_times
from indm.progress import bar

if TYPE_CHECKING:
    from indm.diffusion.model import ImplicitNonlinearDiffusion

NAME = "referee"
# Bounds of T steps, by their sums over steps and their decoders; see :mod:`indm.foreign.discrete`.
PROTOCOLS = {"ddpm_small": ("small", "ddpm"), "ddpm_large": ("large", "ddpm"), "vdm": ("posterior", "vdm")}


@dataclass(frozen=True)
class Foreign:
    """A network that looks like :class:`~indm.diffusion.model.ImplicitNonlinearDiffusion` to an evaluation; it has no flow."""

    noise: NoiseFn
    sde: SDE
    eps: float

    @property
    def path(self) -> LinearPath:
        """The linear diffusion."""
        return LinearPath(self.sde)

    def flow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (B, *) as they are, and log-determinants of 0 in nats, shape (B,)."""
        return x, x.new_zeros(len(x))


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a network on data, a batch at a time; each sample draws by its place, so that no number depends on the batches.

    Arguments:
        model: the network.
        data: the data.
        batch_size: samples in a batch.
        time_draws: stratified times of a bound.
        control: basis of the bound's control variate.
        seed: seed of all draws.
        device: where to compute.
    """

    model: Foreign
    data: Data
    batch_size: int
    time_draws: int
    control: Literal["pixels", "cosine"]
    seed: int
    device: torch.device

    def table(self, ode_steps: int) -> pd.DataFrame:
        """Return all numbers but the bounds of T steps, a row for each sample."""
        found = self._likelihoods(ode_steps, self.time_draws, self.seed)
        alpha = cast("float", alpha_at_eps(cast("ImplicitNonlinearDiffusion", self.model)))
        # The shift of these numbers is a logarithm to base 2, so that this power of alpha gives it in nats.
        alpha **= math.log(2) / self.data.unit
        found = with_fixed(found, pd.Series(alpha, found.index)).assign(
            **{BARE: found[BARE]},
            # Same draws, half the steps; then other draws, same steps.
            nll_half_steps=self._likelihoods(max(1, ode_steps // 2), 1, self.seed)["nll"],
            nll_other_draws=self._likelihoods(ode_steps, 1, self.seed + 1)["nll"],
        )
        return found if not isinstance(self.data, Levels) else found.assign(**self._lossless(self.data))

    def _batches(self) -> Iterator[slice]:
        """Yield the samples of each batch."""
        for start in bar(NAME)(range(0, len(self.data), self.batch_size)):
            yield slice(start, min(start + self.batch_size, len(self.data)))

    @cached_property
    def _control(self) -> GaussianControl:
        """The control variate, fitted to the first samples."""
        found = []
        for start in range(0, min(len(self.data), CONTROL_IMAGES), CONTROL_BATCH):
            part = slice(start, min(start + CONTROL_BATCH, CONTROL_IMAGES, len(self.data)))
            found.append(self.data.inputs(part, _draws(part, "control"), self.device))
        return GaussianControl.fitted(self.model.sde, torch.cat(found), cosine=self.control == "cosine")

    def _likelihoods(self, ode_steps: int, time_draws: int, seed: int) -> pd.DataFrame:
        """Return the likelihoods of each sample, by so many ODE steps and times of the bound."""
        found = []
        for part in self._batches():
            draws = _draws(part, NAME, seed, "nll")
            nats = four_numbers(
                self.model.noise,
                self.model.path,
                self.model.flow,
                self.data.inputs(part, draws, self.device),
                eps=self.model.eps,
                time_draws=time_draws,
                tolerance=None,
                ode_steps=ode_steps,
                uncorrected=True,
                generator=draws,
                control=self._control,
            )
            found.append(pd.DataFrame({key: self.data.per_dim(value).numpy() for key, value in nats.items()}))
        table = pd.concat(found, ignore_index=True)
        table["gap"] = table["nelbo"] - table["nll"]
        return _finite(table)

    @torch.no_grad()
    def _lossless(self, data: Levels) -> dict[str, Any]:
        """Return the bounds of levels that are only scaled: as a density, by their ends, and by both decoders of levels."""
        by_ends, found = replace(data, grid="ends"), []
        for part in self._batches():
            batch, density = self._undequantised(by_ends, part)
            if data.grid != "ends":
                batch, _ = self._undequantised(data, part)
            found.append({"nelbo_undequantised": density} | batch)
        return {key: torch.cat([batch[key] for batch in found]).numpy() for key in found[0]}

    def _undequantised(self, data: Levels, part: slice) -> tuple[dict[str, Tensor], Tensor]:
        """Return the lossless bounds of a batch, and its bound as a density, in bits/dim, (B,) each."""
        x, pixels, model = data.scaled(part, self.device), data.pixels[part].to(self.device), self.model
        draws = _draws(part, NAME, self.seed, "undequantised")
        noise = normal(draws, x)
        bound, cost = self._bound(x, draws), model.path.decoder(model.noise, x, model.eps, noise)
        t = torch.tensor(model.eps, dtype=torch.float64)
        costs = decoder_costs(model.noise, model.sde, x, pixels, data.places, t, noise)
        without = self._divergence(bound, x)
        lossless = {f"lossless_{name}": data.code_length(without + value.cpu()) for name, value in costs.items()}
        return lossless, data.per_dim(bound + cost.double().cpu())

    def _bound(self, x: Tensor, draws: Draws) -> Tensor:
        """Return the bound of densities without reconstruction, in nats, (B, *) to (B,), float64, on the CPU."""
        zeros, model = x.new_zeros(len(x)), self.model
        bound = stratified_nelbo(model.noise, model.path, x, zeros, model.eps, self.time_draws, draws, self._control)
        return bound.double().cpu()

    def _divergence(self, bound: Tensor, x: Tensor) -> Tensor:
        r"""Return the bound without the entropy of noisy images at eps, which decoders of levels do not spend.

        .. math:: \mathrm{KL}(q(z_T \mid x)\,\|\,p_T)
            + \tfrac12\int_{A_\epsilon}^{A_T} \|\epsilon_\theta - \epsilon\|^2\, \mathrm dA

        References:
            | Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630, equations 11 and 17
        """
        sigma = self.model.sde.sigma(torch.tensor(self.model.eps, dtype=torch.float64))
        return bound - gaussian_entropy(sigma, x)

    @torch.no_grad()
    def steps(self, count: int) -> pd.DataFrame:
        """Return the bounds of T steps, their terms, and the numbers on the way to them, a row for each image, in bits/dim.

        The columns are ``first``: the bound of densities that begins at the first latent; ``first_ddpm`` and ``first_vdm``: the
        integral from there on, with the decoders of levels; ``steps_ddpm`` and ``steps_vdm``: the sum over steps of the
        posterior's variance in place of the integral, without clipped images; and the bounds by their names in
        :data:`PROTOCOLS`, with their terms, such as ``vdm_prior``, ``vdm_diffusion`` and ``vdm_decoder``.
        """
        times = step_times(count)
        first = replace(self, model=replace(self.model, eps=float(times[0])))
        found = [first._steps(cast("Levels", self.data), part, times) for part in self._batches()]
        return _finite(pd.concat([pd.DataFrame(batch) for batch in found], ignore_index=True))

    def _steps(self, data: Levels, part: slice, times: Tensor) -> dict[str, Any]:
        """Return the columns of :meth:`steps` for a batch; eps is the time of the first latent."""
        model, x, pixels = self.model, data.scaled(part, self.device), data.pixels[part].to(self.device)
        draws = _draws(part, NAME, self.seed, "first")
        density = nelbo_alone(
            model.noise,
            model.path,
            model.flow,
            data.inputs(part, draws, self.device),
            eps=model.eps,
            time_draws=self.time_draws,
            generator=draws,
            control=self._control,
        )
        integral = self._divergence(self._bound(x, draws), x)
        draws = _draws(part, NAME, self.seed, "steps")
        terms = step_bounds(model.noise, model.sde, x, pixels, data.places, times, draws)
        nats = {f"first_{name}": integral + terms[name] for name in ("ddpm", "vdm") if name in terms}
        nats |= {
            f"steps_{name}": terms["prior"] + terms["posterior"] + terms[name]
            for name in ("ddpm", "vdm")
            if name in terms
        }
        for name, (diffusion, decoder) in PROTOCOLS.items():
            if decoder in terms:
                parts = {"prior": terms["prior"], "diffusion": terms[diffusion], "decoder": terms[decoder]}
                nats |= {f"{name}_{part}": value for part, value in parts.items()} | {
                    name: torch.stack([*parts.values()]).sum(0)
                }
        bits = {key: data.code_length(value).numpy() for key, value in nats.items()}
        return {"first": data.per_dim(density).numpy()} | bits


def _draws(part: slice, *identity: str | int) -> Draws:
    """Return a generator for each sample of a batch, by its place among all samples."""
    return of_images(range(part.start, part.stop), *identity)


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table, if all of its numbers are finite.

    Raises:
        DivergenceError: if one is not.
    """
    if not table.map(math.isfinite).all(axis=None):
        raise DivergenceError(
            "network: found a likelihood that is not finite, expected finite ones; raise eps, or ode_steps"
        )
    return table
