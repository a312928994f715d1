"""The weights of Inception-v3: finding and checking them, and a random stand-in.

References:
    | Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2016), https://arxiv.org/abs/1512.00567
    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020),
    | https://github.com/toshas/torch-fidelity
    | On Aliased Resizing and Surprising Subtleties in GAN Evaluation (Parmar et al., 2022),
    | https://arxiv.org/abs/2104.11222, https://github.com/GaParmar/clean-fid
"""

import hashlib
import http.client
import io
import math
import os
import pickle
import platform
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from cleanfid.downloads_helper import inception_url
from torch import Generator, Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from indm.errors import DataError
from indm.seeding import derive_seed

TIMEOUT = 30.0
# The tensors of a network by name, each in the shape of its parameter or buffer.
StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights.

    Arguments:
        url: where it is downloaded from.
        sha256: its sha256, or the first digits of the sha256.
        size: approximate size of the download, as shown to users.
        option: the environment variable that names it.
        folder: returns the folder in which its library keeps it.
    """

    url: str
    sha256: str
    size: str
    option: str
    folder: Callable[[], Path]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def remedy(self) -> str:
        """The action for a user who does not have the file."""
        return f"download {self.name} from {self.url} and set the environment variable {self.option} to its path"

    @property
    def cached(self) -> Path:
        """The path at which its library keeps it."""
        return self.folder() / self.name


TORCH_FIDELITY = WeightsFile(
    url=URL_INCEPTION_V3,
    # By torch.hub's convention, a name ends with the first digits of the file's sha256.
    sha256=URL_INCEPTION_V3.removesuffix(".pth").rpartition("-")[2],
    size="96 MB",
    option="INDM_INCEPTION",
    folder=lambda: Path(torch.hub.get_dir()) / "checkpoints",
)
CLEAN_FID = WeightsFile(
    url=inception_url,
    # As published in https://github.com/crowsonkb/k-diffusion, k_diffusion/evaluation.py.
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    size="96 MB",
    option="INDM_INCEPTION_CLEAN",
    folder=lambda: Path("." if platform.system() == "Windows" else "/tmp"),
)


def inception_weights() -> tuple[StateDict, str]:
    """Find, check and load the weights of torch-fidelity's Inception-v3.

    Returns:
        The state dict, each tensor in the shape of the network's parameter or buffer, and the sha256 of its file.

    Raises:
        DataError: if the file is missing and cannot be downloaded, or is not the expected one.
    """
    path, content = read_weights_file(TORCH_FIDELITY)
    return load_weights(path, content), hashlib.sha256(content).hexdigest()


def clean_fid_script() -> tuple[torch.jit.ScriptModule, str]:
    """Find, check and load the TorchScript of Inception-v3 that clean-fid uses.

    TorchScript is code, so it is loaded only if its sha256 is the published one, from the same bytes that were checked.

    Returns:
        The script, in eval mode, and the sha256 of its file.

    Raises:
        DataError: if the file is missing and cannot be downloaded, is not the expected one, or cannot be run by this torch.
    """
    path, content = read_weights_file(CLEAN_FID)
    try:
        script = torch.jit.load(io.BytesIO(content), map_location="cpu")
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: torch {torch.__version__} cannot load this TorchScript ({reason})") from None
    return script.eval(), hashlib.sha256(content).hexdigest()


def read_weights_file(file: WeightsFile) -> tuple[Path, bytes]:
    """Find and read a file of weights, and check its sha256 before its bytes are used.

    Returns:
        Its path and its bytes.

    Raises:
        DataError: if the file is missing and cannot be downloaded, cannot be read, or is not the expected one.
    """
    path = find_weights(file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {file.remedy}") from None
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(file.sha256):
        expected = file.sha256 if len(file.sha256) == len(found) else f"{file.sha256}..."
        raise DataError(f"{path}: found sha256 {found}, expected {expected}; damaged or another file: {file.remedy}")
    return path, content


def find_weights(file: WeightsFile) -> Path:
    """Find weights: the file that the environment names, else the library's copy, which is downloaded if missing.

    Raises:
        DataError: if the file that the environment names is missing, or the download fails.
    """
    chosen = os.environ.get(file.option)
    if chosen:
        if not Path(chosen).is_file():
            raise DataError(
                f"{file.name}: found no file at {file.option}={chosen}; expected the weights: {file.remedy}, or unset it"
            )
        return Path(chosen)
    if not file.cached.is_file():
        _download(file)
    return file.cached


def _download(file: WeightsFile) -> None:
    """Download weights to their library's place; torch.hub renames its temporary file only if the sha256 is right."""
    # torch.hub instead of pooch, which compares whole sums: only eight digits are published for torch-fidelity's file.
    path, timeout = file.cached, socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(path), hash_prefix=file.sha256, progress=False)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        places = f"{file.option} (not set), {path} (no such file), a download ({error})"
        raise DataError(f"{file.name}: Inception weights missing; looked for in {places}; {file.remedy}") from None
    finally:
        socket.setdefaulttimeout(timeout)


def load_weights(path: Path, content: bytes) -> StateDict:
    """Load a state dict from the bytes of its file, without executing any content.

    Arguments:
        path: the file, named in error messages.
        content: the bytes.

    Returns:
        Tensors by name, on the CPU, in the shapes that the file has; the network checks them.

    Raises:
        DataError: if the file is damaged or holds more than tensors.
    """
    remedy = TORCH_FIDELITY.remedy
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: found no file of weights only, and did not load it ({reason}); {remedy}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: found {type(state).__name__}, expected a dict of tensors; {remedy}")
    return state


class _Uninitialised(FeatureExtractorInceptionV3):
    """The network without weights, which provides the names and shapes of a state dict."""

    def load_state_dict(self, *_: object, **__: object) -> None:
        """Ignore the weights."""


def random_weights(seed: int = 0) -> tuple[StateDict, str]:
    r"""Draw a state dict for torch-fidelity's Inception-v3, a stand-in that needs no file but gives meaningless metrics.

    .. math:: w \sim U[-b, b), \qquad b = \sqrt{6 / \mathrm{fan\_in}}

    Every kernel has the variance :math:`2 / \mathrm{fan\_in}`, so that the differences between images reach the last layer;
    every batch norm is the identity. Uniform draws are bit-identical on every processor.

    Returns:
        The state dict, each tensor in the shape of the network's parameter or buffer, and the sha256 of its names and values.

    References:
        | Delving Deep into Rectifiers (He et al., 2015), https://arxiv.org/abs/1502.01852, section 2.2
    """
    generator = Generator().manual_seed(derive_seed("inception-v3-random", seed))
    with torch.device("meta"):
        layout = _Uninitialised("inception-v3-random", ["2048"], as_file({})).state_dict()
    state = {name: _draw(name, value, generator) for name, value in layout.items()}
    return state, digest(state)


def _draw(name: str, like: Tensor, generator: Generator) -> Tensor:
    """Draw one entry of a state dict, with the shape and type of ``like``."""
    if like.ndim > 1:
        bound = math.sqrt(6 / like[0].numel())
        return (2 * torch.rand(like.shape, generator=generator) - 1) * bound
    return torch.full(like.shape, float(name.endswith(("bn.weight", "running_var"))), dtype=like.dtype)


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of the names and values of a state dict, whose tensors have any shapes and lie on the CPU."""
    found = hashlib.sha256()
    for name, value in state.items():
        found.update(name.encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def as_file(state: Mapping[str, Tensor]) -> io.BytesIO:
    """Write a state dict as the file that torch-fidelity's constructor reads.

    The constructor reads it without ``weights_only``, so it must only get files written here, from plain tensors.

    Arguments:
        state: tensors of any shapes, by name.
    """
    file = io.BytesIO()
    torch.save(dict(state), file)
    file.seek(0)
    return file
