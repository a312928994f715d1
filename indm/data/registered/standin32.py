"""A synthetic stand-in in CIFAR-10's file format, whose results are meaningless."""

from indm.data import cifar10, standins
from indm.data.dataset import Dataset

DATASET = Dataset(
    levels=256,
    channels=3,
    image_size=cifar10.SIZE,
    classes=cifar10.CLASSES,
    load=standins.load_standin32,
    source="synthetic stand-in made by this project: discs on gradients in CIFAR-10's file format, no real data",
    licence="Apache-2.0, as this project",
    official_partition=True,
    validation=0,
    counts={"train": 20, "valid": 0, "test": 4},
)
