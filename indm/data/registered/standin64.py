"""A synthetic stand-in in CelebA's file format, whose results are meaningless."""

from indm.data import celeba64, standins
from indm.data.dataset import Dataset

DATASET = Dataset(
    levels=256,
    channels=3,
    image_size=celeba64.SIZE,
    classes=0,
    load=standins.load_standin64,
    source="synthetic stand-in made by this project: discs on gradients in CelebA's file format, no real data",
    licence="Apache-2.0, as this project",
    official_partition=True,
    counts={"train": 12, "valid": 3, "test": 6},
)
