"""Synthetic stand-ins for CIFAR-10 and CelebA: archives of their formats that come with this package.

They are coloured discs on gradients, and no image of either dataset. They exist so that the code that reads the real archives
runs, from the checksum to the resizing, where the real ones are not; ``tests/archives.py`` made them.
"""

from pathlib import Path

from indm.data.archives import Archive
from indm.data.celeba64 import Release as CelebARelease
from indm.data.celeba64 import load_celeba64
from indm.data.cifar10 import Release as CIFAR10Release
from indm.data.cifar10 import load_cifar10
from indm.data.core import Splits

ROOT = Path(__file__).parent

RELEASE32 = CIFAR10Release(
    archive=Archive(path="cifar-10-python.tar.gz", md5="28f37f737a4236167ddbf9d7c584dfbd", url=None),
    train={
        "data_batch_1": "282d72455a53cfc99e9967ff1e0dff7a",
        "data_batch_2": "af0783100ff58b892e748f73415cd797",
        "data_batch_3": "76e7d1af8ededcf855da79dd95d8753a",
        "data_batch_4": "d808716574f9719bee0031df00e1dd81",
        "data_batch_5": "6b52b4c262ad56297b112f55bbb54c1e",
    },
    test={"test_batch": "4c13d8cda4334ce5457246aefc581396"},
    batch_images=6,
)

RELEASE64 = CelebARelease(
    images=Archive(path="celeba/img_align_celeba.zip", md5="eabfe8adf8c5e1712a1b52a068fd35b0", url=None),
    partition=Archive(path="celeba/list_eval_partition.txt", md5="e848074d1b6f314438f7487809619500", url=None),
)


def load_standin32(split_seed: int) -> Splits:
    """Load the stand-in of CIFAR-10's format, as :func:`load_cifar10` does: 30 images for training, 6 for testing."""
    return load_cifar10(split_seed, ROOT / "standin32", RELEASE32)


def load_standin64(split_seed: int) -> Splits:
    """Load the stand-in of CelebA's format, as :func:`load_celeba64` does: 24, 4 and 6 images."""
    return load_celeba64(split_seed, ROOT / "standin64", RELEASE64)
