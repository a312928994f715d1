"""The registry of datasets and the scaling between levels, model space and bits."""

from indm.data.core import SPLITS, Arrays, Dataset, bits_per_dim, dequantise, quantise, to_uint8
from indm.data.digits import load_digits
from indm.data.patches import load_patches

DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        levels=17,
        channels=1,
        image_size=8,
        classes=10,
        load=load_digits,
        source="scikit-learn load_digits: Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49",
        licence="CC BY 4.0",
    ),
    "patches": Dataset(
        levels=256,
        channels=3,
        image_size=32,
        classes=2,
        load=load_patches,
        source="patches of scikit-learn's sample images china.jpg and flower.jpg",
        licence="CC BY 2.0: china.jpg by danielbuechele, flower.jpg by vultilion, both on flickr.com",
    ),
}

__all__ = ["DATASETS", "SPLITS", "Arrays", "Dataset", "bits_per_dim", "dequantise", "quantise", "to_uint8"]
