from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rankproof import RankproofError, Threat
from rankproof.wire.picture import find_pictures, png, read_picture


def opened(content):
    image = Image.open(BytesIO(content))
    return image, np.asarray(image)


@given(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_a_file_holds_exactly_what_is_scored(channels, height, width, seed):
    levels = torch.randint(256, (channels, height, width), generator=torch.Generator().manual_seed(seed))
    image, pixels = opened(png(levels / 255))
    assert (image.format, image.mode) == ("PNG", "L" if channels == 1 else "RGB")
    assert torch.equal(
        torch.from_numpy(pixels.reshape(height, width, channels).copy()).permute(2, 0, 1), levels
    )


def test_every_level_comes_back_as_the_same_number():
    levels = torch.arange(256).view(1, 16, 16)
    read = torch.from_numpy(opened(png(levels / 255))[1].copy()) / 255
    assert torch.equal(read, levels[0] / 255)


def test_what_a_threat_allows_on_the_grid_can_be_sent():
    threat, picture = Threat(8 / 255, grid=True), torch.rand(1, 3, 6, 5)
    original = threat.start(picture)
    sent = threat.project(original + torch.randn(1, 3, 6, 5) / 20, original)
    _, pixels = opened(png(sent[0]))
    assert np.array_equal(pixels, (sent[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8))


@pytest.mark.parametrize("value", [0.5, -1 / 255, 256 / 255, float("nan")])
def test_pictures_off_the_grid_are_refused(value):
    with pytest.raises(RankproofError, match="off the 8-bit grid"):
        png(torch.full((1, 2, 2), value))


def test_two_channels_are_no_picture():
    with pytest.raises(RankproofError, match=r"1 channel \(grey\) or 3"):
        png(torch.zeros(2, 2, 2))


def test_a_picture_of_any_size_goes_there_and_back(tmp_path):
    for channels, height, width in ((1, 3, 500), (3, 641, 7)):
        picture = torch.randint(256, (channels, height, width)) / 255
        (tmp_path / "photo.png").write_bytes(png(picture))
        assert torch.equal(read_picture(tmp_path / "photo.png"), picture)


def test_transparent_pictures_are_refused(tmp_path):
    Image.new("RGBA", (4, 4), (1, 2, 3, 100)).save(tmp_path / "clear.png")
    with pytest.raises(RankproofError, match="without an alpha channel"):
        read_picture(tmp_path / "clear.png")


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"hello")
    with pytest.raises(RankproofError, match="not an image"):
        read_picture(tmp_path / "photo.png")


def test_folders_are_read_in_the_order_of_names(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    single = tmp_path / "b.png"
    assert [path.name for path in find_pictures([single, tmp_path])] == ["b.png", "a.JPG", "b.png"]


def test_places_without_pictures_are_named(tmp_path):
    for places, message in (
        ([], "--query"),
        ([tmp_path], "no picture there"),
        ([tmp_path / "x"], "no picture"),
    ):
        with pytest.raises(RankproofError, match=message):
            find_pictures(places)
