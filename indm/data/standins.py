"""Synthetic stand-ins for CIFAR-10 and CelebA: archives in their formats that come with this package.

They hold coloured discs on gradients and no images of either dataset. With them, the code that reads the real archives
runs from the checksum to the resizing without the real files. ``tests/archives.py`` made them.
"""

from pathlib import Path

from indm.data.archives import Archive
from indm.data.celeba64 import CelebARelease, load_celeba64
from indm.data.cifar10 import CIFAR10Release, load_cifar10
from indm.data.dataset import Splits

ROOT = Path(__file__).parent
RELEASE32 = CIFAR10Release(
    archive=Archive(path="cifar-10-python.tar.gz", md5="a5e760a22e0f9ea62a12c2ea6846f479", url=None),
    train={
        "data_batch_1": "c89ba1d03d41e23f81d749a635d7b7a9",
        "data_batch_2": "3d525792b98e507e5391c507e0237bd8",
        "data_batch_3": "0b7918fea131b7cbef8c82788c98d6e3",
        "data_batch_4": "ae509245610ef53f4701e1ded553d766",
        "data_batch_5": "712f984a72f7845301ad6a34b9fc1686",
    },
    test={"test_batch": "08911032ba86ae4498b37b76dacdda97"},
    batch_images=4,
)
RELEASE64 = CelebARelease(
    images=Archive(path="celeba/img_align_celeba.zip", md5="6a20431b59ef05d05230ce1a1ec141ef", url=None),
    partition=Archive(path="celeba/list_eval_partition.txt", md5="b71325d14a7d39b457c9f187cc780c76", url=None),
)


def load_standin32(split_seed: int) -> Splits:
    """Load the stand-in of CIFAR-10's format, as :func:`load_cifar10` does: 20 images for training, 4 for testing."""
    return load_cifar10(split_seed, ROOT / "standin32", RELEASE32)


def load_standin64(split_seed: int) -> Splits:
    """Load the stand-in of CelebA's format, as :func:`load_celeba64` does: 12, 3 and 6 images."""
    return load_celeba64(split_seed, ROOT / "standin64", RELEASE64)
