"""The numbers of the referee for each sample, by the functions of the ``nll`` stage, in bits/dim or nats per dimension."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indm.diffusion.draws import Draws, normal, of_images
from indm.diffusion.likelihood import GaussianControl, four_numbers, nelbo_alone, stratified_nelbo
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE
from indm.errors import DivergenceError
from indm.foreign.conventions import Called, noise_fn, output, read, second_inputs
from indm.foreign.data import Data, Levels
from indm.foreign.discrete import ShareFn, decoder_costs, gaussian_entropy, step_bounds, step_times
from indm.progress import bar

Columns = dict[str, NDArray[np.float64]]
"""Numbers of each sample, shape (N,), by name."""
NAME = "referee"
# Samples, the first ones, to which the control variate is fitted, and how many are dequantised at once.
CONTROL_SAMPLES, CONTROL_BATCH = 1000, 100
# Bounds of T steps, by their sums over steps and their decoders; see :mod:`indm.foreign.discrete`.
PROTOCOLS = {
    "ddpm_small": ("small", "ddpm"),
    "ddpm_large": ("large", "ddpm"),
    "ddpm_learned": ("learned", "learned_decoder"),
    "vdm": ("posterior", "vdm"),
}


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
        network: the network.
        kind: its convention.
        sde: its diffusion.
        eps: truncation time.
        data: the data.
        batch_size: samples in a batch.
        time_draws: stratified times of a bound.
        control: basis of the bound's control variate.
        seed: seed of all draws.
        device: where to compute.
        progress: whether to draw bars.
    """

    network: Called
    kind: str
    sde: SDE
    eps: float
    data: Data
    batch_size: int
    time_draws: int
    control: Literal["pixels", "cosine"]
    seed: int
    device: torch.device
    progress: bool = True

    def model(self, part: slice) -> Foreign:
        """Return the network for a batch."""
        return Foreign(noise_fn(self.network.of(part), self.sde, self.kind, self.network.second), self.sde, self.eps)

    def table(self, ode_steps: int) -> Columns:
        """Return all numbers but the bounds of T steps, for each sample."""
        found = self._likelihoods("bound and ODE", ode_steps, self.time_draws, self.seed)
        # Same draws, half the steps; then other draws, same steps.
        half = self._likelihoods("ODE, half the steps", max(1, ode_steps // 2), 1, self.seed)
        other = self._likelihoods("ODE, other draws", ode_steps, 1, self.seed + 1)
        found |= self._fixed(found) | {
            "nll_half_steps": half["nll"],
            "nll_uncorrected_half_steps": half["nll_uncorrected"],
            "nll_other_draws": other["nll"],
        }
        return found if not isinstance(self.data, Levels) else found | self._lossless(self.data)

    def _fixed(self, found: Columns) -> Columns:
        r"""Return the numbers with the fixed decoder, which costs :math:`-D\ln\alpha_\epsilon` nats."""
        alpha = float(self.sde.alpha(torch.tensor(self.eps, dtype=torch.float64)))
        shift = found["nelbo_no_reconstruction"] - found["nelbo"] - math.log(alpha) / self.data.unit
        return {f"{key}_fixed": found[key] + shift for key in ("nelbo", "nll")}

    def _batches(self, words: str) -> Iterator[slice]:
        """Yield the samples of each batch, with a bar that tells what is computed."""
        starts = range(0, len(self.data), self.batch_size)
        for start in bar(f"{NAME}: {words}")(starts) if self.progress else starts:
            yield slice(start, min(start + self.batch_size, len(self.data)))

    @cached_property
    def _control(self) -> GaussianControl:
        """The control variate, fitted to the first samples."""
        found = []
        for start in range(0, min(len(self.data), CONTROL_SAMPLES), CONTROL_BATCH):
            part = slice(start, min(start + CONTROL_BATCH, CONTROL_SAMPLES, len(self.data)))
            found.append(self.data.inputs(part, _draws(part, "control"), self.device))
        return GaussianControl.fitted(self.sde, torch.cat(found), cosine=self.control == "cosine")

    def _likelihoods(self, words: str, ode_steps: int, time_draws: int, seed: int) -> Columns:
        """Return the likelihoods of each sample, by so many ODE steps and times of the bound."""
        found = []
        for part in self._batches(words):
            draws, model = _draws(part, NAME, seed, "nll"), self.model(part)
            nats = four_numbers(
                model.noise,
                model.path,
                model.flow,
                self.data.inputs(part, draws, self.device),
                eps=model.eps,
                time_draws=time_draws,
                tolerance=None,
                ode_steps=ode_steps,
                uncorrected=True,
                generator=draws,
                control=self._control,
            )
            found.append({key: self.data.per_dim(value).double().numpy() for key, value in nats.items()})
        table = _joined(found)
        return _finite(table | {"gap": table["nelbo"] - table["nll"]})

    @torch.no_grad()
    def _lossless(self, data: Levels) -> Columns:
        """Return the bounds of levels that are only scaled: as a density, by their ends, and by both decoders of levels."""
        by_ends, found = replace(data, grid="ends"), []
        for part in self._batches("bound of levels"):
            batch, density = self._undequantised(by_ends, part)
            if data.grid != "ends":
                batch, _ = self._undequantised(data, part)
            found.append({"nelbo_undequantised": density.numpy()} | {key: one.numpy() for key, one in batch.items()})
        return _finite(_joined(found))

    def _undequantised(self, data: Levels, part: slice) -> tuple[dict[str, Tensor], Tensor]:
        """Return the lossless bounds of a batch, and its bound as a density, in bits/dim, (B,) each."""
        x, pixels, model = data.scaled(part, self.device), data.pixels[part].to(self.device), self.model(part)
        draws = _draws(part, NAME, self.seed, "undequantised")
        noise = normal(draws, x)
        bound, cost = self._bound(model, x, draws), model.path.decoder(model.noise, x, model.eps, noise)
        density = data.per_dim(bound + cost.double().cpu())
        if (places := data.places) is None:
            return {}, density
        t = torch.tensor(model.eps, dtype=torch.float64)
        costs = decoder_costs(model.noise, model.sde, x, pixels, places, t, noise)
        without = self._divergence(bound, x)
        return {f"lossless_{name}": data.code_length(without + value.cpu()) for name, value in costs.items()}, density

    def _bound(self, model: Foreign, x: Tensor, draws: Draws) -> Tensor:
        """Return the bound of densities without reconstruction, in nats, (B, *) to (B,), float64, on the CPU."""
        zeros = x.new_zeros(len(x))
        bound = stratified_nelbo(model.noise, model.path, x, zeros, model.eps, self.time_draws, draws, self._control)
        return bound.double().cpu()

    def _divergence(self, bound: Tensor, x: Tensor) -> Tensor:
        r"""Return the bound without the entropy of noisy images at eps, which decoders of levels do not spend.

        .. math:: \mathrm{KL}(q(z_T \mid x)\,\|\,p_T)
            + \tfrac12\int_{A_\epsilon}^{A_T} \|\epsilon_\theta - \epsilon\|^2\, \mathrm dA

        References:
            | Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630, equations 11 and 17
        """
        sigma = self.sde.sigma(torch.tensor(self.eps, dtype=torch.float64))
        return bound - gaussian_entropy(sigma, x)

    @torch.no_grad()
    def steps(self, count: int) -> Columns:
        """Return the bounds of T steps, their terms, and the numbers on the way to them, for each image, in bits/dim.

        The columns are ``first``: the bound of densities that begins at the first latent; ``first_ddpm`` and ``first_vdm``: the
        integral from there on, with the decoders of levels; ``steps_ddpm`` and ``steps_vdm``: the sum over steps of the
        posterior's variance in place of the integral, without clipped images; and the bounds by their names in
        :data:`PROTOCOLS`, with their terms, such as ``vdm_prior``, ``vdm_diffusion`` and ``vdm_decoder``.
        """
        times = step_times(count)
        first = replace(self, eps=float(times[0]))
        return _finite(
            _joined([first._steps(cast("Levels", self.data), part, times) for part in self._batches("steps")])
        )

    def _steps(self, data: Levels, part: slice, times: Tensor) -> Columns:
        """Return the columns of :meth:`steps` for a batch; eps is the time of the first latent."""
        model, x, pixels = self.model(part), data.scaled(part, self.device), data.pixels[part].to(self.device)
        draws, grid = _draws(part, NAME, self.seed, "first"), cast("Tensor", data.places)
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
        integral = self._divergence(self._bound(model, x, draws), x)
        draws = _draws(part, NAME, self.seed, "steps")
        terms = step_bounds(model.noise, model.sde, x, pixels, grid, times, draws, self._shares(part))
        decoders = [name for name in ("ddpm", "vdm") if name in terms]
        nats = {f"first_{name}": integral + terms[name] for name in decoders}
        nats |= {f"steps_{name}": terms["prior"] + terms["posterior"] + terms[name] for name in decoders}
        for name, (diffusion, decoder) in PROTOCOLS.items():
            if decoder in terms:
                parts = {"prior": terms["prior"], "diffusion": terms[diffusion], "decoder": terms[decoder]}
                nats |= {f"{name}_{part}": value for part, value in parts.items()} | {
                    name: torch.stack([*parts.values()]).sum(0)
                }
        bits = {key: data.code_length(value).numpy() for key, value in nats.items()}
        return {"first": data.per_dim(density).double().numpy()} | bits

    def _shares(self, part: slice) -> ShareFn | None:
        """Return the noise prediction of a batch with the shares of learned variances, if the network learns them."""
        if not self.network.has_variances:
            return None
        inputs = second_inputs(self.kind, self.network.second)

        def predict(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            out, share = output(self.network.whole(part), self.sde, inputs, z, t).chunk(2, 1)
            # The network's numbers lie in [-1, 1].
            return read(out, self.sde, self.kind, z, t), (share + 1) / 2

        return predict


def _draws(part: slice, *identity: str | int) -> Draws:
    """Return a generator for each sample of a batch, by its place among all samples."""
    return of_images(range(part.start, part.stop), *identity)


def _joined(batches: list[dict[str, Any]]) -> Columns:
    """Join the columns of batches, in float64."""
    return {key: np.concatenate([batch[key] for batch in batches]).astype(np.float64) for key in batches[0]}


def _finite(table: Columns) -> Columns:
    """Return a table, if all of its numbers are finite.

    Raises:
        DivergenceError: if one is not.
    """
    if not all(np.isfinite(column).all() for column in table.values()):
        raise DivergenceError(
            "network: found a likelihood that is not finite, expected finite ones; raise eps, or ode_steps"
        )
    return table
