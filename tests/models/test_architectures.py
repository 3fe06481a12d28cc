import pytest
import torch

from rankproof.errors import RankproofError
from rankproof.models import ARCHITECTURES, load_checkpoint, new_encoder, save_checkpoint

SIZES = {"c2f1": 3_264_384, "lenet": 426_070, "resnet18-28": 11_170_240}
SIZES |= {"resnet18": 11_176_512, "resnet50": 23_508_032, "mobilenet_v2": 2_223_872}
DIMENSIONS = {"c2f1": 1024, "digits": 64, "lenet": 500, "resnet18-28": 512, "resnet18": 512, "resnet50": 2048}
DIMENSIONS |= {"mobilenet_v2": 1280}
DIMENSIONS |= {f"efficientnet-lite{number}": 1280 for number in range(5)}
NAMES = [  # of the usual checkpoints trained on ImageNet
    *("conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked"),
    *("layer1.0.conv1.weight", "layer1.1.bn2.bias", "layer2.0.downsample.0.weight"),
    *("layer2.0.downsample.1.running_var", "layer4.1.conv2.weight"),
]


def count(encoder):
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_images_become_embeddings(arch):
    kind = ARCHITECTURES[arch]
    side = kind.size or 40
    encoder = new_encoder(arch).eval()
    with torch.no_grad():
        assert encoder(torch.rand(2, kind.channels, side, side)).shape == (2, DIMENSIONS[arch])
    assert count(encoder) == SIZES.get(arch, count(encoder))


def test_colour_networks_take_any_size_and_oblong_images():
    encoder = new_encoder("resnet18").eval()
    with torch.no_grad():
        assert encoder(torch.rand(1, 3, 33, 64)).shape == (1, 512)
    assert ARCHITECTURES["resnet18"].takes((3, 33, 64))
    assert not ARCHITECTURES["resnet18"].takes((1, 64, 64))
    assert ARCHITECTURES["c2f1"].takes((1, 28, 28))
    assert not ARCHITECTURES["c2f1"].takes((1, 28, 29))
    assert (ARCHITECTURES["c2f1"].input_text, ARCHITECTURES["resnet50"].input_text) == ("1x28x28", "3xHxW")


def test_residual_networks_have_the_usual_names():
    eighteen, fifty = new_encoder("resnet18").state_dict(), new_encoder("resnet50").state_dict()
    assert set(NAMES) <= set(eighteen)
    assert len(eighteen) == 120  # 122 with the classifier
    assert {"layer1.0.conv3.weight", "layer1.0.downsample.1.bias", "layer3.5.bn3.weight"} <= set(fifty)
    assert len(fifty) == 318
    assert not any(name.startswith("fc") for name in (*eighteen, *fifty))
    assert eighteen["layer3.0.downsample.0.weight"].shape == (256, 128, 1, 1)
    assert "layer1.0.downsample.0.weight" not in eighteen


def test_the_strides_of_a_bottleneck_are_in_its_middle():
    block = new_encoder("resnet50").layer2[0]
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [(1, 1), (2, 2), (1, 1)]


def test_lenet_bends_only_at_its_end():
    encoder = new_encoder("lenet")
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        assert float(encoder(images).min()) == 0
        assert all(float(encoder.features[:depth](images).min()) < 0 for depth in (2, 4))


def test_the_seed_decides_the_weights_and_nothing_else_is_disturbed():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, same, other = (new_encoder("resnet18-28", seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_an_unknown_architecture_names_the_known():
    with pytest.raises(RankproofError, match=r"arch 'vgg' is unknown; known: c2f1, digits, lenet"):
        new_encoder("vgg")


@pytest.mark.parametrize("half", [False, True])
def test_checkpoints_keep_batch_norms(tmp_path, half):
    encoder = new_encoder("resnet18-28")
    encoder.bn1.running_mean.fill_(0.5)
    save_checkpoint(tmp_path / "model", encoder, {"arch": "resnet18-28"}, half=half)
    found = load_checkpoint(tmp_path / "model").encoder
    assert float(found.bn1.running_mean[0]) == 0.5
    assert found.bn1.num_batches_tracked.dtype == torch.int64
    torch.testing.assert_close(found.conv1.weight, encoder.conv1.weight, atol=1e-3, rtol=1e-3)
