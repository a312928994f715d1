"""CIFAR-10: 32x32, colour, 256 levels, from the published archive or its folder."""

from indm.data import cifar10
from indm.data.dataset import Dataset

DATASET = Dataset(
    levels=256,
    channels=3,
    image_size=cifar10.SIZE,
    classes=cifar10.CLASSES,
    load=cifar10.load_cifar10,
    source="CIFAR-10, official partition{held_out}: Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009), "
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated by its authors, who ask that the technical report be cited",
    official_partition=True,
    archives=(cifar10.RELEASE.source,),
    validation=5_000,
    counts={"train": 50_000, "valid": 0, "test": 10_000},
    pictures=False,
)
