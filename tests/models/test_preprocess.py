from io import BytesIO
from itertools import product

import jaxtyping
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


def resized_by_pillow(images, size, resample=Image.Resampling.BILINEAR):
    """Images (b, c, h, w) of 8-bit values, each as an image."""
    pixels = [np.asarray(image.permute(1, 2, 0)) for image in images]
    found = [np.asarray(Image.fromarray(image).resize(size[::-1], resample)) for image in pixels]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def test_resizing_is_pillows_and_keeps_the_aspect(photos):
    saved = (photos * 255).round().to(torch.uint8)
    found = Preprocess(resize=10)(photos)
    assert found.shape == (6, 3, 10, 12)
    assert torch.equal(found, resized_by_pillow(saved, (10, 12)) / 255)
    found = Preprocess(resize=(7, 9), resample="bicubic")(photos)
    assert torch.equal(found, resized_by_pillow(saved, (7, 9), Image.Resampling.BICUBIC) / 255)
    assert torch.equal(Preprocess(resize=20)(photos), saved / 255)  # resized to its own size: as it is saved


def test_the_crop_is_in_the_middle(photos):
    assert torch.equal(Preprocess(crop=16)(photos), photos[:, :, 2:18, 4:20])
    assert torch.equal(Preprocess(crop=(20, 8))(photos), photos[:, :, :, 8:16])
    whole = Preprocess(resize=10, crop=8, jpeg=60)
    steps = nn.Sequential(Preprocess(jpeg=60), Preprocess(resize=10), Preprocess(crop=8))
    assert torch.equal(whole(photos), steps(photos))
    assert whole.sides(20, 24) == (8, 8)
    assert Preprocess(resize=10).sides(24, 20) == (12, 10)
    assert Preprocess(crop=(20, 8)).sides(20, 24) == (20, 8)


def test_what_it_is_called_tells_all_that_changes_pixels():
    assert repr(Preprocess(10, 8, 60)) == "Preprocess(jpeg=60, resize=10, resample=bilinear, crop=8)"
    assert repr(Preprocess((9, 8), resample="box")) == "Preprocess(resize=(9, 8), resample=box)"
    cropped = Preprocess(crop=8, centre="torchvision", pad=True)
    assert repr(cropped) == "Preprocess(crop=8, centre=torchvision, pad=True)"
    assert repr(Preprocess(jpeg=5, resample="box", pad=True)) == "Preprocess(jpeg=5)"


SIDES = [(9, 6), (10, 7), (11, 6), (12, 7), (6, 6), (5, 8), (6, 9), (4, 9)]


def test_the_centre_is_that_of_transformers(transformers):
    for (height, crop_height), (width, crop_width) in product(SIDES, SIDES):
        image = torch.arange(1.0, 1 + height * width).view(1, 1, height, width)
        size = crop_height, crop_width
        expected = transformers.image_transforms.center_crop(image[0].numpy(), size)
        assert torch.equal(Preprocess(crop=size, pad=True)(image)[0], torch.from_numpy(expected))


def centre_of_torchvision(image, size):
    """`torchvision.transforms.functional.center_crop`, as its documentation and source describe it."""
    (height, width), (crop_height, crop_width) = image.shape[2:], size
    across, down = max(0, crop_width - width), max(0, crop_height - height)
    image = functional.pad(image, (across // 2, (across + 1) // 2, down // 2, (down + 1) // 2))
    (height, width) = image.shape[2:]
    top, left = round((height - crop_height) / 2.0), round((width - crop_width) / 2.0)
    return image[:, :, top : top + crop_height, left : left + crop_width]


def test_the_centre_of_torchvision():
    for (height, crop_height), (width, crop_width) in product(SIDES, SIDES):
        image = torch.arange(1.0, 1 + height * width).view(1, 1, height, width)
        size = crop_height, crop_width
        found = Preprocess(crop=size, centre="torchvision", pad=True)(image)
        assert torch.equal(found, centre_of_torchvision(image, size))


def test_the_gradient_of_a_crop_and_of_a_margin():
    image = torch.rand(1, 1, 4, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(Preprocess(crop=6, pad=True)(image).sum(), image)
    assert gradient[0, 0].sum(0).tolist() == [0, 4, 4, 4, 4, 4, 4, 0, 0]


@pytest.fixture
def as_users_run_it():
    """Without the type checks of the tests, which would refuse some of this before it is looked at."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
        ({"crop": (3, 0)}, "crop: a side"),
        ({"crop": (3, 4, 5)}, "crop: give one side, or .height, width., got"),
        ({"resample": "cubic"}, "resample: must be one of nearest, box, .*, got 'cubic'"),
        ({"centre": "pil"}, "centre: must be one of transformers, torchvision, got 'pil'"),
    ],
)
def test_bad_settings(as_users_run_it, settings, message):
    with pytest.raises(RankproofError, match=message):
        Preprocess(**settings)


def test_images_that_do_not_fit(photos):
    with pytest.raises(RankproofError, match="a square of 21 pixels does not fit into images of 20x24"):
        Preprocess(crop=21)(photos)
    with pytest.raises(RankproofError, match="9x25 pixels does not fit into images of 20x24"):
        Preprocess(crop=(9, 25))(photos)
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
    ("resample", "grid"), [("bilinear", True), ("bilinear", False), ("bicubic", False), ("lanczos", True)]
)
def test_a_saved_attack_is_what_a_service_sees(photos, tmp_path, resample, grid):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 6))
    ranker = Ranker(encoder, preprocess=Preprocess(resize=11, crop=10, resample=resample))
    gallery = Gallery.build(ranker, photos)
    threat = Threat(8 / 255, grid=grid)
    result = attack(gallery, photos, CandidateRaise(w=2), threat, gallery_ids=torch.arange(6))
    with torch.no_grad():
        for adversarial in result.adversarial:
            levels = (adversarial * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(levels).save(tmp_path / "adversarial.png")
            with Image.open(tmp_path / "adversarial.png") as upload:
                seen = np.asarray(upload.resize((13, 11), Image.Resampling[resample.upper()]))[:10, 1:11]
            pixels = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None] / 255
            expected = encoder(pixels)
            torch.testing.assert_close(ranker.embed(adversarial[None]), expected, atol=1e-6, rtol=1e-5)
    assert result.rank_after.mean() < result.rank_before.mean()


@pytest.mark.parametrize(
    ("height", "width", "right"),
    [(427, 640, (256, 383)), (640, 427, (383, 256)), (333, 500, (256, 384)), (1, 3, (256, 768))],
)
def test_the_longer_side_is_rounded_down_as_in_torchvision(height, width, right):
    assert Preprocess(resize=256).sides(height, width) == right
