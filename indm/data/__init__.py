"""The registry of datasets and the scaling between levels, model space and bits."""

from indm.data import celeba64, cifar10, standins
from indm.data.archives import VARIABLE, Archive, data_root
from indm.data.core import (
    SPLITS,
    Dataset,
    Split,
    Splits,
    bits_per_dim,
    dequantise,
    moments,
    quantise,
    to_pixels,
    to_uint8,
)
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
    "cifar10": Dataset(
        levels=256,
        channels=3,
        image_size=cifar10.SIZE,
        classes=cifar10.CLASSES,
        load=cifar10.load_cifar10,
        source="CIFAR-10, official partition: Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009), "
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated by its authors, who ask that the technical report be cited",
        official_partition=True,
        archives=(cifar10.PUBLISHED.archive,),
    ),
    "celeba64": Dataset(
        levels=256,
        channels=3,
        image_size=celeba64.SIZE,
        classes=0,
        load=celeba64.load_celeba64,
        source="CelebA, aligned images, official partition, central 140x140 pixels resized to 64x64 by Pillow's bilinear "
        "filter: Deep Learning Face Attributes in the Wild (Liu et al., 2015), "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="for non-commercial research only, not to be copied or distributed: the terms on the dataset's page",
        official_partition=True,
        archives=(celeba64.PUBLISHED.partition, celeba64.PUBLISHED.images),
    ),
    "standin32": Dataset(
        levels=256,
        channels=3,
        image_size=cifar10.SIZE,
        classes=cifar10.CLASSES,
        load=standins.load_standin32,
        source="synthetic stand-in made by this project: discs on gradients in CIFAR-10's file format, no real data",
        licence="Apache-2.0, as this project",
        official_partition=True,
    ),
    "standin64": Dataset(
        levels=256,
        channels=3,
        image_size=celeba64.SIZE,
        classes=0,
        load=standins.load_standin64,
        source="synthetic stand-in made by this project: discs on gradients in CelebA's file format, no real data",
        licence="Apache-2.0, as this project",
        official_partition=True,
    ),
}

__all__ = [
    "DATASETS",
    "SPLITS",
    "VARIABLE",
    "Archive",
    "Dataset",
    "Split",
    "Splits",
    "bits_per_dim",
    "data_root",
    "dequantise",
    "moments",
    "quantise",
    "to_pixels",
    "to_uint8",
]
