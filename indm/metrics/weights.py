"""The weights of Inception-v3: where they are looked for, how they are checked, and a random stand-in.

References:
    | Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2016), https://arxiv.org/abs/1512.00567
    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020),
    | https://github.com/toshas/torch-fidelity
"""

import hashlib
import http.client
import io
import math
import os
import pickle
import socket
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from indm.errors import DataError
from indm.seeding import derive_seed

OPTION = "INDM_INCEPTION"
FILE = URL_INCEPTION_V3.rpartition("/")[2]
# torch.hub's convention: a name ends with the first digits of its file's sha256.
PREFIX = FILE.removesuffix(".pth").rpartition("-")[2]
TIMEOUT = 30.0
REMEDY = f"download {FILE} from {URL_INCEPTION_V3} and set the environment variable {OPTION} to its path"

StateDict = dict[str, Tensor]


def inception_weights() -> tuple[StateDict, str]:
    """Find, check and load the weights of torch-fidelity's Inception-v3.

    Returns:
        The state dict and the sha256 of its file.

    Raises:
        DataError: if the file is missing and cannot be downloaded, or is not the one expected.
    """
    path = find_weights()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from None
    return load_weights(path, content), hashlib.sha256(content).hexdigest()


def find_weights() -> Path:
    """Find the weights: the file that INDM_INCEPTION names, else the one in torch.hub's folder, else a download to it.

    Raises:
        DataError: if INDM_INCEPTION names no file, or nothing is found and nothing can be downloaded.
    """
    chosen, cached = os.environ.get(OPTION), hub_path()
    if chosen:
        if not Path(chosen).is_file():
            raise DataError(f"{FILE}: found no file at {OPTION}={chosen}; {REMEDY}, or unset it")
        return Path(chosen)
    if not cached.is_file():
        _download(cached)
    return cached


def hub_path() -> Path:
    """Where torch-fidelity itself keeps the weights: torch.hub's folder of checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def _download(path: Path) -> None:
    """Download the weights to ``path``; torch.hub writes beside it and renames only what has the right sha256."""
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=PREFIX, progress=False)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        places = f"{OPTION} (not set), {path} (no such file), a download ({error})"
        raise DataError(f"{FILE}: Inception weights missing; looked for in {places}; {REMEDY}") from None
    finally:
        socket.setdefaulttimeout(timeout)


def load_weights(path: Path, content: bytes) -> StateDict:
    """Load a state dict from the bytes of its file, once their sha256 is the expected one; nothing is executed.

    Arguments:
        path: where they were read, for the message.
        content: the bytes.

    Raises:
        DataError: if the file is damaged, another one, or holds more than tensors.
    """
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(PREFIX):
        raise DataError(f"{path}: found sha256 {found}, expected {PREFIX}...; damaged or another file: {REMEDY}")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a file of weights alone, and not loaded ({reason}); {REMEDY}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: found {type(state).__name__}, expected a dict of tensors; {REMEDY}")
    return state


class _Uninitialised(FeatureExtractorInceptionV3):
    """The network before its weights, from which the names and shapes of a state dict are read."""

    def load_state_dict(self, *_: object, **__: object) -> None:
        """Take no weights."""


def random_weights(seed: int = 0) -> tuple[StateDict, str]:
    r"""Draw a state dict of torch-fidelity's Inception-v3: a stand-in that needs no file, and whose numbers mean nothing.

    Every kernel is uniform with variance :math:`2 / \mathrm{fan\_in}`, so that the images' differences reach the last layer;
    every batch norm is the identity. Uniform draws are the same bits on every processor.

    Arguments:
        seed: identity of the draw.

    Returns:
        The state dict and the sha256 of its names and values.

    References:
        | Delving Deep into Rectifiers (He et al., 2015), https://arxiv.org/abs/1502.01852, section 2.2
    """
    generator = Generator().manual_seed(derive_seed("inception-v3-random", seed))
    with torch.device("meta"):
        layout = _Uninitialised("inception-v3-random", ["2048"], as_file({})).state_dict()
    state = {name: _draw(name, value, generator) for name, value in layout.items()}
    return state, digest(state)


def _draw(name: str, like: Tensor, generator: Generator) -> Tensor:
    """Draw one entry of a state dict, of the shape and type of ``like``."""
    if like.ndim > 1:
        bound = math.sqrt(6 / like[0].numel())
        return (2 * torch.rand(like.shape, generator=generator) - 1) * bound
    return torch.full(like.shape, float(name.endswith(("bn.weight", "running_var"))), dtype=like.dtype)


def digest(state: Mapping[str, Tensor]) -> str:
    """Sha256 of the names and values of a state dict."""
    found = hashlib.sha256()
    for name, value in state.items():
        found.update(name.encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def as_file(state: Mapping[str, Tensor]) -> io.BytesIO:
    """Write a state dict as the file that torch-fidelity's constructor reads.

    It reads it without ``weights_only``, so it is only ever given what was written here, from plain tensors.
    """
    file = io.BytesIO()
    torch.save(dict(state), file)
    file.seek(0)
    return file
