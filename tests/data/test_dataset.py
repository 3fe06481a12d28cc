import torch

from rankproof.data import Dataset


def small():
    return Dataset(
        images=torch.arange(5, dtype=torch.uint8)[:, None, None, None] * 51,
        labels=torch.tensor([0, 1, 0, 1, 0]),
        classes=("a", "b"),
        name="small",
        split="test",
        note="five pixels",
        files=("0", "1", "2", "3", "4"),
    )


def test_images_come_out_between_zero_and_one():
    images = small().as_float()
    assert images.dtype == torch.float32
    assert torch.allclose(images.flatten(), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8]))


def test_take_picks_positions_in_the_asked_order():
    assert torch.allclose(small().take(torch.tensor([3, 1])).flatten(), torch.tensor([0.6, 0.2]))


def test_head_cuts_images_labels_and_files_alike():
    head = small().head(2)
    assert len(head) == 2
    assert head.labels.tolist() == [0, 1]
    assert head.files == ("0", "1")
    assert head.classes == ("a", "b")
