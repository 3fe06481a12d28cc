from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from rankproof import CandidateRaise, Gallery, Preprocess, Ranker, RankproofError, Threat, attack
from rankproof.models import GreyToColour


@pytest.fixture
def photos(make):
    """Smooth colour images, as JPEG likes them."""
    rough = torch.rand(6, 3, 5, 6, generator=make.random(0))
    return functional.interpolate(rough, (20, 24), mode="bilinear")


def through_pillow(image, quality):
    """One image (c, h, w), the long way."""
    pixels = np.asarray((image * 255).round().to(torch.uint8).permute(1, 2, 0))
    file = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1) / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_images_really_pass_jpeg(photos, channels):
    images = photos[:, :channels]
    found = Preprocess(jpeg=30)(images)
    expected = torch.stack([through_pillow(image, 30) for image in images])
    torch.testing.assert_close(found, expected)
    assert 0.001 < (found - images).abs().mean() < 0.1


def test_a_better_quality_changes_less(photos):
    changes = [float((Preprocess(jpeg=quality)(photos) - photos).abs().mean()) for quality in (10, 50, 95)]
    assert changes[0] > changes[1] > changes[2]


def test_the_gradient_passes_jpeg_as_if_it_were_not_there(photos):
    weight = torch.rand_like(photos)
    images = photos.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((Preprocess(jpeg=50)(images) * weight).sum(), images)
    torch.testing.assert_close(gradient, weight)


def test_resizing_is_bilinear_with_antialias_and_keeps_the_aspect(photos):
    found = Preprocess(resize=10)(photos)
    assert found.shape == (6, 3, 10, 12)
    expected = functional.interpolate(photos, (10, 12), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, expected)
    assert Preprocess(resize=(7, 9))(photos).shape == (6, 3, 7, 9)
    assert torch.equal(Preprocess(resize=20)(photos), photos)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_the_crop_is_in_the_middle(photos):
    assert torch.equal(Preprocess(crop=16)(photos), photos[:, :, 2:18, 4:20])
    whole = Preprocess(resize=10, crop=8, jpeg=60)
    steps = nn.Sequential(Preprocess(jpeg=60), Preprocess(resize=10), Preprocess(crop=8))
    assert torch.equal(whole(photos), steps(photos))
    assert whole.sides(20, 24) == (8, 8)
    assert Preprocess(resize=10).sides(24, 20) == (12, 10)
    assert repr(whole) == "Preprocess(jpeg=60, resize=10, crop=8)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jpeg": 0}, r"jpeg: the quality must be in \[1, 100\], got 0"),
        ({"jpeg": 101}, "got 101"),
        ({"resize": 0}, "resize: a side in pixels must be at least 1, got 0"),
        ({"resize": (3, 0)}, "resize: a side"),
        ({"crop": True}, "crop: a side in pixels must be an integer"),
        ({"crop": -1}, "crop: a side"),
        ({"resize": True}, "resize: a side in pixels must be an integer, got True"),
        ({"resize": (True, 3)}, "resize: a side in pixels must be an integer"),
        ({"jpeg": True}, "jpeg: the quality must be an integer"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(RankproofError, match=message):
        Preprocess(**settings)


def test_images_that_do_not_fit(photos):
    with pytest.raises(RankproofError, match="a square of 21 pixels does not fit into images of 20x24"):
        Preprocess(crop=21)(photos)
    with pytest.raises(RankproofError, match="1 or 3 channels, these have 2"):
        Preprocess(jpeg=50)(photos[:, :2])


def test_grey_is_given_in_three_channels(photos):
    found = GreyToColour()(photos[:, :1])
    assert torch.equal(found, photos[:, :1].repeat(1, 3, 1, 1))
    with pytest.raises(RankproofError, match="3 channels, it wants 1"):
        GreyToColour()(photos)


# -- in a ranker


def test_a_ranker_does_it_before_mean_and_std(photos):
    chain = Preprocess(resize=10, jpeg=40)
    ranker = Ranker(nn.Flatten(), "euclidean", mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 2.0], preprocess=chain)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.5, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(ranker.embed(photos), ((chain(photos) - mean) / std).flatten(1))


def test_an_attack_sees_what_the_service_does(photos):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 6))
    chain = Preprocess(resize=10, crop=10, jpeg=75)
    gallery = Gallery.build(Ranker(encoder, preprocess=chain), photos)
    result = attack(gallery, photos, CandidateRaise(w=2), Threat(16 / 255), gallery_ids=torch.arange(6))
    assert result.adversarial.shape == photos.shape
    assert float((result.adversarial - photos).abs().max()) <= 16 / 255 + 1e-6
    assert result.rank_after.mean() < result.rank_before.mean()
    with torch.no_grad():  # and the figure is that of the whole chain
        z = functional.normalize(encoder(chain(result.adversarial)), dim=1).double()
        database = functional.normalize(encoder(chain(photos)), dim=1).double()
    own = 1 - (z[:, None] * database[result.targets]).sum(2)
    ranks = (1 - database[result.targets] @ database.T < own[:, :, None] - 1e-9).sum(2) / 6 * 100
    torch.testing.assert_close(ranks.double(), result.rank_after, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "right"),
    [(427, 640, (256, 383)), (640, 427, (383, 256)), (333, 500, (256, 384)), (1, 3, (256, 768))],
)
def test_the_longer_side_is_rounded_down_as_in_torchvision(height, width, right):
    assert Preprocess(resize=256).sides(height, width) == right
