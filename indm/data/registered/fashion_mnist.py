"""Fashion-MNIST: photographs of clothes, 28x28, grey, 256 levels, from the published files or Debian's."""

from functools import partial

from indm.data.archives import Archive, Packaged
from indm.data.dataset import Dataset
from indm.data.mnist import CLASSES, SIZE, Half, IdxRelease, load_mnist

PACKAGE = "dataset-fashion-mnist"


def _archive(name: str, size: str, md5: str, packaged_md5: str) -> Archive:
    """Describe a file by the MD5 sums of the published copy, which a test compares with torchvision, and of Debian's."""
    return Archive(
        path=f"fashion-mnist/{name}",
        md5=md5,
        size=size,
        url=f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}",
        packaged=Packaged(PACKAGE, f"/usr/share/datasets/fashion-mnist/{name}", packaged_md5),
    )


RELEASE = IdxRelease(
    train=Half(
        images=_archive(
            "train-images-idx3-ubyte.gz",
            "26 MB",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "cf8536b0aa1a6ac5fa3f23001093305c",
        ),
        labels=_archive(
            "train-labels-idx1-ubyte.gz",
            "30 KB",
            "25c81989df183df01b3e8a0aad5dffbe",
            "10bea18fdb374794d4bb42e356e600c9",
        ),
        count=60_000,
    ),
    test=Half(
        images=_archive(
            "t10k-images-idx3-ubyte.gz", "4 MB", "bef4ecab320f06d8554ea6380940ec79", "f78720b4224f21cce2f2ccf2d7a94c9a"
        ),
        labels=_archive(
            "t10k-labels-idx1-ubyte.gz", "5 KB", "bb300cfdad3c16e7a12a480ee83cd310", "0d30e22e447f3c33dab9ed536400ac01"
        ),
        count=10_000,
    ),
)

DATASET = Dataset(
    levels=256,
    channels=1,
    image_size=SIZE,
    classes=CLASSES,
    load=partial(load_mnist, release=RELEASE),
    source="Fashion-MNIST, official partition{held_out}: "
    "Fashion-MNIST: a Novel Image Dataset (Xiao, Rasul and Vollgraf, 2017), https://arxiv.org/abs/1708.07747",
    licence="MIT",
    official_partition=True,
    archives=RELEASE.archives,
    validation=5_000,
    counts=RELEASE.counts,
)
