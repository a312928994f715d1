"""A part of CelebA: 64x64, colour, 256 levels, 30 images of each of 200 people, from the published files."""

from indm.data import celeba64, celeba64_6000
from indm.data.dataset import Dataset

DATASET = Dataset(
    levels=256,
    channels=3,
    image_size=celeba64.SIZE,
    classes=0,
    load=celeba64_6000.load_celeba64_6000,
    source="6,000 of the 202,599 aligned images of CelebA, 30 of each of 200 people, official partition, central 140x140 pixels "
    "resized to 64x64 by Pillow's bilinear filter; not comparable with the whole of CelebA: Deep Learning Face Attributes in the "
    "Wild (Liu et al., 2015), https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    licence="for non-commercial research only, not to be copied or distributed: the terms on the dataset's page",
    official_partition=True,
    selection=celeba64_6000.FILES,
    counts={"train": 4_560, "valid": 780, "test": 660},
    pictures=False,
)
