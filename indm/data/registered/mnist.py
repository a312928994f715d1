"""MNIST: handwritten digits, 28x28, grey, 256 levels, from the published files."""

from functools import partial

from indm.data.archives import Archive
from indm.data.dataset import Dataset
from indm.data.mnist import CLASSES, SIZE, Half, IdxRelease, load_mnist


def _archive(name: str, size: str, md5: str) -> Archive:
    """Describe a file; a test compares its sum with torchvision's."""
    url = f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}"
    return Archive(path=f"mnist/{name}", md5=md5, size=size, url=url)


RELEASE = IdxRelease(
    train=Half(
        images=_archive("train-images-idx3-ubyte.gz", "10 MB", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        labels=_archive("train-labels-idx1-ubyte.gz", "30 KB", "d53e105ee54ea40749a09fcbcd1e9432"),
        count=60_000,
    ),
    test=Half(
        images=_archive("t10k-images-idx3-ubyte.gz", "2 MB", "9fb629c4189551a2d022fa330f9573f3"),
        labels=_archive("t10k-labels-idx1-ubyte.gz", "5 KB", "ec29112dd5afa0611ce80d1b7f02629c"),
        count=10_000,
    ),
)

DATASET = Dataset(
    levels=256,
    channels=1,
    image_size=SIZE,
    classes=CLASSES,
    load=partial(load_mnist, release=RELEASE),
    source="MNIST, official partition{held_out}: Gradient-based learning applied to document "
    "recognition (LeCun et al., 1998), https://doi.org/10.1109/5.726791",
    licence="none stated by its authors",
    official_partition=True,
    archives=RELEASE.archives,
    validation=5_000,
    counts=RELEASE.counts,
)
