"""scikit-learn's 1,797 handwritten digits: 8x8, grey, 17 levels."""

import numpy as np

from indm.data.dataset import Dataset, Split, Splits

TEST_IMAGES = 360
VALID_IMAGES = 180


def load_digits(split_seed: int) -> Splits:
    """Load the digits and split them, stratified by label: 1,257 for training, 180 for validation, 360 for testing.

    References:
        | Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), https://doi.org/10.24432/C50P49
    """
    # Imported here because scikit-learn is slow to import and only the `prepare` stage needs it.
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    bunch = datasets.load_digits()
    images, labels = bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.uint8)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_IMAGES, stratify=labels, random_state=split_seed
    )
    train, valid = train_test_split(rest, test_size=VALID_IMAGES, stratify=labels[rest], random_state=split_seed)
    splits = {"train": np.sort(train), "valid": np.sort(valid), "test": np.sort(test)}
    return {name: Split.whole(images[index], labels[index]) for name, index in splits.items()}


DATASET = Dataset(
    levels=17,
    channels=1,
    image_size=8,
    classes=10,
    load=load_digits,
    source="scikit-learn load_digits: Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49",
    licence="CC BY 4.0",
    counts={"train": 1_257, "valid": VALID_IMAGES, "test": TEST_IMAGES},
)
