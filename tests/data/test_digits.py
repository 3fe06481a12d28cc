import torch

from rankproof.data.digits import load_digits


def test_the_two_splits_are_the_whole_set_once():
    train, test = load_digits("train"), load_digits("test")
    assert (len(train), len(test)) == (1000, 797)
    assert train.pictures.shape[1:] == (1, 8, 8)
    assert train.labels.bincount(minlength=10).min() > 90
    assert not (train.pictures[:797] == test.pictures).flatten(1).all(1).all()


def test_sixteen_grey_levels_fill_the_range():
    values = load_digits("test").pictures.unique()
    assert (values.min(), values.max(), len(values)) == (0, 255, 17)
    assert load_digits("test").pictures.dtype == torch.uint8
