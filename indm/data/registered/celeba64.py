"""CelebA: 64x64, colour, 256 levels, from the published archive and its partition."""

from indm.data import celeba64
from indm.data.dataset import Dataset

DATASET = Dataset(
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
    archives=(celeba64.RELEASE.partition, celeba64.RELEASE.images),
    counts={"train": 162_770, "valid": 19_867, "test": 19_962},
    pictures=False,
)
