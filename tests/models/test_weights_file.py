"""Files of weights under torchvision's and timm's names, made from random weights of our own networks.

timm's names stand here in the order in which timm lists them, which is the order of ours.
"""

import hashlib
import json
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from rankproof import RankproofError, open_encoder
from rankproof.models import new_encoder, resnet
from rankproof.models.definitions import DEFINITIONS, PUBLISHED

PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
COUNTS = {"mobilenet_v2": (1, 2, 3, 4, 3, 3, 1), "efficientnet-lite0": (1, 2, 2, 3, 3, 4, 1)}
HEAD = {"classifier.weight": torch.zeros(7, 1280), "classifier.bias": torch.zeros(7)}
IMAGENET, HALF = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5)


def trained(arch):
    """An encoder whose batch norms have statistics."""
    encoder = new_encoder(arch, seed=1)
    draw = torch.Generator().manual_seed(2)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.2), (module.running_var, 0.02), (module.bias, -0.2)):
                value.data.copy_(torch.rand(value.shape, generator=draw) + low)
    return encoder.eval()


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """A ResNet-18 of an eighth of its channels, whose files are quick to write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "WIDTHS", (8, 16, 32, 64))
        yield


@pytest.fixture(scope="module")
def networks(narrow):
    return {arch: trained(arch) for arch in ("resnet18", *COUNTS)}


@pytest.fixture(scope="module")
def eighteen(networks):
    state = {name: value.contiguous() for name, value in networks["resnet18"].state_dict().items()}
    return {**state, "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}


def timm_names(counts):
    """The names of timm's mobilenetv2_100 and of its EfficientNet-Lite networks."""

    def layer(convolution, norm):
        return [f"{convolution}.weight", *(f"{norm}.{part}" for part in PARTS)]

    names = layer("conv_stem", "bn1")
    for stage, count in enumerate(counts):
        for number in range(count):
            kinds = ("conv_pw", "conv_dw", "conv_pwl") if stage else ("conv_dw", "conv_pw")
            for place, kind in enumerate(kinds, 1):
                names += layer(f"blocks.{stage}.{number}.{kind}", f"blocks.{stage}.{number}.bn{place}")
    return names + layer("conv_head", "bn2")


def timm_state(networks, arch):
    values = networks[arch].state_dict().values()
    return dict(zip(timm_names(COUNTS[arch]), (value.contiguous() for value in values), strict=True)) | HEAD


def embedded(encoder, side=33):
    with torch.no_grad():
        return encoder(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))


def refused(name, file, message):
    with pytest.raises(RankproofError, match=message) as caught:
        open_encoder(name, weights=file)
    assert "\n" not in str(caught.value)


def save(state, file):
    torch.save(state, file)
    return file


# -- what loads


@pytest.mark.parametrize("arch", ["resnet18", *COUNTS])
def test_our_own_names_load(tmp_path, networks, arch):
    network = networks[arch]
    source = open_encoder(arch, weights=save(network.state_dict(), tmp_path / "w.pth"))
    torch.testing.assert_close(embedded(source.encoder), embedded(network))
    assert (source.mean, source.std) == (DEFINITIONS[arch].mean, DEFINITIONS[arch].std)
    assert source.record["weights"] == "w.pth"
    assert source.record["sha256"] == hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "arch", "mean"),
    [
        ("mobilenet_v2", "mobilenet_v2", IMAGENET),
        ("mobilenetv2_100", "mobilenet_v2", IMAGENET),
        ("tf_efficientnet_lite0", "efficientnet-lite0", HALF),
    ],
)
def test_the_names_of_timm_load(tmp_path, networks, name, arch, mean):
    save_file(timm_state(networks, arch), tmp_path / "model.safetensors", metadata={"format": "pt"})
    source = open_encoder(name, weights=str(tmp_path / "model.safetensors"))
    torch.testing.assert_close(embedded(source.encoder), embedded(networks[arch]))
    assert source.mean == mean
    (note,) = source.notes
    assert "by timm's names; classifier" in note
    assert "left out" in note


def test_the_lite_network_that_timm_trained_pads_evenly_and_has_another_eps(tmp_path, networks):
    state = timm_state(networks, "efficientnet-lite0")
    source = open_encoder("efficientnet_lite0", weights=save(state, tmp_path / "w.pth"))
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        stem = functional.conv2d(images, state["conv_stem.weight"], stride=2, padding=1)
        norm = (state["bn1.running_mean"], state["bn1.running_var"], state["bn1.weight"], state["bn1.bias"])
        expected = functional.batch_norm(stem, *norm, eps=1e-5)
        found = source.encoder._bn0(source.encoder._conv_stem(source.encoder._pad(images)))
    torch.testing.assert_close(found, expected)
    assert {each.eps for each in source.encoder.modules() if isinstance(each, nn.BatchNorm2d)} == {1e-5}
    assert [each.padding for each in source.encoder.modules() if isinstance(each, nn.ZeroPad2d)] == [
        (side,) * 4 for side in (1, 1, 2, 1, 2)
    ]
    assert source.mean == IMAGENET
    assert (embedded(source.encoder) - embedded(networks["efficientnet-lite0"])).abs().max() > 0.01


def moco(state):
    return {
        "arch": "resnet18",
        "state_dict": {
            **{f"module.encoder_q.{name}": value for name, value in state.items()},
            **{f"module.encoder_k.{name}": value * 2 for name, value in state.items()},
            "module.queue": torch.zeros(3, 3),
        },
    }


@pytest.mark.parametrize(
    ("wrap", "left_out"),
    [
        (lambda state: {f"module.backbone.{name}": value for name, value in state.items()}, "fc.weight"),
        (lambda state: {"model_state_dict": state, "epoch": 3}, "fc.weight"),
        (lambda state: {"teacher": {f"net.{name}": value for name, value in state.items()}}, "fc.weight"),
        (lambda state: {**state, "module.prototypes.weight": torch.zeros(2, 2)}, "prototypes.weight"),
        (lambda state: {name: value for name, value in state.items() if "tracked" not in name}, "fc.weight"),
        (lambda state: {name: value.double() for name, value in state.items()}, "fc.weight"),
        (moco, "encoder_k"),
    ],
    ids=["prefix", "model_state_dict", "another key", "prototypes", "no counters", "double", "MoCo"],
)
def test_checkpoints_of_many_kinds_load(tmp_path, networks, eighteen, wrap, left_out):
    source = open_encoder("resnet18", weights=save(wrap(eighteen), tmp_path / "w.pth.tar"))
    torch.testing.assert_close(embedded(source.encoder), embedded(networks["resnet18"]))
    assert left_out in source.notes[0]


def test_weights_that_were_never_trained_are_told(tmp_path):
    fresh = open_encoder("resnet18", weights=save(new_encoder("resnet18").state_dict(), tmp_path / "w.pth"))
    assert "never seen an image" in fresh.notes[1]


# -- what must not


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if "layer2.1.bn2.bias" not in k}, "lacks layer2.1.bn2.bias;"),
        (lambda s: {k: v for k, v in s.items() if "running" not in k}, "lacks bn1.running_mean"),
        (lambda s: {**s, "layer1.2.conv1.weight": s["layer1.1.conv1.weight"]}, "no layer1.2.conv1.weight"),
        (lambda s: {**s, "layer1.0.se.fc1.weight": torch.zeros(2)}, "the network has no layer1.0.se.fc1"),
        (lambda s: {**s, "embedding.weight": torch.zeros(2)}, "the network has no embedding.weight"),
        (lambda s: {f"a.{k}": v for k, v in s.items()} | {"conv1.weight": s["bn1.bias"]}, "no conv1.weight"),
        (lambda s: {**s, "conv1.weight": s["conv1.weight"][:, :1]}, "8x1x7x7 in the file and 8x3x7x7 in"),
        (lambda s: {**s, "bn1.running_var": -s["bn1.running_var"]}, "bn1.running_var has variances below 0"),
        (lambda s: {**s, "conv1.weight": s["conv1.weight"].to(torch.int8)}, "holds whole numbers"),
        (lambda s: {"state_dict": s, "state_dict_ema": s}, "several sets of weights, below state_dict, "),
        (lambda s: {f"{a}.{k}": v for a in ("s", "t") for k, v in s.items()}, "2 times, below 's', 't'"),
        (lambda s: {"a": torch.zeros(1)}, "resnet18: it has no layer4.0.conv1.weight, but a"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(tmp_path, eighteen, change, message):
    refused("resnet18", save(change(eighteen), tmp_path / "w.pth"), message)


def test_networks_with_the_same_tensors_are_told_apart_or_asked_for(tmp_path, networks, eighteen):
    lite = timm_state(networks, "efficientnet-lite0")
    refused(
        "efficientnet-lite0", save(lite, tmp_path / "w.pth"), "write --model tf_efficientnet_lite0 .* or --"
    )
    named = save(lite, tmp_path / "tf_efficientnet_lite0.pth")
    assert open_encoder("efficientnet-lite0", weights=named).mean == HALF
    refused("efficientnet_lite0", named, "its name says tf_efficientnet_lite0, another network")
    ours = save(networks["efficientnet-lite0"].state_dict(), tmp_path / "ours.pth")
    refused("efficientnet_lite0", ours, "padding is TensorFlow's; write --model efficientnet-lite0")
    for word in ("resnetaa50", "resnetblur18", "resnet50_caffe", "resnet50_msra"):
        refused("resnet18", save(eighteen, tmp_path / f"{word}.pth"), "that computes something else")


def test_the_configuration_of_timm_beside_a_file_is_followed(tmp_path, networks, eighteen):
    save_file(timm_state(networks, "efficientnet-lite0"), tmp_path / "model.safetensors")
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    config = {"architecture": "tf_efficientnet_lite0", "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = open_encoder("efficientnet-lite0", weights=tmp_path / "model.safetensors")
    assert (source.mean, source.record["definition"]) == ((0.1, 0.2, 0.3), "tf_efficientnet_lite0")
    torch.testing.assert_close(embedded(source.encoder), embedded(networks["efficientnet-lite0"]))
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "resnetaa50"}))
    refused("resnet18", save(eighteen, tmp_path / "w.bin"), "config.json beside it says resnetaa50, another")
    (tmp_path / "config.json").write_text("[")
    assert open_encoder("resnet18", weights=tmp_path / "w.bin").mean == IMAGENET


def test_the_digits_in_a_published_name_are_checked(tmp_path, eighteen):
    file = save(eighteen, tmp_path / "resnet18-f37072fd.pth")
    refused("resnet18", file, "damaged or another file: its sha256 begins with .* name says f37072fd; fetch")
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    right = file.rename(tmp_path / f"resnet18-{digits}.pth")
    if not digits.isdecimal():
        assert "the sha256 is the one in its name" in open_encoder("resnet18", weights=right).notes[0]
    for name in ("resnet18-20240115.pth", "mine-f37072fd.pth", "resnet18-f37072.pth"):
        open_encoder("resnet18", weights=right.rename(tmp_path / name))
        right = tmp_path / name
    assert set(PUBLISHED.values()) <= set(DEFINITIONS)


def test_a_file_with_a_wrong_bit_is_refused(tmp_path, eighteen):
    file = save(eighteen, tmp_path / "w.pth")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)
    refused("resnet18", file, "damaged, the checksum of its part .* is wrong")
    file.write_bytes(content[: len(content) // 2])
    refused("resnet18", file, "not a file of plain tensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused("resnet18", save(nn.Linear(2, 2), file), "not a file of plain tensors")


def test_the_name_of_a_network_is_needed(tmp_path, eighteen):
    file = save(eighteen, tmp_path / "w.pth")
    refused("resnet34", file, "known: resnet18, resnet50, mobilenet_v2, .*efficientnet_lite4; for any other")
    refused("resnet18", tmp_path / "none.pth", "no such file of weights")
    with pytest.raises(
        RankproofError, match=r"write --model NETWORK --weights .*w.pth, where NETWORK is one"
    ):
        open_encoder(str(file))
