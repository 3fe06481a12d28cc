import math

import pytest
import torch
from torch import nn

from rankproof import Ranker, RankproofError
from rankproof.ranking.ranker import CHUNK, PASS_VALUES, pass_size


class Watched(nn.Module):
    """Batch norm and dropout, so that the mode shows; notes the modes it was called in."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.linear = nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Linear(16, 3)
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, self.norm.training, self.linear.weight.requires_grad))
        return self.linear(self.drop(self.norm(images)).flatten(1))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Watched()


def test_embedding_a_database_runs_frozen_in_eval_mode(encoder, make):
    images = make.images(7, dtype=torch.float32)
    Ranker(encoder, chunk=3).embed_all(images)
    assert encoder.seen == [(False, False, False)] * 3
    assert torch.equal(encoder.norm.running_mean, torch.zeros(1))


@pytest.mark.parametrize(
    ("form", "size"),
    [((1, 28, 28), CHUNK), ((1, 50, 100), CHUNK), ((1, 50, 101), 495), ((3, 224, 224), 16)],
)
def test_a_pass_is_bounded_in_images_and_in_values(form, size):
    assert pass_size(*form) == size


def test_a_pass_has_at_least_one_image():
    assert pass_size(1, 1, PASS_VALUES) == 1
    assert pass_size(3, 4000, 4000) == 1


def test_frozen_puts_back_every_module_and_parameter_as_it_was(encoder):
    encoder.train()
    encoder.norm.eval()
    encoder.linear.bias.requires_grad_(False)
    with Ranker(encoder).frozen():
        assert not any(module.training for module in encoder.modules())
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.training
    assert encoder.drop.training
    assert not encoder.norm.training
    assert encoder.linear.weight.requires_grad
    assert not encoder.linear.bias.requires_grad


def test_frozen_puts_back_after_an_error_and_when_nested(encoder):
    ranker = Ranker(encoder)

    def fails():
        with ranker.frozen():
            with ranker.frozen():
                pass
            assert not encoder.training
            assert not encoder.linear.weight.requires_grad
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert encoder.training
    assert encoder.linear.weight.requires_grad


def test_mean_and_std_are_taken_per_channel_inside_the_ranker():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = Ranker(nn.Flatten(), "euclidean", mean=mean, std=std).embed(images)
    expected = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(found, expected.flatten(1))
    only_mean = Ranker(nn.Flatten(), "euclidean", mean=mean).embed(images)
    torch.testing.assert_close(only_mean[:, :4], images[:, 0].flatten(1) - 0.1)


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_mean_or_std_that_is_no_number_is_refused(name, value):
    with pytest.raises(RankproofError, match=f"{name}: expected one number for each channel"):
        Ranker(nn.Flatten(), **{name: [value]})


def test_a_std_of_zero_is_refused():
    with pytest.raises(RankproofError, match="std"):
        Ranker(nn.Flatten(), mean=[0.5], std=[0.0])


def test_8_bit_images_embed_as_the_floats_they_stand_for(make):
    ranker = make.ranker()
    pixels = torch.randint(256, (9, 1, 4, 4), generator=make.random(0), dtype=torch.uint8)
    torch.testing.assert_close(ranker.embed_all(pixels), ranker.embed_all(pixels.double() / 255))


def test_single_precision_images_are_taken_to_the_encoders_precision(make):
    assert make.ranker().embed_all(make.images(2, dtype=torch.float32)).dtype == torch.float64


def test_passes_of_any_size_give_the_same_embeddings(make):
    images = make.images(7)
    torch.testing.assert_close(
        make.ranker(chunk=3).embed_all(images), make.ranker(chunk=50).embed_all(images)
    )


def test_embeddings_are_those_of_the_encoder_and_prepared_cosine_ones_have_unit_length(make):
    ranker, images = make.ranker("cosine"), make.images(5)
    assert torch.equal(ranker.embed_all(images), ranker.encoder(images))
    lengths = ranker.embed_prepared(images).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(5, dtype=torch.float64))


def test_the_gradient_reaches_the_images(make):
    images = make.images(3).requires_grad_(True)
    ranker = make.ranker()
    with ranker.frozen():
        (gradient,) = torch.autograd.grad(ranker.embed(images)[:, 0].sum(), images)
    assert bool((gradient != 0).any(dim=(1, 2, 3)).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_encoder_that_returns_no_numbers_is_named(make, value):
    encoder = make.flat(torch.full((3, 16), value, dtype=torch.float64))
    with pytest.raises(RankproofError, match=r"mine: .* NaN or infinite"):
        Ranker(encoder, name="mine").embed_all(make.images(2))


@pytest.mark.parametrize(
    "forward",
    [
        lambda images: images,
        lambda images: images.flatten(),
        lambda images: images.flatten(1)[:1],
        lambda images: (images.flatten(1),),
    ],
    ids=["four dimensions", "one dimension", "other length", "tuple"],
)
def test_an_encoder_that_returns_another_shape_is_named(make, forward):
    class Wrong(nn.Module):
        def forward(self, images):
            return forward(images)

    with pytest.raises(RankproofError, match=r"mine: .* \(batch, dimensions\)"):
        Ranker(Wrong(), name="mine").embed_all(make.images(2))


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_another_number_of_channels_are_named(channels):
    ranker = Ranker(nn.Sequential(nn.Conv2d(3, 2, 2), nn.Flatten()), name="mine")
    with pytest.raises(RankproofError, match=rf"mine: .* fails on .* \(2, {channels}, 4, 4\)") as caught:
        ranker.embed_all(torch.rand(2, channels, 4, 4))
    assert isinstance(caught.value.__cause__, RuntimeError)  # torch's own words stay within reach


def test_statistics_for_another_number_of_channels_are_named():
    images = torch.rand(2, 1, 4, 4)
    for statistics in ({"mean": [0.1, 0.2, 0.3]}, {"std": [0.1, 0.2, 0.3]}):
        with pytest.raises(RankproofError, match="mean and std are for 3 channels, the images have 1"):
            Ranker(nn.Flatten(), **statistics).embed_all(images)
    assert Ranker(nn.Flatten(), mean=[0.5]).embed_all(images.repeat(1, 3, 1, 1)).shape == (2, 48)


def test_what_is_no_fault_of_the_images_is_passed_on(make):
    class Exhausted(nn.Module):
        def forward(self, images):
            raise torch.OutOfMemoryError("too large")

    with pytest.raises(torch.OutOfMemoryError):
        Ranker(Exhausted()).embed_all(make.images(2))


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        (
            {"mean": [123.675, 116.28, 103.53], "std": [0.229, 0.224, 0.225]},
            "mean: .*by 255",
        ),
        (
            {"mean": [0.485, 0.456, 0.406], "std": [58.395, 57.12, 57.375]},
            "std: .*by 255",
        ),
        ({"mean": [float("nan")]}, "mean: expected one number for each channel"),
        ({"std": [float("inf")]}, "std: expected one number for each channel"),
        ({"mean": []}, "mean: expected one number for each channel"),
    ],
)
def test_statistics_that_are_not_those_of_pixels_in_the_unit_range_are_refused(statistics, said):
    with pytest.raises(RankproofError, match=said):
        Ranker(nn.Flatten(), **statistics)
