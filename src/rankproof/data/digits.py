"""The embedded default: 1,797 scanned digits at their native 8x8, shipped with scikit-learn."""

import numpy as np
import torch

from rankproof.data.dataset import Dataset, as_labels

TRAIN_SIZE = 1000


def load_digits(split: str) -> Dataset:
    """The first 1,000 digits for training, the last 797 as the gallery.

    Source: UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), test part; the
    16 grey levels are spread over the 8-bit range.
    """
    from sklearn.datasets import load_digits as embedded

    digits = embedded()
    part = slice(None, TRAIN_SIZE) if split == "train" else slice(TRAIN_SIZE, None)
    pictures = np.rint(digits.images[part] * (255 / 16)).astype(np.uint8)
    return Dataset(
        pictures=torch.from_numpy(pictures)[:, None],
        labels=as_labels(digits.target[part]),
        classes=tuple(str(name) for name in digits.target_names),
        name="digits",
        split=split,
        note=f"the embedded digits, {split} split: {len(pictures)} pictures of 8x8 in 10 classes",
    )
