"""The features of clean-FID and legacy FID: clean-fid's resizing before its Inception-v3.

``clean`` resizes by antialiased bicubic interpolation in floating point. ``legacy`` is clean-fid's ``legacy_pytorch``, which
is bilinear without antialiasing, as in pytorch-fid, the source of most published FIDs from PyTorch code. clean-fid's third
mode, ``legacy_tensorflow``, is not offered, because torch-fidelity's FID already resizes in this way, inside its network.

References:
    | On Aliased Resizing and Surprising Subtleties in GAN Evaluation (Parmar et al., 2022)
    | https://arxiv.org/abs/2104.11222, https://github.com/GaParmar/clean-fid
"""

import warnings
from collections.abc import Callable

import numpy as np
from cleanfid.resize import build_resizer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from indm.metrics.extractors import check_same_weights
from indm.metrics.weights import CLEAN_FID, clean_fid_script

MODES = {"clean": "clean", "legacy": "legacy_pytorch"}
"""clean-fid's name for each mode."""
# Normalisation of levels 0 … 255 before each network.
NORMALISE: dict[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda x: (x - 128) / 128,
    "legacy": lambda x: 2 * (x / 255) - 1,
}


class CleanExtractor(FeatureExtractorBase):
    """A torch-fidelity extractor around a network whose images clean-fid has resized.

    Arguments:
        mode: a key of ``MODES``.
        network: maps normalised images (B, 3, 299, 299) to features (B, 2048) or (B, 2048, 1, 1).
    """

    def __init__(self, mode: str, network: nn.Module) -> None:
        super().__init__(mode, ["2048"])
        self.mode, self.network = mode, network
        with warnings.catch_warnings():  # clean-fid would silence all warnings of the program.
            self.resizer = build_resizer(MODES[mode])

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Name the layers that can be asked for."""
        return ("2048",)

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Resize an image without rounding, levels 0 … 255, uint8 (3, H, W) to float32 (3, 299, 299)."""
        return np.ascontiguousarray(self.resizer(image.transpose(1, 2, 0)).transpose(2, 0, 1))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Extract features (B, 2048), float32, from resized images (B, 3, 299, 299), float32, levels 0 … 255."""
        return (self.network(NORMALISE[self.mode](images)).flatten(1).float(),)


def build_clean(
    extractor: FeatureExtractorInceptionV3, sha256: str, expected: str | None = None
) -> tuple[dict[str, CleanExtractor], str]:
    """Build the extractors of both modes.

    ``legacy`` shares the layers of ``extractor``, which has pytorch-fid's network and weights. ``clean`` shares them too if
    the weights are random; otherwise it is the TorchScript that clean-fid uses.

    Arguments:
        extractor: the extractor from :func:`~indm.metrics.extractors.build_inception`.
        sha256: the sha256 of its weights.
        expected: expected sha256 of the weights of ``clean``, or ``None``.

    Returns:
        The extractors by mode, and the sha256 of the weights of ``clean``.

    Raises:
        DataError: if the TorchScript is missing or differs from the expected one.
    """
    name, network = extractor.get_name(), layers(extractor)
    clean, found = (network, sha256) if name == "inception-v3-random" else _clean_network()
    check_same_weights(name, found, expected, CLEAN_FID.option)
    return {"clean": CleanExtractor("clean", clean), "legacy": CleanExtractor("legacy", network)}, found


def layers(extractor: FeatureExtractorInceptionV3) -> nn.Module:
    """Chain the layers up to the last pooling; torch-fidelity registers them in order, with the classifier last."""
    return nn.Sequential(*list(extractor.children())[:-1])


def _clean_network() -> tuple[nn.Module, str]:
    script, found = clean_fid_script()
    return script.layers, found
