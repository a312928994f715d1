"""What a model is trained and measured on: a dataset of images, or points of a known density as small images."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from indm.bench.entries.tracks import SHAPE, DensitiesParams, LoadedTrack, density_name
from indm.bench.models.begin import dequantised
from indm.data.dataset import SPLITS
from indm.densities.known import DENSITIES, Density, Pushed
from indm.diffusion.decoder import alpha_at_eps
from indm.diffusion.draws import beside
from indm.diffusion.evaluation import Evaluation, likelihoods
from indm.diffusion.fixed_decoder import with_fixed
from indm.diffusion.likelihood import four_numbers
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import ArtifactError, DivergenceError
from indm.registry import DATASETS
from indm.seeding import derive_seed
from indm.training.batches import Batch, Draws, step_batch

CPU = torch.device("cpu")
# Standard errors below the truth at which a bound is no bound.
BELOW = 5
# The columns of what is measured: an image's bound, or a density's mean bound minus the truth, with both decoders, in bits/dim.
MEASURED = ["split", "item", "nelbo", "nelbo_fixed"]


class Task(Protocol):
    """What a model is trained and measured on."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, S, S) of an image."""

    def batch(self, seed: int, step: int) -> Batch:
        """Return the images, times and noise of a step, which are the same for all models."""

    def fitted(self) -> Iterable[Tensor]:
        """Pass over the training images in model space, for maps that are fitted to them."""

    def read(self) -> None:
        """Read the data, after which no file is read any more."""

    def measure(self, model: ImplicitNonlinearDiffusion, seed: int) -> pd.DataFrame:
        """Measure a trained model; the columns are :data:`MEASURED`."""


def tasks_of(track: LoadedTrack) -> list[Task]:
    """List the tasks of a track."""
    if track.content.densities is None:
        return [Images(track)]
    return [Points(track, name, track.content.densities) for name in track.content.densities.names]


class Images:
    """The dataset of a track's run."""

    def __init__(self, track: LoadedTrack) -> None:
        self.params, self.suite = track.params, track.suite
        self.name = track.suite.runs[track.content.run].dataset
        self.dataset = DATASETS[self.name]
        self.shape = self.dataset.shape

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """The images of each split as levels, uint8, shape (N, C, S, S)."""
        known = self.suite.datasets[self.name]
        dataset = self.dataset.holding_out(known.validation)
        splits = dataset.load(known.split_seed)
        dataset.check(splits)
        return {name: torch.from_numpy(np.concatenate([*dataset.read(name, splits[name])])) for name in SPLITS}

    def batch(self, seed: int, step: int) -> Batch:
        """Return the batch of a step."""
        return step_batch(
            self.images["train"],
            self.dataset.levels,
            self.params.batch_size,
            (self.name, seed, "train"),
            step,
            CPU,
            random_flip=self.params.random_flip,
            centered=self.params.centered,
        )

    def fitted(self) -> Iterator[Tensor]:
        """Pass over the training images in model space."""
        seed = derive_seed(self.name, "fixed map")
        return dequantised(self.images["train"], self.dataset.levels, self.params.centered, seed, CPU)

    def read(self) -> None:
        """Read the images."""
        assert self.images

    def measure(self, model: ImplicitNonlinearDiffusion, seed: int) -> pd.DataFrame:
        """Measure the bound of validation and test images, in bits/dim."""
        keys = self.suite.nll.model_dump(exclude={"images", "log_det"})
        evaluation = replace(Evaluation(**keys), ode_images=0, uncorrected=False)
        settings: dict[str, Any] = {
            "device": CPU,
            "once": lambda name, make: make(),
            "description": f"bound {self.name}",
        }
        settings |= {"training": lambda: self.images["train"]}
        found = [
            likelihoods(
                model,
                self.images[split],
                self.dataset.levels,
                evaluation,
                seed=(self.name, derive_seed(seed, split)),
                **settings,
            ).assign(split=split)
            for split in ("valid", "test")
        ]
        table = pd.concat([part.rename_axis("item").reset_index() for part in found], ignore_index=True)
        return _both_decoders(model, table)


@dataclass(frozen=True)
class Points:
    """Points of a known density, which a rotation of the seed turns: an image of shape :data:`SHAPE` is a point."""

    track: LoadedTrack
    name: str
    params: DensitiesParams
    shape: tuple[int, int, int] = SHAPE

    def density(self, seed: int) -> Density:
        """Return the density of a seed: the known one, turned."""
        dims = math.prod(self.shape)
        generator = Generator().manual_seed(derive_seed(self.name, seed, "rotation"))
        turn = torch.linalg.qr(torch.randn(dims, dims, generator=generator, dtype=torch.float64))[0]
        return Pushed(
            DENSITIES[density_name(self.name)](), lambda x: (x @ turn, x.new_zeros(len(x))), lambda u: u @ turn.mT
        )

    def batch(self, seed: int, step: int) -> Batch:
        """Return the points, times and noise of a step."""
        size = self.track.params.batch_size
        generator = Generator().manual_seed(derive_seed(self.name, seed, "train", "step", step))
        x = self._points(seed, size, generator).float()
        u = torch.rand(size, generator=generator, dtype=torch.float64)
        return Draws(x, u, torch.randn(x.shape, generator=generator), 0.0, generator, size)

    def fitted(self) -> Iterator[Tensor]:
        """Pass over no points, because there are new ones in every step."""
        return iter(())

    def read(self) -> None:
        """Read nothing, because points are drawn."""

    def measure(self, model: ImplicitNonlinearDiffusion, seed: int) -> pd.DataFrame:
        """Measure how far the mean bound is above the truth, in bits/dim."""
        rows = [self._excess(model, seed, split) | {"split": split, "item": 0} for split in ("valid", "test")]
        return _both_decoders(model, pd.DataFrame(rows))

    def _excess(self, model: ImplicitNonlinearDiffusion, seed: int, split: str) -> dict[str, float]:
        x = self._points(seed, self.params.points, self._draws(seed, split))
        truth, draws = self.density(seed).log_prob(x.flatten(1)), self._draws(seed, split, "bound")
        nats = four_numbers(
            model.noise,
            model.path,
            partial(model.flow, log_det="exact", generator=beside(draws)),
            x.float(),
            eps=model.eps,
            time_draws=self.params.time_draws,
            tolerance=None,
            ode_steps=1,
            uncorrected=False,
            generator=draws,
            ode_images=0,
        )
        bits = 1 / (math.prod(self.shape) * math.log(2))
        _check_above(bits * (nats["nelbo"] + truth), self.name)
        return {name: bits * float((values + truth).mean()) for name, values in nats.items()}

    def _points(self, seed: int, count: int, generator: Generator) -> Tensor:
        return self.density(seed).sample(count, generator).unflatten(1, self.shape)

    def _draws(self, seed: int, *purpose: str) -> Generator:
        return Generator().manual_seed(derive_seed(self.name, seed, *purpose))


def _both_decoders(model: ImplicitNonlinearDiffusion, table: pd.DataFrame) -> pd.DataFrame:
    """Add the bound with the fixed decoder, which is absent where its constant is unknown."""
    alpha = alpha_at_eps(model)
    known = pd.Series(math.nan if alpha is None else alpha, index=table.index)
    return with_fixed(table, known)[MEASURED]


def _check_above(excess: Tensor, name: str) -> None:
    """Refuse a bound that is not finite, or below the truth by more than chance: its density would integrate to more than 1.

    Arguments:
        excess: the bound minus the truth at each point, in bits/dim, shape (N,).

    Raises:
        DivergenceError: if a number is not finite.
        ArtifactError: if their mean is below 0 by more than :data:`BELOW` standard errors.
    """
    if not excess.isfinite().all():
        raise DivergenceError(f"found a bound on {name} that is not finite, expected finite ones; lower its RATES")
    mean, error = float(excess.mean()), float(excess.std() / len(excess) ** 0.5)
    if mean < -BELOW * error:
        raise ArtifactError(
            f"found a bound on {name} {-mean:.3g} ± {error:.1g} bits/dim below the truth, expected one above it"
        )
