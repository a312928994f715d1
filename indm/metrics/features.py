"""Features of images from the extractors of torch-fidelity and clean-fid, one batch at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.utils import extract_featuresdict_from_input_id

from indm.data.levels import to_uint8
from indm.metrics.clean import CleanExtractor
from indm.metrics.extractors import EXTRACTORS
from indm.process import float32_products


class ImageArray(Dataset[Tensor]):
    """Images as torch-fidelity takes them, levels 0 … 255, uint8 (3, H, W), one at a time; the array may be memory-mapped.

    Arguments:
        images: levels 0 … L - 1, uint8, shape (N, C, H, W), C = 1 or 3.
        levels: number of levels L.
    """

    def __init__(self, images: NDArray[np.uint8], levels: int) -> None:
        self.images, self.levels = images, levels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.image(index))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, levels 0 … 255, uint8, shape (3, H, W)."""
        return to_uint8(self.images[index : index + 1], self.levels)[0]


class ResizedArray(ImageArray):
    """Images as clean-fid's networks take them, levels 0 … 255, float32 (3, 299, 299), one at a time.

    Arguments:
        images, levels: see :class:`ImageArray`.
        extractor: the extractor that resizes them.
    """

    def __init__(self, images: NDArray[np.uint8], levels: int, extractor: CleanExtractor) -> None:
        super().__init__(images, levels)
        self.extractor = extractor

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.extractor.resize(self.image(index)))


def features(
    extractor: FeatureExtractorBase, images: NDArray[np.uint8], levels: int = 256, device: torch.device | None = None
) -> tuple[Tensor, ...]:
    """Extract features, a batch of images at a time (32 for Inception, 256 for small extractors), without TensorFloat-32.

    Arguments:
        extractor: a torch-fidelity extractor.
        images: levels 0 … L - 1, uint8, shape (N, C, H, W), C = 1 or 3; an array or a memory map.
        levels: number of levels L of the images.
        device: where to extract; the CPU if ``None``.

    Returns:
        Each layer that the extractor was built for, shape (N, F), on the CPU: float32 from Inception, because float64 would
        take twice the memory, and float64 from other extractors.
    """
    resized = isinstance(extractor, CleanExtractor)
    dataset = ResizedArray(images, levels, extractor) if resized else ImageArray(images, levels)
    with float32_products(), _placed(extractor, device):
        found = extract_featuresdict_from_input_id(
            1,
            extractor,
            input1=dataset,
            batch_size=256 if extractor.get_name() in EXTRACTORS else 32,
            cuda=False,
            save_cpu_ram=True,
            verbose=False,
        )
    return tuple(found[layer] for layer in extractor.get_requested_features_list())


@contextmanager
def _placed(extractor: FeatureExtractorBase, device: torch.device | None) -> Iterator[None]:
    """Put an extractor on a device, and within the block its batches too, because torch-fidelity only supports CUDA."""
    hook = extractor.to(device).register_forward_pre_hook(
        lambda _, inputs: (inputs[0].to(device=device, non_blocking=True), *inputs[1:])
    )
    try:
        yield
    finally:
        hook.remove()
