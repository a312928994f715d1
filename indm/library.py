"""A trained run in Python: sample images, map images to latents and back, evaluate likelihoods.

Images are levels, as in a prepared dataset: uint8, shape (N, C, H, W), from 0 to L - 1. Matmuls and convolutions are
computed in IEEE float32, on GPUs too, as in every evaluation.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Generator, Tensor

from indm.arguments import COUNT, SEED, Range, check_number, find_device, shown
from indm.data.levels import dequantise, quantise
from indm.diffusion.evaluation import Evaluation, likelihoods
from indm.diffusion.generate import draw_levels
from indm.diffusion.model import ImplicitNonlinearDiffusion, described_model, load_model
from indm.errors import ArtifactError, DataError, ParamsError, memory_errors
from indm.facts import goes_with
from indm.process import float32_products
from indm.progress import bar
from indm.registry import DATASETS
from indm.seeding import derive_seed
from indm.shipped import WEIGHTS
from indm.store.files import AGAIN, CHECKPOINT_FORMAT, read_json, read_spec
from indm.store.manifest import damage, read_manifest
from indm.store.weights import read_published

CHECKPOINT = "checkpoint.safetensors"
# Letters of a name in an error.
LONGEST = 300
AVERAGED = {"score": "ema", "flow": "ema"}
Values = Tensor | ArrayLike
# The ranges of numbers, as in suites; of a number without an entry, COUNT.
RANGES = {"steps": COUNT._replace(most=10**6), "seed": SEED, "log_det_tolerance": Range(Real, 1e-6, 1e6)}


@contextmanager
def _as_stages_do() -> Iterator[None]:
    """Compute inside the block as a stage does, whatever the calling program has set."""
    # Only where it is needed, because it slows every call down.
    device = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    with device, float32_products(), torch.inference_mode(False), memory_errors():
        yield


@dataclass(frozen=True)
class Likelihood:
    """Likelihoods of N images, in bits per dimension.

    Arguments:
        nll: negative log-likelihood of each image under the probability-flow ODE, float64, shape (N,).
        nelbo: bound on the negative log-likelihood of each image under the SDE, float64, shape (N,).
        seed: seed of dequantisation, noise and times.
    """

    nll: Tensor
    nelbo: Tensor
    seed: int

    def __str__(self) -> str:
        parts = [f"{name} {_mean(values)}" for name, values in (("NLL", self.nll), ("NELBO", self.nelbo))]
        return f"{', '.join(parts)} bits/dim ({len(self.nll)} images, seed {self.seed})"


@dataclass(frozen=True)
class Run:
    """A trained model and the format of its images; made by :func:`load_run`.

    Arguments:
        name: name of the run.
        model: the model, frozen, in eval mode.
        dataset: name of the dataset on which it was trained.
        seed: seed of the run.
    """

    name: str
    model: ImplicitNonlinearDiffusion
    dataset: str
    seed: int

    @property
    def levels(self) -> int:
        """Number L of levels of a pixel."""
        return DATASETS[self.dataset].levels

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @_as_stages_do()
    def sample(self, count: int, *, steps: int = 50, seed: int | None = None, batch_size: int = 400) -> Tensor:
        r"""Sample images: latents by ancestral sampling, then the flow's inverse, rounded to levels.

        A model family that does not support this sampler uses the first sampler that it supports.

        .. math:: z_T \sim \mathcal N(0, \sigma_T^2 I), \qquad z_T \to z_0, \qquad x = h_\phi^{-1}(z_0)

        Arguments:
            count: number N of images.
            steps: number of times of a uniform grid; the network is called once at each.
            seed: seed of the noise; the run's seed by default.
            batch_size: images sampled at once; another size gives other images, because each batch has its own noise.

        Returns:
            Levels, uint8, shape (N, C, H, W), on the CPU.

        Raises:
            ParamsError: if a suite does not allow a number.
            DivergenceError: if a pixel is not finite.
            ConvergenceError: if the flow cannot be inverted where the sampler ended.

        References:
            | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equation 7
        """
        seed = self.seed if seed is None else seed
        _check(count=count, steps=steps, batch_size=batch_size, seed=seed)
        family = self.model.spec.get("family")
        images, _ = draw_levels(
            self.model,
            self.levels,
            num_samples=count,
            batch_size=batch_size,
            seed=(self.dataset, seed, "sample"),
            device=self.device,
            mean=None,
            progress=bar(self.name),
            rounding="nearest",
            temperature=1.0,
            sampler=next(iter(goes_with(family, "sampler") if family else ()), "ancestral"),
            steps=steps,
            grid="uniform",
            corrector_snr=None,
            corrector_steps=1,
            tolerance=1e-4,
            denoise="tweedie",
        )
        return torch.from_numpy(images)

    @_as_stages_do()
    @torch.no_grad()
    def encode(self, images: Values, *, seed: int = 0) -> Tensor:
        r"""Map images to latents, in which the diffusion is linear.

        .. math:: z = h_\phi(x), \qquad x = 2\,\frac{\xi + u}{L} - 1, \quad u \sim U[0, 1)

        Arguments:
            images: levels :math:`\xi`, uint8, shape (N, C, H, W).
            seed: seed of the noise :math:`u` that makes levels continuous, and of a flow with a random map.

        Returns:
            Latents, float32, shape (N, C, H, W), on the model's device.

        Raises:
            DataError: if the images have another shape, type or range.
            ParamsError: if a suite does not allow the seed.

        References:
            | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
            | https://arxiv.org/abs/2205.13699, section 3
        """
        _check(seed=seed)
        generator = Generator().manual_seed(derive_seed("encode", seed))
        x = dequantise(self._checked(images), self.levels, generator, self.model.centered)
        return self.model.flow(x.to(self.device), "none", generator)[0]

    @_as_stages_do()
    @torch.no_grad()
    def invert(self, latents: Values, *, seed: int = 0) -> Tensor:
        r"""Map latents to images, rounded to levels: the inverse of :meth:`encode`.

        .. math:: x = h_\phi^{-1}(z), \qquad \xi = \Big\lfloor L\,\frac{x + 1}{2} \Big\rfloor

        Arguments:
            latents: :math:`z`, real numbers, shape (N, C, H, W).
            seed: seed of a flow with a random inverse.

        Returns:
            Levels, uint8, shape (N, C, H, W), on the CPU.

        Raises:
            DataError: if the latents have another shape, or are not finite real numbers.
            ParamsError: if a suite does not allow the seed.
            ConvergenceError: if the flow cannot be inverted there.
        """
        found = self._tensor("latents", latents)
        if not found.is_floating_point():
            raise DataError(f"latents: found {found.dtype}, expected real numbers, such as float32")
        if not torch.isfinite(found := found.float()).all():
            raise DataError(
                "latents: found numbers that are not finite, or too large for float32; expected finite ones"
            )
        _check(seed=seed)
        generator = Generator().manual_seed(derive_seed("invert", seed))
        x = self.model.flow.inverse(found.to(self.device), generator=generator)
        return quantise(x, self.levels, self.model.centered).cpu()

    @_as_stages_do()
    def likelihood(
        self,
        images: Values,
        *,
        seed: int | None = None,
        time_draws: int = 80,
        ode_steps: int = 32,
        log_det_tolerance: float | None = None,
        batch_size: int = 360,
        draws: Literal["image", "batch"] = "image",
        control: Literal["pixels", "cosine"] = "pixels",
        training: Values | None = None,
    ) -> Likelihood:
        r"""Evaluate the likelihood of images, as the ``nll`` stage does.

        .. math:: \mathrm{NLL} = -\log_2 p(\xi) / D, \qquad
            -\log p(x) = -\log p_{\text{ODE}}(h_\phi(x)) - \log\Big|\det\frac{\partial h_\phi}{\partial x}\Big|

        Arguments:
            images: levels :math:`\xi`, uint8, shape (N, C, H, W), of D dimensions each.
            seed: seed of all random numbers; the run's seed by default. Two models with the same seed meet the same random
                numbers.
            time_draws: times of the bound, for each image.
            ode_steps: steps of the ODE.
            log_det_tolerance: bound on the rest of the power series of the flow's log-determinant, in bits/dim; by default
                the log-determinant is exact, from the whole Jacobian, which is feasible for small images only.
            batch_size: images evaluated at once.
            draws: ``image``: the random numbers of an image come from its place among the images and the seed, so that likelihoods
                do not depend on ``batch_size``; ``batch``: they also depend on ``batch_size``, as in suites without the key
                ``draws``. With ``batch`` and the other defaults, likelihoods are those of the ``digits`` suite.
            control: basis of the bound's control variate; ``cosine``, for draws by image, has smaller errors on photographs.
            training: levels, uint8, shape (N, C, H, W), to whose latents the control variate of the bound is fitted, as the ``nll``
                stage fits it to the training images; by default the images themselves. It moves the errors of single draws only.

        Returns:
            NLL and NELBO of each image, in bits/dim.

        Raises:
            ParamsError: if a suite does not allow a number.
            DataError: if the images have another shape, type or range.
            DivergenceError: if a number is not finite.

        References:
            | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
            | https://arxiv.org/abs/2205.13699, section 3 and theorem 1
        """
        seed = self.seed if seed is None else seed
        _check(time_draws=time_draws, ode_steps=ode_steps, batch_size=batch_size, seed=seed)
        if log_det_tolerance is not None:
            _check(log_det_tolerance=log_det_tolerance)
        if draws not in ("image", "batch"):
            raise ParamsError(f"draws: found {draws!r}, expected image or batch")
        if control not in ("pixels", "cosine") or (draws, control) == ("batch", "cosine"):
            raise ParamsError(f"control: found {control!r}, expected pixels, or cosine with draws='image'")
        fitted_to = images if training is None else training
        evaluation = Evaluation(
            batch_size=batch_size,
            time_draws=time_draws,
            tolerance=None,
            ode_steps=ode_steps,
            log_det_tolerance=log_det_tolerance,
            uncorrected=False,
            draws=draws,
            control=control,
        )
        table = likelihoods(
            self.model,
            self._checked(images),
            self.levels,
            evaluation,
            seed=(self.dataset, seed),
            device=self.device,
            description=self.name,
            once=lambda name, make: make(),
            training=lambda: self._checked(fitted_to, "training"),
        )
        nll, nelbo = (torch.tensor(table[key].to_numpy()) for key in ("nll", "nelbo"))
        return Likelihood(nll, nelbo, seed)

    def _checked(self, images: Values, what: str = "images") -> Tensor:
        """Return images as a tensor on the CPU, if they are levels of this run's shape."""
        found, takes = self._tensor(what, images), f"{self.name} takes uint8 from 0 to {self.levels - 1}"
        if found.dtype != torch.uint8:
            raise DataError(f"{what}: found {found.dtype}; {takes}")
        # Compared as a tensor of bytes, 256 would wrap to 0.
        if int(found.max()) >= self.levels:
            raise DataError(f"{what}: found {found.dtype} from {found.min()} to {found.max()}; {takes}")
        return found

    def _tensor(self, what: str, values: Values) -> Tensor:
        """Copy a tensor, an array or lists of numbers to the CPU, if they have this run's shape."""
        try:
            if not isinstance(values, Tensor):
                # Unlike np.asarray, it keeps masks, also of arrays in a list.
                array: NDArray[Any] = np.ma.asarray(values)
                if np.ma.is_masked(array):
                    raise ValueError("masked elements have no numbers")
                # Torch needs this machine's byte order, and contiguous elements.
                values = torch.from_numpy(np.asarray(array).astype(array.dtype.newbyteorder("="), "C"))
            # Copied, because a tensor made in inference mode cannot be differentiated.
            found = values.cpu().clone(memory_format=torch.contiguous_format)
        except (RuntimeError, TypeError, ValueError) as error:
            kind = f"found {type(values).__name__}, which torch cannot read as numbers"
            raise DataError(f"{what}: {kind}; expected a tensor, an array or lists of numbers") from error
        if (shape := tuple(found.shape))[1:] != self.model.shape or not shape[0]:
            expected = ", ".join(map(str, self.model.shape))
            raise DataError(f"{what}: found shape {shape}; {self.name} takes (N, {expected}), N at least 1")
        return found


@_as_stages_do()
def load_run(run: str | Path, device: str = "cpu") -> Run:
    """Load a trained run.

    Arguments:
        run: a run whose weights come with this package (``digits-vp-indm-nll-s4``), a file of weights that another checkout
            published (``docs/results/<suite>/weights/<run>.safetensors``), or the folder of a run of your own
            (``results/<suite>/runs/<run>``), from which the weights of its samples are taken.
        device: torch's name of the device for the model.

    Returns:
        The run.

    Raises:
        ArtifactError: if there is no such run (the message lists the known runs), or its file is damaged, or the manifest of
            its training is missing.
        DataError: if this machine has no such device.
        ParamsError: if ``run`` is neither a string nor a path.
    """
    place, where = _place(run), find_device(device)
    if place.is_dir():
        name, model = _trained(place)
    else:
        tensors, spec = read_published(place)
        name, model = str(spec.get("run")), described_model(place, spec, tensors)
    # A name begins with the dataset and ends with the seed.
    found = re.fullmatch(rf"({'|'.join(sorted(DATASETS, key=len, reverse=True))})-.+-s(\d+)", name)
    if found is None:
        expected = f"<dataset>-...-s<seed>, with a dataset of: {', '.join(DATASETS)}"
        raise ArtifactError(f"{place}: found run {name!r}, expected {expected}")
    return Run(name, model.to(where).eval().requires_grad_(False), found[1], int(found[2]))


def _place(run: str | Path) -> Path:
    """Find the folder or the file of a run."""
    if not isinstance(run, str | Path) or not str(run):
        raise ParamsError(f"run: found {shown(run)}, expected the name of a run, a file of weights or a run's folder")
    path = Path(run)
    published = {file.stem: file for file in sorted(WEIGHTS.glob("*/*.safetensors"))}
    if _exists(path):
        return path
    if str(run) in published:
        return published[str(run)]
    neighbours = path.parent.glob(f"*/{CHECKPOINT}") if _exists(path.parent) else ()
    beside = ", ".join(sorted(file.parent.name for file in neighbours))
    there = f"in {path.parent}: {beside}; " if beside else ""
    name = str(run) if len(str(run)) <= LONGEST else shown(str(run))
    raise ArtifactError(f"{name}: found no such run; {there}this package includes: {', '.join(published)}")


def _exists(path: Path) -> bool:
    """Return whether there is a file or a folder; there is none with a name that the system does not allow."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _trained(folder: Path) -> tuple[str, ImplicitNonlinearDiffusion]:
    """Load the checkpoint of the user's own run, with the weights of its samples, or averaged weights if it has none."""
    name, path = folder.resolve().name, folder / CHECKPOINT
    if (found := read_spec(path, CHECKPOINT_FORMAT).get("run")) != name:
        raise ArtifactError(f"{path}: found the checkpoint of run {found!r}, expected run {name!r}; {AGAIN}")
    # Safetensors would read changed numbers silently.
    outputs = read_manifest(manifest := folder / "manifest/train.json").outputs
    expected = next((sha256 for file, sha256 in outputs.items() if Path(file).name == CHECKPOINT), "none")
    if words := damage(path, expected, manifest):
        raise ArtifactError(f"{words}; {AGAIN}")
    samples = folder / "samples.json"
    used = read_json(samples).get("weights") if samples.is_file() else {}
    if not isinstance(used, dict) or not {str(kind) for kind in used.values()} <= {"ema", "raw", "None"}:
        raise ArtifactError(f"{samples}: found weights {used!r}, expected ema or raw for score and flow; {AGAIN}")
    # A flow without parameters has no entry.
    drawn_with = {network: kind for network, kind in used.items() if kind}
    return name, load_model(path, torch.device("cpu"), AVERAGED | drawn_with)


def _check(**numbers: float) -> None:
    """Check that a suite allows these numbers."""
    for name, number in numbers.items():
        check_number(name, number, RANGES.get(name, COUNT))


def _mean(values: Tensor) -> str:
    """Write a mean with its standard error over images, if there are several."""
    error = f" ± {values.std() / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{error}"
