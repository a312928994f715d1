"""The paper's model: a flow, then a linear diffusion of its latent with a score network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from indm.diffusion.learned_range import LearnedRange
from indm.diffusion.noise import NoiseModel
from indm.diffusion.path import ForwardPath, LinearPath
from indm.diffusion.precondition import Preconditioner
from indm.diffusion.sde import SDE, build_sde
from indm.errors import ArtifactError, IndmError
from indm.flows.base import Batches
from indm.flows.build import build_flow
from indm.networks.build import build_network
from indm.registry import FAMILIES
from indm.store.files import AGAIN, CHECKPOINT_FORMAT, SNAPSHOTS_FORMAT, check_finite, read_weights


class ImplicitNonlinearDiffusion(nn.Module):
    r"""A flow :math:`z_0 = h_\phi(x)` and the noise prediction :math:`\epsilon_\theta(z_t, t)` of a linear SDE of :math:`z`.

    The diffusion of :math:`x_t = h_\phi^{-1}(z_t)` is nonlinear; with the identity as flow this is DDPM++ (NCSN++ under VE).

    Arguments:
        spec: the specification that rebuilds the model: ``sde`` (name and parameters, and ``learned_range`` if the ends of
            its log-SNR are trained), ``eps``, ``shape`` (C, H, W), ``score`` (name and keyword arguments of the network,
            ``normalise_input``, ``predict`` if it is not the noise, and ``precondition`` if there is any), ``centered`` (whether
            data lies in [-1, 1]; otherwise it lies in [0, 1] and the network maps it to [-1, 1] itself), ``flow`` (name and
            keyword arguments, among them ``affine`` and ``fixed`` for fixed maps), and ``family`` (if it has its own class).

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, section 3
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.spec = dict(spec)
        channels, size, _ = spec["shape"]
        score = dict(spec["score"])
        normalise_input, predict = score.pop("normalise_input"), score.pop("predict", "noise")
        kind = score.pop("precondition", None)
        self.eps: float = spec["eps"]
        network = build_network(channels_in=channels, image_size=size, centered=spec["centered"], **score)
        precondition = None if kind is None else Preconditioner(kind, self.shape)
        self.noise = NoiseModel(network, _diffusion(self.eps, **spec["sde"]), normalise_input, predict, precondition)
        self.flow = build_flow(channels_in=channels, image_size=size, **spec["flow"])

    @property
    def sde(self) -> SDE:
        """The linear diffusion of the latent, which belongs to the score network if its range is learned."""
        return self.noise.sde

    @property
    def path(self) -> ForwardPath:
        """The forward process of the latent; families whose process is not linear have their own."""
        return LinearPath(self.sde)

    @torch.no_grad()
    def fit(self, batches: Batches) -> None:
        """Set what fixed maps and a preconditioned network take from the training images, before the training.

        Arguments:
            batches: passes over the training images in model space, in batches (B, C, S, S).

        Raises:
            DataError: if a coefficient of their latents does not vary, with a preconditioned network.
        """
        self.flow.fit(batches)
        if self.noise.precondition is not None:
            self.noise.precondition.fit(lambda: (self.flow(x, "none")[0] for x in batches()))

    @property
    def centered(self) -> bool:
        """Whether data is scaled to [-1, 1]; otherwise it is scaled to [0, 1]."""
        return bool(self.spec["centered"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image and of its latent."""
        channels, height, width = self.spec["shape"]
        return channels, height, width


def build_model(spec: Mapping[str, Any]) -> ImplicitNonlinearDiffusion:
    """Build a model from its specification, as an instance of its family's class."""
    return FAMILIES[spec["family"]](spec) if "family" in spec else ImplicitNonlinearDiffusion(spec)


def _diffusion(eps: float, *, learned_range: bool = False, **parameters: Any) -> SDE:
    sde = build_sde(**parameters)
    return LearnedRange(sde, eps) if learned_range else sde


def load_model(
    path: Path, device: torch.device, weights: Mapping[str, str], step: int | None = None
) -> ImplicitNonlinearDiffusion:
    """Load a checkpoint, or a snapshot taken during training, as a frozen model in eval mode.

    Arguments:
        path: the file.
        device: where to put the model.
        weights: ``ema`` or ``raw`` for each network, ``score`` and ``flow``.
        step: training step of the snapshot; ``None`` for a checkpoint.

    Returns:
        The model.

    Raises:
        ArtifactError: if the file is missing, damaged or foreign, does not fit its description, or has a weight that is not
            finite.
    """
    tensors, spec = read_weights(path, CHECKPOINT_FORMAT if step is None else SNAPSHOTS_FORMAT)
    place = "" if step is None else f"{step}."
    state: dict[str, Tensor] = {
        f"{module}.{key}": tensor
        for module, kind in (("noise", weights["score"]), ("flow", weights["flow"]))
        for key, tensor in strip_prefix(tensors, f"{place}{kind}.{module}").items()
    }
    return described_model(path, spec, state).to(device).eval().requires_grad_(False)


def described_model(path: Path, spec: Mapping[str, Any], state: Mapping[str, Tensor]) -> ImplicitNonlinearDiffusion:
    """Build the model that a file describes, with the file's weights.

    Arguments:
        path: the file, named in error messages.
        spec: the file's description; ``model`` is the specification of :class:`ImplicitNonlinearDiffusion`.
        state: the weights by their names in the model, each with its shape and type there.

    Returns:
        The model.

    Raises:
        ArtifactError: if the file does not describe a model, its weights do not fit the described model, or a weight is not
            finite.
    """
    check_finite(path, state)
    try:
        model = build_model(spec["model"])
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, IndmError) as error:
        raise ArtifactError(f"{path}: describes no model that this version can build ({error!r}); {AGAIN}") from None
    expected = model.state_dict()
    if odd := [name for name, tensor in state.items() if name in expected and tensor.dtype != expected[name].dtype]:
        raise ArtifactError(
            f"{path}: {odd[0]}: found {state[odd[0]].dtype}, expected {expected[odd[0]].dtype}; {AGAIN}"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise ArtifactError(
            f"{path}: the weights do not fit the model that the file describes: {words}; {AGAIN}"
        ) from None
    return model


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors, of any shapes, whose names start with ``prefix.``, and remove the prefix."""
    return {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}
